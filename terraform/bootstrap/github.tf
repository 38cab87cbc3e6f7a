# GitHub proves who it is with a token of the running workflow: no key of a service account exists.
resource "google_iam_workload_identity_pool" "github" {
  workload_identity_pool_id = "github"
  display_name              = "GitHub"

  depends_on = [google_project_service.service]
}

locals {
  pool = "projects/${var.project_number}/locations/global/workloadIdentityPools/${google_iam_workload_identity_pool.github.workload_identity_pool_id}"
}

resource "google_iam_workload_identity_pool_provider" "github" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "repository"
  display_name                       = "GitHub: this repository"

  attribute_condition = "assertion.repository_id == '${var.github_repository_id}'"
  attribute_mapping = {
    "google.subject" = "assertion.sub"
    # which environment's approval was given, for which branch
    "attribute.gate" = "(has(assertion.environment) ? assertion.environment : 'none') + '@' + assertion.ref"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

# A plan on a pull request runs the request's own code: this identity reads configuration, and no data.
resource "google_service_account" "plan" {
  account_id   = "keeper-plan"
  display_name = "Groundskeeper: terraform plan"

  depends_on = [google_project_service.service]
}

resource "google_service_account_iam_member" "plan" {
  service_account_id = google_service_account.plan.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${local.pool}/subject/repo:${var.github_repository}:pull_request"
}

# An apply runs what is on main, after the environment's approval.
resource "google_service_account" "apply" {
  account_id   = "keeper-apply"
  display_name = "Groundskeeper: terraform apply"

  depends_on = [google_project_service.service]
}

resource "google_service_account_iam_member" "apply" {
  service_account_id = google_service_account.apply.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${local.pool}/attribute.gate/${var.environment}@refs/heads/main"
}

resource "google_storage_bucket_iam_member" "plan_state" {
  bucket = local.state_bucket
  role   = "roles/storage.objectViewer"
  member = local.members["plan"]
}

resource "google_storage_bucket_iam_member" "apply_state" {
  bucket = local.state_bucket
  role   = "roles/storage.objectUser"
  member = local.members["apply"]
}
