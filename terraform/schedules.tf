# Cloud Scheduler delivers at least once; the run key is the slot it names in a header, so a repeat finds its run done.
resource "google_cloud_scheduler_job" "task" {
  for_each = module.catalog.schedules

  name        = each.key
  region      = coalesce(var.scheduler_region, var.region)
  description = local.tasks[each.value.task].summary
  schedule    = each.value.cron
  time_zone   = "Etc/UTC"

  # of a job only the start is awaited
  attempt_deadline = local.tasks[each.value.task].kind == "job" ? "60s" : "${max(15, local.tasks[each.value.task].timeout_s)}s"

  # Spread over more than the lease of an attempt that was killed; a slot that comes each minute is not repeated.
  retry_config {
    retry_count          = each.value.cron == "* * * * *" ? 0 : 3
    min_backoff_duration = "60s"
    max_backoff_duration = "600s"
    max_doublings        = 2
  }

  http_target {
    http_method = "POST"
    uri = (
      local.tasks[each.value.task].kind == "job"
      ? "https://run.googleapis.com/v2/${google_cloud_run_v2_job.task[each.value.task].id}:run"
      : google_cloudfunctions2_function.task[each.value.task].service_config[0].uri
    )
    headers = { "Content-Type" = "application/json" }
    body    = base64encode("{}")

    dynamic "oidc_token" {
      for_each = local.tasks[each.value.task].kind == "function" ? [google_cloudfunctions2_function.task[each.value.task].service_config[0].uri] : []
      content {
        service_account_email = local.scheduler_account
        audience              = oidc_token.value
      }
    }
    dynamic "oauth_token" {
      for_each = local.tasks[each.value.task].kind == "job" ? ["https://www.googleapis.com/auth/cloud-platform"] : []
      content {
        service_account_email = local.scheduler_account
        scope                 = oauth_token.value
      }
    }
  }

  depends_on = [google_cloud_run_v2_job_iam_member.invoker, google_cloud_run_v2_service_iam_member.invoker]
}
