# The platform's PostgreSQL: given (variable database.existing) or created here. Either way each task logs in as itself
# with a token of its own identity: there is no password to keep.
locals {
  create_database   = var.database.existing == null
  database_instance = local.create_database ? one(google_sql_database_instance.main[*].name) : var.database.existing.instance
  database_host     = local.create_database ? one(google_sql_database_instance.main[*].private_ip_address) : var.database.existing.host
  # all certificates of the instance's authority: while it is rotated there are two
  database_ca = local.create_database ? join("\n", flatten(google_sql_database_instance.main[*].server_ca_cert[*].cert)) : var.database.existing.server_ca
}

resource "google_sql_database_instance" "main" {
  count = local.create_database ? 1 : 0

  name                = var.database.instance
  region              = var.region
  database_version    = var.database.version
  deletion_protection = var.deletion_protection

  settings {
    tier                        = var.database.tier
    edition                     = "ENTERPRISE"
    availability_type           = var.database.availability
    disk_type                   = "PD_SSD"
    disk_size                   = var.database.disk_gb
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection
    retain_backups_on_delete    = true

    # before the plane's own dump at midnight, and after the day's traffic
    backup_configuration {
      enabled                        = true
      start_time                     = "22:00"
      location                       = var.database.backup_location
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = var.database.backups_kept
        retention_unit   = "COUNT"
      }
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = local.network
      ssl_mode        = "ENCRYPTED_ONLY"
      server_ca_mode  = "GOOGLE_MANAGED_INTERNAL_CA" # signs this one instance, which is what clients verify
    }

    # the hours without tasks on the database
    maintenance_window {
      day          = 7
      hour         = 10
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled  = true
      record_application_tags = true # application_name is task/run
      record_client_address   = false
    }

    database_flags {
      name  = "cloudsql.iam_authentication"
      value = "on"
    }
    database_flags {
      name  = "max_connections"
      value = tostring(var.database.max_connections)
    }
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }
    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
    database_flags {
      name  = "log_min_error_statement" # texts of statements can hold personal data: only those that broke
      value = "error"
    }
  }

  depends_on = [google_service_networking_connection.main]

  lifecycle {
    prevent_destroy = true
    ignore_changes  = [settings[0].disk_size] # it grows by itself
  }
}

resource "google_sql_database" "app" {
  count = local.create_database ? 1 : 0

  name            = var.database.name
  instance        = google_sql_database_instance.main[0].name
  deletion_policy = "ABANDON"
}

# A role that holds grants cannot be dropped, and one without its account cannot log in: Terraform leaves it, the
# migrate job takes its grants away.
resource "google_sql_user" "task" {
  for_each = local.tasks

  name            = trimsuffix(local.accounts[each.key], ".gserviceaccount.com")
  instance        = local.database_instance
  type            = "CLOUD_IAM_SERVICE_ACCOUNT"
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "migrate" {
  name            = trimsuffix(local.migrate_account, ".gserviceaccount.com")
  instance        = local.database_instance
  type            = "CLOUD_IAM_SERVICE_ACCOUNT"
  database_roles  = ["cloudsqlsuperuser"] # creates the schema and grants on the platform's tables
  deletion_policy = "ABANDON"
}

# To log in takes a role on the project; the condition narrows it to this one instance.
resource "google_project_iam_member" "database" {
  for_each = merge(
    { for name, account in local.accounts : name => "serviceAccount:${account}" },
    { keeper_migrate = "serviceAccount:${local.migrate_account}" },
  )

  project = var.project
  role    = "roles/cloudsql.instanceUser"
  member  = each.value

  condition {
    title      = "one instance"
    expression = "resource.service == \"sqladmin.googleapis.com\" && resource.name == \"projects/${var.project}/instances/${local.database_instance}\""
  }
}
