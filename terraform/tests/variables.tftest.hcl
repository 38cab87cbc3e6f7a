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
  images            = { base = "europe-west1-docker.pkg.dev/demo-project/keeper/base@sha256:abababababababababababababababababababababababababababababababab" }
}

run "the_least_there_is_to_say" {
  command = plan
}

run "an_image_by_tag" {
  command = plan
  variables {
    images = { base = "europe-west1-docker.pkg.dev/demo-project/keeper/base:latest" }
  }
  expect_failures = [var.images]
}

run "no_base_image" {
  command = plan
  variables {
    images = {}
  }
  expect_failures = [var.images]
}

run "an_unknown_mode" {
  command = plan
  variables {
    mode = "dry-run"
  }
  expect_failures = [var.mode]
}

run "an_unknown_mode_of_a_task" {
  command = plan
  variables {
    modes = { db_cleanup = "on" }
  }
  expect_failures = [var.modes]
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

run "no_project_id" {
  command = plan
  variables {
    project = "Demo Project"
  }
  expect_failures = [var.project]
}

run "half_an_hour_of_backup_gate" {
  command = plan
  variables {
    backup_gate_hours = 0.5
  }
  expect_failures = [var.backup_gate_hours]
}

run "all_connections_for_the_tasks" {
  command = plan
  variables {
    database = { connection_budget = 190 }
  }
  expect_failures = [var.database]
}

run "a_database_by_name" {
  command = plan
  variables {
    database = { existing = { instance = "platform", host = "db.example", server_ca = "-----BEGIN CERTIFICATE-----" } }
  }
  expect_failures = [var.database]
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
