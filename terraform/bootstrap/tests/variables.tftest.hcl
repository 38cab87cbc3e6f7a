# What a wrong variable meets.
mock_provider "google" {}

variables {
  project              = "demo-project"
  project_number       = "123456789012"
  region               = "europe-west1"
  environment          = "prod"
  github_repository    = "example/groundskeeper"
  github_repository_id = "42"
}

run "as_it_should_be" {
  command = plan
}

run "a_repository_by_its_address" {
  command = plan
  variables {
    github_repository = "github.com/example/groundskeeper"
  }
  expect_failures = [var.github_repository]
}

run "a_repository_by_name_where_a_number_belongs" {
  command = plan
  variables {
    github_repository_id = "groundskeeper"
  }
  expect_failures = [var.github_repository_id]
}

run "a_project_by_name_where_a_number_belongs" {
  command = plan
  variables {
    project_number = "demo-project"
  }
  expect_failures = [var.project_number]
}
