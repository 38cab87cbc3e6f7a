# Two roles of our own: Google's ready-made ones for the same work also read messages, objects and secrets.
locals {
  _roles = yamldecode(file("${path.module}/../data/roles.yaml"))

  # What the plane may grant on the project, and nothing else: whoever may set the project's policy owns the project.
  grantable = sort(concat(
    ["roles/cloudsql.instanceUser"],
    [for role, r in local._roles : role if r.scope == "project"],
  ))

  read = [
    "artifactregistry.repositories.get",
    "cloudfunctions.functions.get", "cloudfunctions.functions.list", "cloudfunctions.operations.get",
    "cloudkms.cryptoKeys.get", "cloudkms.cryptoKeys.getIamPolicy", "cloudkms.cryptoKeys.list",
    "cloudkms.cryptoKeyVersions.get", "cloudkms.cryptoKeyVersions.list", "cloudkms.keyRings.get",
    "cloudscheduler.jobs.get", "cloudscheduler.jobs.list",
    "cloudsql.databases.get", "cloudsql.instances.get", "cloudsql.users.get", "cloudsql.users.list",
    "compute.globalAddresses.get", "compute.globalOperations.get", "compute.networks.get", "compute.projects.get",
    "compute.regionOperations.get", "compute.subnetworks.get",
    "dns.changes.get", "dns.managedZones.get", "dns.resourceRecordSets.get", "dns.resourceRecordSets.list",
    "iam.serviceAccounts.get", "iam.serviceAccounts.list",
    "logging.logMetrics.get",
    "monitoring.alertPolicies.get", "monitoring.notificationChannels.get",
    "pubsub.subscriptions.get", "pubsub.subscriptions.getIamPolicy", "pubsub.topics.get", "pubsub.topics.getIamPolicy",
    "resourcemanager.projects.get", "resourcemanager.projects.getIamPolicy",
    "run.jobs.get", "run.jobs.getIamPolicy", "run.operations.get", "run.services.get", "run.services.getIamPolicy",
    "secretmanager.secrets.get", "secretmanager.secrets.getIamPolicy",
    "servicenetworking.services.get",
    "storage.buckets.get", "storage.buckets.getIamPolicy", "storage.managedFolders.get",
    "storage.managedFolders.getIamPolicy",
  ]

  write = [
    "cloudfunctions.functions.create", "cloudfunctions.functions.delete", "cloudfunctions.functions.update",
    "cloudkms.cryptoKeys.create", "cloudkms.cryptoKeys.setIamPolicy", "cloudkms.cryptoKeys.update",
    "cloudkms.keyRings.create",
    "cloudscheduler.jobs.create", "cloudscheduler.jobs.delete", "cloudscheduler.jobs.enable",
    "cloudscheduler.jobs.pause", "cloudscheduler.jobs.update",
    "cloudsql.databases.create", "cloudsql.databases.update", "cloudsql.instances.create", "cloudsql.instances.update",
    "cloudsql.users.create", "cloudsql.users.delete", "cloudsql.users.update",
    "compute.globalAddresses.createInternal", "compute.globalAddresses.deleteInternal",
    "compute.globalAddresses.use", "compute.networks.create", "compute.networks.delete", "compute.networks.addPeering",
    "compute.networks.removePeering", "compute.networks.updatePeering", "compute.networks.updatePolicy",
    "compute.networks.use", "compute.subnetworks.create", "compute.subnetworks.delete", "compute.subnetworks.update",
    "compute.subnetworks.use",
    "dns.changes.create", "dns.managedZones.create", "dns.managedZones.delete", "dns.managedZones.update",
    "dns.networks.bindPrivateDNSZone", "dns.resourceRecordSets.create", "dns.resourceRecordSets.delete",
    "dns.resourceRecordSets.update",
    "iam.serviceAccounts.create", "iam.serviceAccounts.delete", "iam.serviceAccounts.update",
    "logging.logMetrics.create", "logging.logMetrics.delete", "logging.logMetrics.update",
    "monitoring.alertPolicies.create", "monitoring.alertPolicies.delete", "monitoring.alertPolicies.update",
    "monitoring.notificationChannels.create", "monitoring.notificationChannels.delete",
    "monitoring.notificationChannels.update",
    "pubsub.subscriptions.create", "pubsub.subscriptions.delete", "pubsub.subscriptions.setIamPolicy",
    "pubsub.subscriptions.update", "pubsub.topics.attachSubscription", "pubsub.topics.create", "pubsub.topics.delete",
    "pubsub.topics.setIamPolicy", "pubsub.topics.update",
    "run.jobs.create", "run.jobs.delete", "run.jobs.run", "run.jobs.setIamPolicy", "run.jobs.update",
    "run.executions.get", "run.services.setIamPolicy",
    "secretmanager.secrets.create", "secretmanager.secrets.delete", "secretmanager.secrets.setIamPolicy",
    "secretmanager.secrets.update",
    "servicenetworking.services.addPeering",
    "storage.buckets.create", "storage.buckets.delete", "storage.buckets.list", "storage.buckets.setIamPolicy",
    "storage.buckets.update", "storage.managedFolders.create", "storage.managedFolders.delete",
    "storage.managedFolders.setIamPolicy",
  ]
}

resource "google_project_iam_custom_role" "plan" {
  role_id     = "groundskeeperPlan"
  title       = "Groundskeeper: plan"
  description = "Reads how the plane is configured; no message, object, row or secret."
  permissions = local.read
}

resource "google_project_iam_custom_role" "apply" {
  role_id     = "groundskeeperApply"
  title       = "Groundskeeper: apply"
  description = "Changes how the plane is configured; no message, object, row or secret."
  permissions = concat(local.read, local.write)
}

resource "google_project_iam_member" "plan" {
  project = var.project
  role    = "projects/${var.project}/roles/${google_project_iam_custom_role.plan.role_id}"
  member  = local.members["plan"]
}

resource "google_project_iam_member" "apply" {
  project = var.project
  role    = "projects/${var.project}/roles/${google_project_iam_custom_role.apply.role_id}"
  member  = local.members["apply"]
}

resource "google_project_iam_member" "apply_policy" {
  project = var.project
  role    = "roles/resourcemanager.projectIamAdmin"
  member  = local.members["apply"]

  condition {
    title       = "the plane's roles"
    description = "Only the roles of terraform/data/roles.yaml and the database login can be given or taken."
    expression  = "api.getAttribute(\"iam.googleapis.com/modifiedGrantsByRole\", []).hasOnly(${jsonencode(local.grantable)})"
  }
}

# A function or job runs as its task's account, which whoever deploys it must be allowed to hand over.
resource "google_project_iam_member" "apply_accounts" {
  project = var.project
  role    = "roles/iam.serviceAccountUser"
  member  = local.members["apply"]
}

resource "google_project_iam_member" "apply_builds" {
  project = var.project
  role    = "roles/cloudbuild.builds.editor"
  member  = local.members["apply"]
}

resource "google_artifact_registry_repository_iam_member" "apply" {
  location   = google_artifact_registry_repository.keeper.location
  repository = google_artifact_registry_repository.keeper.name
  role       = "roles/artifactregistry.reader"
  member     = local.members["apply"]
}
