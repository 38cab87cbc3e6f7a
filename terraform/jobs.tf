# A job's image holds packages only; what it runs is its source archive, as with functions (images/load.py).
resource "google_cloud_run_v2_job" "task" {
  for_each = local.jobs

  name                = each.value.slug
  location            = var.region
  labels              = { task = each.value.slug, owner = each.value.owner }
  deletion_protection = var.deletion_protection

  template {
    task_count  = each.value.shards
    parallelism = min(each.value.shards, each.value.parallelism)

    template {
      service_account       = local.accounts[each.key]
      timeout               = "${each.value.timeout_s}s"
      max_retries           = 1
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"

      containers {
        image   = lookup(var.images, each.value.image, "")
        command = ["python", "/opt/groundskeeper/load.py"]
        args    = ["python", "-m", "shared.task", "functions/${each.key}"]

        resources {
          limits = { cpu = tostring(each.value.cpu), memory = "${each.value.memory_mb}Mi" }
        }

        dynamic "env" {
          for_each = merge(local.environment[each.key], {
            KEEPER_SOURCE = "gs://${local.source_bucket}/${google_storage_bucket_object.task[each.key].name}"
          })
          content {
            name  = env.key
            value = env.value
          }
        }
      }

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = local.network
          subnetwork = local.subnetwork
        }
      }
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.task,
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.task,
    google_sql_user.task,
    google_storage_bucket_iam_member.job_source,
    google_storage_bucket_iam_member.task,
    google_storage_managed_folder_iam_member.task,
  ]
}
