# What the workflows need beside a plan on pull requests and an apply after approval (docs/github.md).

# The plan that an approval is given for: of main, before anybody approved. As read-only as on a pull request.
resource "google_service_account_iam_member" "plan_main" {
  service_account_id = google_service_account.plan.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${local.pool}/attribute.gate/${var.environment}-plan@refs/heads/main"
}

# which images are built, and their digests
resource "google_artifact_registry_repository_iam_member" "plan" {
  location   = google_artifact_registry_repository.keeper.location
  repository = google_artifact_registry_repository.keeper.repository_id
  role       = "roles/artifactregistry.reader"
  member     = local.members["plan"]
}

# The site and the Firestore rules. They need no approval, so who deploys them reaches nothing of the plane.
resource "google_service_account" "hosting" {
  account_id   = "keeper-hosting"
  display_name = "Groundskeeper: site and Firestore rules"

  depends_on = [google_project_service.service]
}

# In a project for previews every branch of the repository may deploy, elsewhere only main.
resource "google_service_account_iam_member" "hosting" {
  service_account_id = google_service_account.hosting.name
  role               = "roles/iam.workloadIdentityUser"
  member = (
    var.previews
    ? "principal://iam.googleapis.com/${local.pool}/subject/repo:${var.github_repository}:environment:preview"
    : "principalSet://iam.googleapis.com/${local.pool}/attribute.gate/hosting@refs/heads/main"
  )
}

resource "google_project_iam_custom_role" "hosting" {
  role_id     = "groundskeeperHosting"
  title       = "Groundskeeper: hosting"
  description = "Deploys the site and the Firestore rules."
  permissions = [
    "firebase.projects.get",
    "firebasehosting.sites.get", "firebasehosting.sites.list", "firebasehosting.sites.update",
    "firebaserules.releases.create", "firebaserules.releases.get", "firebaserules.releases.list",
    "firebaserules.releases.update",
    "firebaserules.rulesets.create", "firebaserules.rulesets.get", "firebaserules.rulesets.list",
    "firebaserules.rulesets.test",
    "resourcemanager.projects.get",
    "run.services.get", "run.services.list", # a rewrite is to a service that is there
    "serviceusage.services.get", "serviceusage.services.list", "serviceusage.services.use",
  ]
}

resource "google_project_iam_member" "hosting" {
  project = var.project
  role    = "projects/${var.project}/roles/${google_project_iam_custom_role.hosting.role_id}"
  member  = local.members["hosting"]
}
