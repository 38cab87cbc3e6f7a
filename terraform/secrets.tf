# Secrets by name; their values never pass through Terraform. Tasks read them by API when they need them, so that one
# without a version is an outcome in words and not a function that does not start.
locals {
  _rotation = yamldecode(file("${path.module}/data/secrets.yaml"))
}

# Secret Manager only reminds: rotate_secrets rotates.
resource "google_pubsub_topic" "rotation" {
  count = length(module.catalog.secrets) > 0 ? 1 : 0

  name = "secret-rotation"
}

resource "google_pubsub_subscription" "rotation" {
  count = length(module.catalog.secrets) > 0 ? 1 : 0

  name                       = "secret-rotation"
  topic                      = google_pubsub_topic.rotation[0].id
  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic_iam_member" "rotation" {
  count = length(module.catalog.secrets) > 0 ? 1 : 0

  topic  = google_pubsub_topic.rotation[0].name
  role   = "roles/pubsub.publisher"
  member = local.agents.secret
}

resource "google_secret_manager_secret" "secret" {
  for_each = module.catalog.secrets

  secret_id           = each.key
  version_destroy_ttl = "604800s" # a version destroyed by mistake is only disabled for a week

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  dynamic "topics" {
    for_each = contains(keys(local._rotation.never), each.key) ? [] : [google_pubsub_topic.rotation[0].id]

    content {
      name = topics.value
    }
  }

  dynamic "rotation" {
    for_each = contains(keys(local._rotation.never), each.key) ? [] : [lookup(local._rotation.days, each.key, local._rotation.default_days)]

    content {
      rotation_period = "${rotation.value * 86400}s"
      # the first of next month, when rotate_secrets runs: to the second it would differ between a plan and its apply
      next_rotation_time = formatdate("YYYY-MM-01'T'00:00:00Z", timeadd(plantimestamp(), "744h"))
    }
  }

  depends_on = [google_pubsub_topic_iam_member.rotation]

  lifecycle {
    ignore_changes = [rotation[0].next_rotation_time]
  }
}

resource "google_secret_manager_secret_iam_member" "task" {
  for_each = module.catalog.secret_grants

  secret_id = google_secret_manager_secret.secret[each.value.secret].secret_id
  role      = each.value.role
  member    = "serviceAccount:${local.accounts[each.value.task]}"
}
