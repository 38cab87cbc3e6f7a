# The archives that functions are built from and jobs load. Their names hold their hash: what did not change is not
# deployed again, and what a job runs is what was planned.
locals {
  source_bucket = "${var.project}-keeper-source" # made by bootstrap/
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

  bucket       = local.source_bucket
  name         = "tasks/${each.value.slug}/${data.archive_file.task[each.key].output_sha256}.zip"
  source       = data.archive_file.task[each.key].output_path
  content_type = "application/zip"

  # the old archive goes only when nothing refers to it any more
  lifecycle {
    create_before_destroy = true
  }
}

resource "google_storage_bucket_object" "migrate" {
  bucket       = local.source_bucket
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

  bucket = local.source_bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${local.accounts[each.key]}"

  condition {
    title      = "own archives"
    expression = "resource.name.startsWith(\"projects/_/buckets/${local.source_bucket}/objects/tasks/${each.value.slug}/\")"
  }
}

resource "google_storage_bucket_iam_member" "migrate_source" {
  bucket = local.source_bucket
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${local.migrate_account}"

  condition {
    title      = "own archives"
    expression = "resource.name.startsWith(\"projects/_/buckets/${local.source_bucket}/objects/migrate/\")"
  }
}
