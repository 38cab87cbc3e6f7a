# terraform/data/buckets.yaml in one shape, its numbers resolved: `{env: NAME, default: n}` takes the very
# parameter that the task deleting rows or objects of that age takes.
locals {
  _buckets = yamldecode(file("${var.data_dir}/buckets.yaml"))

  _bucket_keys = [
    "class", "delete_after_days", "marked", "noncurrent_days", "purpose", "retention_days", "rules",
    "soft_delete_days", "tail_days",
  ]

  _bucket_parameters = {
    for name, values in {
      for b in local._buckets : try(b.delete_after_days.env, "") => try(tostring(b.delete_after_days.default), "")...
    } : name => distinct(values) if name != ""
  }

  _bucket_days = {
    for name, b in local._buckets : name => (
      can(b.delete_after_days.env)
      ? tonumber(lookup(var.parameters, b.delete_after_days.env, b.delete_after_days.default))
      : try(tonumber(b.delete_after_days), null)
    )
  }

  buckets = {
    for name, b in local._buckets : name => {
      class             = try(b.class, "STANDARD")
      delete_after_days = local._bucket_days[name]
      rules             = try(b.rules, [])
      marked            = try(b.marked, false)
      noncurrent_days   = try(b.noncurrent_days, null)
      soft_delete_days  = b.soft_delete_days
      retention_days    = try(b.retention_days, null)
      tail_days         = try(b.tail_days, 0)
    }
  }

  # What a deletion really takes: a version that is no longer current, then a soft-deleted object, are still there.
  gone_after_days = {
    for name, b in local.buckets : name => b.delete_after_days == null ? null : (
      max(b.delete_after_days, coalesce(b.retention_days, 0)) + coalesce(b.noncurrent_days, 0) + b.soft_delete_days
    )
  }
}
