# What must be there before the plane, applied once by an owner of the project: the services, where sources and images
# are kept, who builds, and the identities GitHub may take. The identity that applies the plane can change none of this.
locals {
  services = toset([
    "artifactregistry", "billingbudgets", "cloudbuild", "cloudfunctions", "cloudkms", "cloudresourcemanager",
    "cloudscheduler", "compute", "dns", "firebase", "firebasehosting", "firebaserules", "firestore", "iam",
    "iamcredentials", "logging", "monitoring", "pubsub", "run", "secretmanager", "servicenetworking",
    "serviceusage", "sqladmin", "storage", "sts",
  ])

  # read from the accounts, so that nothing is given to one that is not there yet; known all the same when planning
  members = {
    for account in [
      google_service_account.apply, google_service_account.build, google_service_account.hosting, google_service_account.plan,
    ] :
    trimprefix(account.account_id, "keeper-") => "serviceAccount:${account.account_id}@${var.project}.iam.gserviceaccount.com"
  }

  # made by hand, before there is any state to keep (README)
  state_bucket = "${var.project}-keeper-state"
}

resource "google_project_service" "service" {
  for_each = local.services

  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false # the platform may use it too
}

# The archives that functions are built from and jobs load; Terraform removes those nothing refers to.
resource "google_storage_bucket" "source" {
  name                        = "${var.project}-keeper-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  # what `gcloud builds submit` uploads to build images from
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 7
      matches_prefix = ["builds/"]
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

  depends_on = [google_project_service.service]
}

resource "google_storage_bucket_iam_member" "source" {
  for_each = {
    apply = { role = "roles/storage.objectUser", member = local.members["apply"] }
    build = { role = "roles/storage.objectViewer", member = local.members["build"] }
    plan  = { role = "roles/storage.objectViewer", member = local.members["plan"] }
  }

  bucket = google_storage_bucket.source.name
  role   = each.value.role
  member = each.value.member
}

# Images of the jobs, and those Google builds of the functions. No clean-up policy: what a revision runs must stay.
resource "google_artifact_registry_repository" "keeper" {
  repository_id = "keeper"
  location      = var.region
  format        = "DOCKER"
  description   = "Groundskeeper: images of jobs and functions"

  docker_config {
    immutable_tags = false # functions are built under the tag `latest`
  }

  depends_on = [google_project_service.service]
}

# --- who builds: functions from their archives, and the images of the jobs
resource "google_service_account" "build" {
  account_id   = "keeper-build"
  display_name = "Groundskeeper: builds"

  depends_on = [google_project_service.service]
}

resource "google_project_iam_member" "build_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = local.members["build"]
}

# The build reads the copy of an archive that Cloud Functions makes, in a bucket of its own naming.
resource "google_project_iam_member" "build_sources" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = local.members["build"]

  condition {
    title = "sources to build"
    expression = join(" || ", [
      for bucket in ["gcf-v2-sources-${var.project_number}-${var.region}", "gcf-v2-uploads-${var.project_number}"] :
      "resource.name.startsWith(\"projects/_/buckets/${bucket}\")"
    ])
  }
}

resource "google_artifact_registry_repository_iam_member" "build" {
  location   = google_artifact_registry_repository.keeper.location
  repository = google_artifact_registry_repository.keeper.name
  role       = "roles/artifactregistry.writer"
  member     = local.members["build"]
}
