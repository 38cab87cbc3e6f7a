output "workload_identity_provider" {
  description = "For google-github-actions/auth: workload_identity_provider."
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "plan_account" {
  description = "For google-github-actions/auth on pull requests: service_account."
  value       = google_service_account.plan.email
}

output "apply_account" {
  description = "For google-github-actions/auth in the environment's apply: service_account."
  value       = google_service_account.apply.email
}

output "image_repository" {
  description = "Where images/cloudbuild.yaml pushes to."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.keeper.repository_id}"
}
