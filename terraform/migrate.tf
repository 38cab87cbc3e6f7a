# Not a task: it brings the schema `groundskeeper` to the version of this source and writes the grants that the
# task.yaml files declare. Run it after each apply (README), before the plane is trusted with anything.
resource "google_service_account" "migrate" {
  account_id   = "keeper-migrate"
  display_name = "Groundskeeper: migrations and grants"
}

resource "google_cloud_run_v2_job" "migrate" {
  name                = "keeper-migrate"
  location            = var.region
  deletion_protection = var.deletion_protection

  template {
    task_count  = 1
    parallelism = 1

    template {
      service_account       = local.migrate_account
      timeout               = "1800s"
      max_retries           = 0
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"

      containers {
        image   = var.images["base"]
        command = ["python", "/opt/groundskeeper/load.py"]
        args    = ["python", "-m", "shared.keeper", "migrate", "--grants"]

        resources {
          limits = { cpu = "1", memory = "512Mi" }
        }

        dynamic "env" {
          for_each = merge(local._common_environment, {
            DATABASE_URL = format(
              "postgresql://%s@%s:5432/%s?iam=1",
              urlencode(trimsuffix(local.migrate_account, ".gserviceaccount.com")),
              local.database_host, var.database.name,
            )
            KEEPER_SOURCE = "gs://${local.source_bucket}/${google_storage_bucket_object.migrate.name}"
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
    google_project_iam_member.database,
    google_sql_user.migrate,
    google_storage_bucket_iam_member.migrate_source,
  ]
}
