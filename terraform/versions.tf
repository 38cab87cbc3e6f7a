terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.8"
    }
    google = {
      source  = "hashicorp/google"
      version = "~> 8.7"
    }
  }

  # bucket and prefix come from `terraform init -backend-config`: one project and one state per environment
  backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region

  default_labels = {
    app         = "groundskeeper"
    environment = var.environment
  }
}
