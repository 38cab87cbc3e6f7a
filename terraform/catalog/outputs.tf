output "tasks" {
  description = "Every task, by name, in one shape."
  value       = local.tasks

  precondition {
    condition     = length(local.findings) == 0
    error_message = join("\n", local.findings)
  }
  precondition {
    condition     = local.connections <= var.connection_budget
    error_message = "All tasks together may hold ${local.connections} database connections (max_instances x (concurrency + 3)), the budget is ${var.connection_budget}: lower max_instances or raise database.connection_budget."
  }
}

output "declared" {
  description = "The task.yaml files as Terraform reads them, for the test that Python reads the same."
  value       = local._raw
}

output "schedules" {
  description = "Cloud Scheduler jobs: name => task and cron (UTC)."
  value       = local.schedules
}

output "topics" {
  description = "Every topic a task listens to, drains or publishes to."
  value       = local.topics
}

output "pushes" {
  description = "Push subscriptions: <slug>.<topic> => task and topic."
  value       = local.pushes
}

output "pulls" {
  description = "Subscriptions a task drains itself: <slug>.<topic> => task and topic."
  value       = local.pulls
}

output "publishers" {
  description = "Who publishes where: <slug>.<topic> => task and topic."
  value       = local.publishers
}

output "starts" {
  description = "Which task may start which: <slug>.<other> => task and starts."
  value       = local.starts
}

output "endpoints" {
  description = "Every HTTP endpoint with its path, methods, way of authentication and reason."
  value       = local.endpoints
}

output "public" {
  description = "Tasks with endpoints that are reachable without Google's own identity check."
  value       = local.public
}

output "secrets" {
  description = "Every secret a task names."
  value       = local.secrets
}

output "secret_grants" {
  description = "Roles on secrets."
  value       = local.secret_grants
}

output "keys" {
  description = "KMS keys."
  value       = local.keys
}

output "key_grants" {
  description = "Roles on keys."
  value       = local.key_grants
}

output "buckets" {
  description = "Buckets with their lifecycle, numbers resolved."
  value       = local.buckets
}

output "bucket_grants" {
  description = "Roles on buckets or on folders of them."
  value       = local.bucket_grants
}

output "gone_after_days" {
  description = "Days until an object is gone everywhere: lifecycle, versions, soft delete and retention together."
  value       = local.gone_after_days
}

output "project_roles" {
  description = "Roles that have no smaller resource to be granted on."
  value       = local.project_roles
}

output "environment" {
  description = "Parameters that are set, per task."
  value       = local.environment
}

output "function_sources" {
  description = "File name => text of each function's source archive."
  value       = local.function_sources
}

output "job_sources" {
  description = "File name => text of each job's source archive."
  value       = local.job_sources
}

output "migrate_source" {
  description = "File name => text of the migrate job's source archive."
  value       = local.migrate_source
}

output "connections" {
  description = "Database connections that all tasks together may hold."
  value       = local.connections
}
