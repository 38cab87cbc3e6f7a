locals {
  # made by bootstrap/: who builds, and where images are kept
  build_account = "keeper-build@${local._domain}"
  repository    = "projects/${var.project}/locations/${var.region}/repositories/keeper"

  # What every process of the plane is told, whichever way it runs.
  _common_environment = merge(
    {
      DATABASE_CA              = local.database_ca
      GOOGLE_CLOUD_PROJECT     = var.project
      KEEPER_DOCS              = "https://github.com/${var.github_repository}/blob/main/docs"
      KEEPER_SCHEDULER_REGION  = coalesce(var.scheduler_region, var.region)
      KEEPER_BACKUP_GATE_HOURS = tostring(var.backup_gate_hours)
      KEEPER_STRIPE_LIVEMODE   = tostring(var.stripe_livemode)
    },
    var.paused == "" ? {} : { KEEPER_PAUSED = var.paused },
  )

  # Known before the first apply, unlike the ring's own id.
  _key_ring = "projects/${var.project}/locations/${coalesce(var.kms_location, var.region)}/keyRings/groundskeeper"

  # Where a task is called. A service's own URL is known from its name and the project's number, so that a task that
  # starts another does not have to wait for it, nor two for each other.
  _targets = {
    for name, t in local.tasks : name => (
      t.kind == "job"
      ? "projects/${var.project}/locations/${var.region}/jobs/${t.slug}"
      : "https://${t.slug}-${var.project_number}.${var.region}.run.app"
    )
  }

  environment = {
    for name, t in local.tasks : name => merge(
      local._common_environment,
      {
        DATABASE_URL = format(
          "postgresql://%s@%s:5432/%s?iam=1",
          urlencode(trimsuffix(local.accounts[name], ".gserviceaccount.com")),
          local.database_host, var.database.name,
        )
        KEEPER_MODE = lookup(var.modes, name, var.mode)
      },
      { for b in t.buckets : "KEEPER_BUCKET_${upper(replace(b.bucket, "-", "_"))}" => "gs://${local.bucket_names[b.bucket]}" },
      { for k in t.kms : "KEEPER_KEY_${upper(replace(k, "-", "_"))}" => "${local._key_ring}/cryptoKeys/${k}" },
      { for other in t.starts : "KEEPER_TARGET_${upper(other)}" => local._targets[other] },
      anytrue([for e in t.endpoints : e.auth == "operator"]) ? { KEEPER_OPERATORS = join(",", var.operators) } : {},
      # ordering keys are kept in order within one region, so whoever publishes does so in the plane's own
      contains([for p in t.params : p[1]], "PUBSUB_ENDPOINT") ? { PUBSUB_ENDPOINT = "${var.region}-pubsub.googleapis.com:443" } : {},
      module.catalog.environment[name],
    )
  }
}

resource "google_cloudfunctions2_function" "task" {
  for_each = local.functions

  name        = each.value.slug
  location    = var.region
  description = each.value.summary
  labels      = { task = each.value.slug, owner = each.value.owner }

  build_config {
    runtime           = var.runtime
    entry_point       = "main"
    service_account   = "projects/${var.project}/serviceAccounts/${local.build_account}"
    docker_repository = local.repository

    source {
      storage_source {
        bucket = local.source_bucket
        object = google_storage_bucket_object.task[each.key].name
      }
    }
  }

  service_config {
    available_memory                 = "${each.value.memory_mb}Mi"
    available_cpu                    = tostring(each.value.cpu)
    timeout_seconds                  = each.value.timeout_s
    min_instance_count               = 0
    max_instance_count               = each.value.max_instances
    max_instance_request_concurrency = each.value.concurrency
    ingress_settings                 = each.value.ingress == "all" ? "ALLOW_ALL" : "ALLOW_INTERNAL_ONLY"
    all_traffic_on_latest_revision   = true
    service_account_email            = local.accounts[each.key]
    direct_vpc_egress                = "VPC_EGRESS_PRIVATE_RANGES_ONLY"

    direct_vpc_network_interface {
      network    = local.network
      subnetwork = local.subnetwork
    }

    # the execution id on every line of a run
    environment_variables = merge(local.environment[each.key], { LOG_EXECUTION_ID = "true" })
  }

  # it may not start before it may log in and reach what it names
  depends_on = [
    google_kms_crypto_key_iam_member.task,
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.task,
    google_sql_user.task,
    google_storage_bucket_iam_member.task,
    google_storage_managed_folder_iam_member.task,
  ]
}
