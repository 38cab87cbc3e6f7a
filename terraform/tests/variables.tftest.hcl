# What a wrong variable meets: the plan stops before anything is touched.
mock_provider "google" {}
mock_provider "archive" {}

variables {
  project           = "demo-project"
  project_number    = "123456789012"
  region            = "europe-west1"
  environment       = "test"
  stripe_livemode   = false
  github_repository = "example/groundskeeper"
  images = {
    base       = "europe-west1-docker.pkg.dev/demo-project/keeper/base@sha256:abababababababababababababababababababababababababababababababab"
    lighthouse = "europe-west1-docker.pkg.dev/demo-project/keeper/lighthouse@sha256:abababababababababababababababababababababababababababababababab"
    postgres   = "europe-west1-docker.pkg.dev/demo-project/keeper/postgres@sha256:abababababababababababababababababababababababababababababababab"
    torch      = "europe-west1-docker.pkg.dev/demo-project/keeper/torch@sha256:abababababababababababababababababababababababababababababababab"
  }
}

run "the_least_there_is_to_say" {
  command = plan
}

run "every_variable_says_what_is_wrong_with_it" {
  command = plan
  variables {
    backup_gate_hours = 0.5
    database          = { connection_budget = 290 }
    environment       = "Production"
    github_repository = "github.com/example/groundskeeper"
    images            = { base = "europe-west1-docker.pkg.dev/demo-project/keeper/base:latest" }
    mode              = "dry-run"
    modes             = { db_cleanup = "on" }
    project           = "Demo Project"
    project_number    = "demo-project"
  }
  expect_failures = [
    var.backup_gate_hours,
    var.database,
    var.environment,
    var.github_repository,
    var.images,
    var.mode,
    var.modes,
    var.project,
    var.project_number,
  ]
}

run "no_base_image_and_a_database_by_name" {
  command = plan
  variables {
    images   = {}
    database = { existing = { instance = "platform", host = "db.example", server_ca = "-----BEGIN CERTIFICATE-----" } }
  }
  expect_failures = [var.database, var.images]
}

run "an_unknown_kind_of_availability" {
  command = plan
  variables {
    database = { availability = "GLOBAL" }
  }
  expect_failures = [var.database]
}

run "the_mode_of_no_task" {
  command = plan
  variables {
    modes = { db_claenup = "enforce" }
  }
  expect_failures = [terraform_data.variables]
}

run "the_caller_of_no_function" {
  command = plan
  variables {
    callers = { nobody = ["serviceAccount:app@demo-project.iam.gserviceaccount.com"] }
  }
  expect_failures = [terraform_data.variables]
}

run "a_bucket_that_is_none" {
  command = plan
  variables {
    platform_buckets = { pail = "x" }
  }
  expect_failures = [terraform_data.variables]
}

run "a_database_that_is_there_is_not_created" {
  command = plan
  variables {
    database = { existing = { instance = "platform", host = "10.1.2.3", server_ca = "-----BEGIN CERTIFICATE-----" } }
    network  = { network = "projects/demo-project/global/networks/n", subnetwork = "s" }
  }
  assert {
    condition     = length(google_sql_database_instance.main) == 0 && length(google_compute_network.main) == 0
    error_message = "a database or network was planned beside the one that is there"
  }
  assert {
    condition     = alltrue([for user in google_sql_user.task : user.instance == "platform"])
    error_message = "a task logs in elsewhere"
  }
}
