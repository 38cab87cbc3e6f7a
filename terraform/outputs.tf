output "tasks" {
  description = "Every task: what runs it, when, as whom, and what it may touch."
  value = {
    for name, t in local.tasks : name => {
      kind      = t.kind
      schedules = [for s in module.catalog.schedules : s.cron if s.task == name]
      identity  = local.accounts[name]
      memory_mb = t.memory_mb
      timeout_s = t.timeout_s
      topics    = sort(concat(t.listens, t.subscribes, t.publishes))
      secrets   = t.secrets
      keys      = t.kms
      buckets   = [for b in t.buckets : "${b.bucket}/${b.prefix}:${b.access}"]
      roles     = t.roles
      mode      = t.destructive ? lookup(var.modes, name, var.mode) : null
      watched   = contains(keys(local.watched), name) ? "absence alert" : t.must_succeed_within_s == null ? null : "watchdog"
    }
  }
}

output "endpoints" {
  description = "HTTP endpoints: hosting/firebase.json rewrites exactly the public ones."
  value = [
    for e in module.catalog.endpoints : merge(e, {
      service = local.tasks[e.task].slug
      region  = var.region
    })
  ]
}

output "migrate_command" {
  description = "What to run after each apply."
  value       = "gcloud run jobs execute ${google_cloud_run_v2_job.migrate.name} --project ${var.project} --region ${var.region} --wait"
}

output "buckets" {
  description = "Where each logical bucket is, and after how many days data in it is gone everywhere (null: a task decides)."
  value = {
    for name, bucket in local.bucket_names : name => { bucket = bucket, gone_after_days = module.catalog.gone_after_days[name] }
  }
}

output "connections" {
  description = "Database connections that all tasks together may hold, of database.connection_budget."
  value       = "${module.catalog.connections} of ${var.database.connection_budget}"
}
