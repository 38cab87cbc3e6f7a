resource "google_billing_budget" "main" {
  count = var.billing == null ? 0 : 1

  billing_account = var.billing.account
  display_name    = "Groundskeeper ${var.environment}"

  budget_filter {
    projects = ["projects/${var.project_number}"]
  }

  amount {
    specified_amount {
      currency_code = var.billing.currency
      units         = tostring(var.billing.monthly_units)
    }
  }

  threshold_rules {
    threshold_percent = 0.5
  }
  threshold_rules {
    threshold_percent = 1.0
  }
  threshold_rules {
    threshold_percent = 1.0
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    monitoring_notification_channels = slice(local.channels, 0, min(5, length(local.channels)))
    disable_default_iam_recipients   = false
  }
}
