variable "root" {
  description = "The repository: the folder that holds shared/ and requirements.txt."
  type        = string
}

variable "functions_dir" {
  description = "The folder of the tasks: <functions_dir>/<task>/task.yaml."
  type        = string
}

variable "data_dir" {
  description = "The folder of buckets.yaml, keys.yaml, secrets.yaml and roles.yaml."
  type        = string
}

variable "parameters" {
  description = "Values of the parameters that a task.yaml or buckets.yaml takes from the environment, by variable name."
  type        = map(string)
  default     = {}
}

variable "connection_budget" {
  description = "How many database connections all tasks together may hold at once."
  type        = number
}
