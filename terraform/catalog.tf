module "catalog" {
  source = "./catalog"

  root              = local.root
  functions_dir     = local.functions_dir
  data_dir          = "${path.module}/data"
  parameters        = var.parameters
  connection_budget = var.database.connection_budget
}

locals {
  root          = abspath("${path.root}/..")
  functions_dir = var.functions_dir == "" ? "${local.root}/functions" : abspath(var.functions_dir)

  tasks     = module.catalog.tasks
  functions = { for name, t in local.tasks : name => t if t.kind == "function" }
  jobs      = { for name, t in local.tasks : name => t if t.kind == "job" }

  agents = {
    pubsub = "serviceAccount:service-${var.project_number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    secret = "serviceAccount:service-${var.project_number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
  }
}

# Names that variables give and a validation cannot check: it knows no other file.
resource "terraform_data" "variables" {
  lifecycle {
    precondition {
      condition     = length(setsubtract(keys(var.modes), keys(local.tasks))) == 0
      error_message = "modes: no such task: ${join(", ", setsubtract(keys(var.modes), keys(local.tasks)))}."
    }
    precondition {
      condition     = length(setsubtract(keys(var.callers), keys(local.functions))) == 0
      error_message = "callers: no such function: ${join(", ", setsubtract(keys(var.callers), keys(local.functions)))}."
    }
    precondition {
      condition     = length(setsubtract(keys(var.platform_buckets), keys(module.catalog.buckets))) == 0
      error_message = "platform_buckets: data/buckets.yaml has no ${join(", ", setsubtract(keys(var.platform_buckets), keys(module.catalog.buckets)))}."
    }
    precondition {
      condition     = alltrue([for t in local.tasks : contains(keys(var.images), t.image) if t.kind == "job"])
      error_message = "images: a job runs in ${join(", ", setsubtract([for t in local.jobs : t.image], keys(var.images)))}: build images/cloudbuild.yaml and give its digest."
    }
  }
}
