# The archives that functions are built from and jobs load. Their names hold their hash: what did not change is not
# deployed again, and what a job runs is what was planned.
resource "google_storage_bucket" "source" {
  name                        = "${var.project}-keeper-source"
  location                    = coalesce(var.bucket_location, var.region)
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # everything in it is made from the repository

  soft_delete_policy {
    retention_duration_seconds = 604800
  }
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }
}

data "archive_file" "task" {
  for_each = merge(module.catalog.function_sources, module.catalog.job_sources)

  type             = "zip"
  output_path      = "${path.root}/.build/${each.key}.zip"
  output_file_mode = "0644"

  dynamic "source" {
    for_each = each.value
    content {
      filename = source.key
      content  = source.value
    }
  }
}

data "archive_file" "migrate" {
  type             = "zip"
  output_path      = "${path.root}/.build/migrate.zip"
  output_file_mode = "0644"

  dynamic "source" {
    for_each = module.catalog.migrate_source
    content {
      filename = source.key
      content  = source.value
    }
  }
}

resource "google_storage_bucket_object" "task" {
  for_each = local.tasks

  bucket       = google_storage_bucket.source.name
  name         = "tasks/${each.value.slug}/${data.archive_file.task[each.key].output_sha256}.zip"
  source       = data.archive_file.task[each.key].output_path
  content_type = "application/zip"

  # the old archive goes only when nothing refers to it any more
  lifecycle {
    create_before_destroy = true
  }
}

resource "google_storage_bucket_object" "migrate" {
  bucket       = google_storage_bucket.source.name
  name         = "migrate/${data.archive_file.migrate.output_sha256}.zip"
  source       = data.archive_file.migrate.output_path
  content_type = "application/zip"

  lifecycle {
    create_before_destroy = true
  }
}

# A job reads its own archives; functions are built from theirs by Google's build service.
resource "google_storage_bucket_iam_member" "job_source" {
  for_each = local.jobs

  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.task[each.key].member

  condition {
    title      = "own archives"
    expression = "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.source.name}/objects/tasks/${each.value.slug}/\")"
  }
}

resource "google_storage_bucket_iam_member" "migrate_source" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.migrate.member

  condition {
    title      = "own archives"
    expression = "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.source.name}/objects/migrate/\")"
  }
}

resource "google_storage_bucket_iam_member" "build_source" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${local.build_account}"
}
