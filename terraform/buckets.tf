locals {
  created_buckets = { for name, b in module.catalog.buckets : name => b if !contains(keys(var.platform_buckets), name) }
  bucket_names    = { for name, b in module.catalog.buckets : name => lookup(var.platform_buckets, name, "${var.project}-keeper-${name}") }
}

resource "google_storage_bucket" "data" {
  for_each = local.created_buckets

  name                        = local.bucket_names[each.key]
  location                    = coalesce(var.bucket_location, var.region)
  storage_class               = each.value.class
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = each.value.noncurrent_days != null
  }

  soft_delete_policy {
    retention_duration_seconds = each.value.soft_delete_days * 86400
  }

  dynamic "retention_policy" {
    for_each = each.value.retention_days == null ? [] : [each.value.retention_days]
    content {
      retention_period = tostring(retention_policy.value * 86400)
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.delete_after_days == null ? [] : [each.value.delete_after_days]
    content {
      action {
        type = "Delete"
      }
      condition {
        age = lifecycle_rule.value
      }
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.rules
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value.delete_after_days
        matches_prefix = [lifecycle_rule.value.prefix]
      }
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.noncurrent_days == null ? [] : [each.value.noncurrent_days]
    content {
      action {
        type = "Delete"
      }
      condition {
        days_since_noncurrent_time = lifecycle_rule.value
      }
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.marked ? [1] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        days_since_custom_time = lifecycle_rule.value
      }
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_storage_bucket_iam_member" "task" {
  for_each = { for key, g in module.catalog.bucket_grants : key => g if g.folder == "" }

  bucket = try(google_storage_bucket.data[each.value.bucket].name, local.bucket_names[each.value.bucket])
  role   = each.value.role
  member = "serviceAccount:${local.accounts[each.value.task]}"
}

# A part of a bucket is a managed folder: a condition on object names would forbid listing it.
resource "google_storage_managed_folder" "folder" {
  for_each = {
    for g in module.catalog.bucket_grants : "${g.bucket}/${g.folder}" => g... if g.folder != ""
  }

  bucket        = try(google_storage_bucket.data[each.value[0].bucket].name, local.bucket_names[each.value[0].bucket])
  name          = each.value[0].folder
  force_destroy = true # the folder's policy goes with its last task, the objects stay in the bucket
}

resource "google_storage_managed_folder_iam_member" "task" {
  for_each = { for key, g in module.catalog.bucket_grants : key => g if g.folder != "" }

  bucket         = google_storage_managed_folder.folder["${each.value.bucket}/${each.value.folder}"].bucket
  managed_folder = google_storage_managed_folder.folder["${each.value.bucket}/${each.value.folder}"].name
  role           = each.value.role
  member         = "serviceAccount:${local.accounts[each.value.task]}"
}
