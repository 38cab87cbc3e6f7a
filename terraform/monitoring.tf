# Three things can go wrong with a task: a run ends badly, its process breaks before it can say so, or nothing runs.
# The first two are in its logs; the third is the absence of its good endings, and, past Cloud Monitoring's limit of
# a day, the watchdog's business, whose own absence is watched here.
locals {
  channels = concat([for c in google_monitoring_notification_channel.email : c.id], var.alert_channels)

  runbooks = { for name, t in local.tasks : name => "https://github.com/${var.github_repository}/blob/main/docs/tasks/${name}.md" }

  _log_source = {
    for name, t in local.tasks : name => (
      t.kind == "job"
      ? "resource.type=\"cloud_run_job\" AND resource.labels.job_name=\"${t.slug}\""
      : "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${t.slug}\""
    )
  }

  # watched by the absence of a good ending: 23.5 hours is the most Cloud Monitoring looks back
  watched = { for name, t in local.tasks : name => t if try(t.must_succeed_within_s <= 84600, false) }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = var.alert_emails

  display_name = "Groundskeeper ${var.environment}"
  type         = "email"
  labels       = { email_address = each.key }
}

resource "google_logging_metric" "runs" {
  name        = "groundskeeper/runs"
  description = "Runs that ended, by task and outcome."
  filter      = "resource.type=(\"cloud_run_revision\" OR \"cloud_run_job\") AND jsonPayload.message=\"run ended\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    labels {
      key = "task"
    }
    labels {
      key = "outcome"
    }
  }

  label_extractors = {
    task    = "EXTRACT(jsonPayload.task)"
    outcome = "EXTRACT(jsonPayload.outcome)"
  }
}

# `alert` is the core's own judgement of an outcome (shared/errors.py). A 503 is a wish to be called again; any other
# error of the service, or a line at ERROR that is no ending, is a process that broke.
resource "google_monitoring_alert_policy" "ended_badly" {
  for_each = local.tasks

  display_name          = "${var.environment}: ${each.key} ended badly"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = { task = each.value.slug }

  conditions {
    display_name = "A run failed, was partial, refused or unavailable"

    condition_matched_log {
      filter = join("", [
        "${local._log_source[each.key]} AND (",
        "jsonPayload.alert=true",
        " OR (severity>=ERROR AND NOT logName:\"run.googleapis.com%2Frequests\")",
        " OR (httpRequest.status>=500 AND httpRequest.status!=503))",
      ])
      label_extractors = {
        outcome = "EXTRACT(jsonPayload.outcome)"
        run_id  = "EXTRACT(jsonPayload.run_id)"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    subject   = "${var.environment}: ${each.key} ended badly"
    mime_type = "text/markdown"
    content   = "${each.value.summary}\n\nOwner: ${each.value.owner}. What happened: `keeper history ${each.key}`."
    links {
      display_name = "Runbook"
      url          = local.runbooks[each.key]
    }
  }
}

resource "google_monitoring_alert_policy" "missing" {
  for_each = local.watched

  display_name          = "${var.environment}: ${each.key} is missing"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = { task = each.value.slug }

  conditions {
    display_name = "No run ended well in ${each.value.must_succeed_within_s} s"

    condition_prometheus_query_language {
      query = format(
        "absent_over_time(logging_googleapis_com:user_groundskeeper_runs{monitored_resource=\"%s\",task=\"%s\",outcome=~\"ok|planned\"}[%ds])",
        each.value.kind == "job" ? "cloud_run_job" : "cloud_run_revision", each.key, each.value.must_succeed_within_s,
      )
      duration            = "60s"
      evaluation_interval = "60s"

      # its first point comes with the first run, after this policy
      disable_metric_validation = true
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    subject   = "${var.environment}: ${each.key} is missing"
    mime_type = "text/markdown"
    content   = "${each.value.summary}\n\nOwner: ${each.value.owner}. Is it paused (`keeper list`), is its schedule there, does the database answer (`keeper doctor`)?"
    links {
      display_name = "Runbook"
      url          = local.runbooks[each.key]
    }
  }

  depends_on = [google_logging_metric.runs]
}

resource "google_monitoring_alert_policy" "dead_letters" {
  count = length(local.subscriptions) > 0 ? 1 : 0

  display_name          = "${var.environment}: messages nobody could handle"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "A dead-letter subscription holds messages"

    condition_threshold {
      filter          = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=monitoring.regex.full_match(\".*\\\\.dead\") AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "300s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  alert_strategy {
    auto_close = "604800s"
  }

  documentation {
    subject   = "${var.environment}: messages nobody could handle"
    mime_type = "text/markdown"
    content   = "The subscription's name is <task>.<topic>.dead. Look at a message without taking it: `gcloud pubsub subscriptions pull NAME --limit=5`."
    links {
      display_name = "Runbook"
      url          = "https://github.com/${var.github_repository}/blob/main/terraform/README.md#dead-letters"
    }
  }
}

# What the watchdog cannot see in the database: events that Pub/Sub holds and nobody takes.
resource "google_monitoring_alert_policy" "backlog" {
  count = length(local.subscriptions) > 0 ? 1 : 0

  display_name          = "${var.environment}: messages wait for their task"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "A subscription's oldest message waits for more than a quarter of an hour"

    condition_threshold {
      filter          = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=one_of(${join(", ", [for name in sort(keys(local.subscriptions)) : "\"${name}\""])}) AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = 900
      duration        = "300s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    subject   = "${var.environment}: messages wait for their task"
    mime_type = "text/markdown"
    content   = "The subscription's name is <task>.<topic>. Is the task paused (`keeper list`), do its runs fail (`keeper history TASK`)?"
    links {
      display_name = "Runbook"
      url          = "https://github.com/${var.github_repository}/blob/main/docs/operations.md#something-is-wrong"
    }
  }
}
