# One identity per task, and none of them holds a role it did not name in its task.yaml.
resource "google_service_account" "task" {
  for_each = local.tasks

  account_id   = each.value.slug
  display_name = "Groundskeeper: ${each.key}"
  description  = each.value.summary
}

# The addresses follow from the names, so a plan shows who is given what; read from the accounts all the same, so that
# nothing is given to one that is not there yet.
locals {
  _domain           = "${var.project}.iam.gserviceaccount.com"
  accounts          = { for name, account in google_service_account.task : name => "${account.account_id}@${local._domain}" }
  scheduler_account = "${google_service_account.scheduler.account_id}@${local._domain}"
  pubsub_account    = "${google_service_account.pubsub.account_id}@${local._domain}"
  migrate_account   = "${google_service_account.migrate.account_id}@${local._domain}"
}

# Those who knock: each may invoke what its triggers start and do nothing else.
resource "google_service_account" "scheduler" {
  account_id   = "keeper-scheduler"
  display_name = "Groundskeeper: Cloud Scheduler"
}

resource "google_service_account" "pubsub" {
  account_id   = "keeper-pubsub"
  display_name = "Groundskeeper: Pub/Sub push"
}

resource "google_project_iam_member" "task" {
  for_each = module.catalog.project_roles

  project = var.project
  role    = each.value.role
  member  = "serviceAccount:${local.accounts[each.value.task]}"
}

locals {
  # task => members that may invoke it, keyed so that a plan knows the keys before any account exists
  _invokers = merge(
    { for key, s in module.catalog.schedules : "${s.task}.scheduler" => { task = s.task, member = "serviceAccount:${local.scheduler_account}" }... },
    { for key, p in module.catalog.pushes : "${p.task}.pubsub" => { task = p.task, member = "serviceAccount:${local.pubsub_account}" }... },
    { for key, s in module.catalog.starts : "${s.starts}.${local.tasks[s.task].slug}" => { task = s.starts, member = "serviceAccount:${local.accounts[s.task]}" }... },
    merge([for task, members in var.callers : { for m in members : "${task}.${m}" => [{ task = task, member = m }] }]...),
    merge([for task, endpoints in module.catalog.public : { for m in var.public_members : "${task}.${m}" => [{ task = task, member = m }] }]...),
  )
  invokers = { for key, same in local._invokers : key => same[0] }
}

# A function of the second generation is a Cloud Run service of the same name: that is where calling it is allowed.
resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = { for key, i in local.invokers : key => i if contains(keys(local.functions), i.task) }

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.task[each.value.task].name
  role     = "roles/run.invoker"
  member   = each.value.member
}

resource "google_cloud_run_v2_job_iam_member" "invoker" {
  for_each = { for key, i in local.invokers : key => i if contains(keys(local.jobs), i.task) }

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_job.task[each.value.task].name
  role     = "roles/run.invoker"
  member   = each.value.member
}
