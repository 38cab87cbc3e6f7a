# Topics exist because a task listens or publishes; what cannot be delivered in ten attempts waits in a dead-letter
# topic's own subscription and raises an alert.
resource "google_pubsub_topic" "topic" {
  for_each = module.catalog.topics

  name                       = each.key
  message_retention_duration = "604800s" # what a subscription lost can be had again
}

resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = module.catalog.publishers

  topic  = google_pubsub_topic.topic[each.value.topic].name
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:${local.accounts[each.value.task]}"
}

locals {
  subscriptions = merge(module.catalog.pushes, module.catalog.pulls)
}

resource "google_pubsub_topic" "dead" {
  for_each = local.subscriptions

  name = "${each.key}.dead"
}

resource "google_pubsub_subscription" "dead" {
  for_each = local.subscriptions

  name                       = "${each.key}.dead"
  topic                      = google_pubsub_topic.dead[each.key].id
  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription" "task" {
  for_each = local.subscriptions

  name                       = each.key
  topic                      = google_pubsub_topic.topic[each.value.topic].id
  ack_deadline_seconds       = min(600, max(10, local.tasks[each.value.task].timeout_s))
  message_retention_duration = "604800s"

  # without this a subscription that is idle for a month is deleted
  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead[each.key].id
    max_delivery_attempts = 10
  }

  dynamic "push_config" {
    for_each = contains(keys(module.catalog.pushes), each.key) ? [google_cloudfunctions2_function.task[each.value.task].service_config[0].uri] : []
    content {
      push_endpoint = push_config.value

      oidc_token {
        service_account_email = local.pubsub_account
        audience              = push_config.value
      }
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invoker, google_pubsub_topic_iam_member.dead]
}

resource "google_pubsub_subscription_iam_member" "drain" {
  for_each = module.catalog.pulls

  subscription = google_pubsub_subscription.task[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${local.accounts[each.value.task]}"
}

# Google's own agent moves what is dead, and for that acknowledges it where it was.
resource "google_pubsub_topic_iam_member" "dead" {
  for_each = local.subscriptions

  topic  = google_pubsub_topic.dead[each.key].name
  role   = "roles/pubsub.publisher"
  member = local.agents.pubsub
}

resource "google_pubsub_subscription_iam_member" "dead" {
  for_each = local.subscriptions

  subscription = google_pubsub_subscription.task[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.agents.pubsub
}
