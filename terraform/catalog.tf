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
