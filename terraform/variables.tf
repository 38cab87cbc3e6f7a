variable "alert_channels" {
  description = "Notification channels that exist already (projects/P/notificationChannels/N), beside alert_emails."
  type        = list(string)
  default     = []
}

variable "alert_emails" {
  description = "Addresses that receive alerts."
  type        = set(string)
  default     = []
}

variable "backup_gate_hours" {
  description = "Destructive tasks refuse while the newest verified backup is older than this; 0 turns the gate off."
  type        = number
  default     = 26

  validation {
    condition     = var.backup_gate_hours >= 0 && floor(var.backup_gate_hours) == var.backup_gate_hours
    error_message = "backup_gate_hours: expected whole hours, 0 or more."
  }
}

variable "billing" {
  description = "Billing account (012345-678901-ABCDEF) and monthly budget in whole units of its currency; null: no budget."
  type = object({
    account       = string
    currency      = optional(string, "USD")
    monthly_units = optional(number, 100)
  })
  default = null
}

variable "bucket_location" {
  description = "Where buckets are (a region or multi-region); null: the region."
  type        = string
  default     = null
}

variable "callers" {
  description = "Members that may call a task's function beside its triggers, by task: {outbox_relay = [\"serviceAccount:…\"]}."
  type        = map(set(string))
  default     = {}
}

variable "database" {
  description = <<-EOT
    The platform's PostgreSQL on Cloud SQL. With `existing`, nothing of it is created but the tasks' users: host is
    its private address, server_ca its PEM certificate authority, and cloudsql.iam_authentication must be on.
    connection_budget: how many of its connections all tasks together may hold.
  EOT
  type = object({
    name              = optional(string, "app")
    connection_budget = optional(number, 240)
    existing = optional(object({
      instance  = string
      host      = string
      server_ca = string
    }))
    availability    = optional(string, "REGIONAL")
    backup_location = optional(string)
    backups_kept    = optional(number, 14)
    disk_gb         = optional(number, 20)
    instance        = optional(string, "groundskeeper")
    max_connections = optional(number, 300)
    tier            = optional(string, "db-custom-2-8192")
    version         = optional(string, "POSTGRES_18")
  })
  default = {}

  validation {
    condition     = contains(["REGIONAL", "ZONAL"], var.database.availability)
    error_message = "database.availability: expected REGIONAL or ZONAL, got '${var.database.availability}'."
  }
  validation {
    condition     = var.database.existing != null || var.database.connection_budget <= var.database.max_connections * 0.8
    error_message = "database.connection_budget: leave a fifth of max_connections to the platform itself."
  }
  validation {
    condition     = var.database.existing == null ? true : can(regex("BEGIN CERTIFICATE", var.database.existing.server_ca)) && can(cidrnetmask("${var.database.existing.host}/32"))
    error_message = "database.existing: expected host as an IPv4 address and server_ca as PEM text."
  }
}

variable "deletion_protection" {
  description = "Whether the API refuses to delete jobs and the database. Turn off, apply, then destroy."
  type        = bool
  default     = true
}

variable "environment" {
  description = "Name of this environment, as in labels and alerts: prod, staging."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.environment))
    error_message = "environment: expected 2 to 20 of a-z, 0-9 and -, got '${var.environment}'."
  }
}

variable "functions_dir" {
  description = "Folder of the tasks, relative to terraform/; empty: functions/ of this repository."
  type        = string
  default     = ""
}

variable "github_repository" {
  description = "owner/name of this repository: runbooks are linked there."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository: expected owner/name, got '${var.github_repository}'."
  }
}

variable "images" {
  description = "Container image of each target of images/Dockerfile by digest: {base = \"REGION-docker.pkg.dev/P/keeper/base@sha256:…\"}."
  type        = map(string)

  validation {
    condition     = alltrue([for image in values(var.images) : can(regex("@sha256:[0-9a-f]{64}$", image))])
    error_message = "images: give each by digest (…@sha256:…), a tag can change under a running plane."
  }
  validation {
    condition     = contains(keys(var.images), "base")
    error_message = "images: base is missing, the migrate job runs in it: build images/cloudbuild.yaml first."
  }
}

variable "kms_location" {
  description = "Location of the key ring; null: the region. It cannot be changed later."
  type        = string
  default     = null
}

variable "mode" {
  description = "What destructive tasks do unless `modes` says otherwise: observe (plan and show) or enforce."
  type        = string
  default     = "observe"

  validation {
    condition     = contains(["observe", "enforce"], var.mode)
    error_message = "mode: expected observe or enforce, got '${var.mode}'."
  }
}

variable "modes" {
  description = "observe or enforce by task: {db_cleanup = \"enforce\"}."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for mode in values(var.modes) : contains(["observe", "enforce"], mode)])
    error_message = "modes: expected observe or enforce for each task."
  }
}

variable "network" {
  description = "Network and subnetwork (self links or ids) that reach the database (one to be created needs private services access there); null: a network is created."
  type        = object({ network = string, subnetwork = string })
  default     = null
}

variable "operators" {
  description = "Verified e-mail addresses on the operator list."
  type        = list(string)
  default     = []
}

variable "parameters" {
  description = "Parameters that tasks and lifecycle rules take from the environment: {S3_RETENTION_DAYS = \"60\"}."
  type        = map(string)
  default     = {}
}

variable "paused" {
  description = "A reason pauses every task, also when the database is down; empty: none is paused from here."
  type        = string
  default     = ""
}

variable "platform_buckets" {
  description = "Buckets the platform has already, by the logical name of data/buckets.yaml: not created, only granted."
  type        = map(string)
  default     = {}
}

variable "project" {
  description = "Google Cloud project of this environment. It is half of the environment stamp."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project: expected a project id, got '${var.project}'."
  }
}

variable "project_number" {
  description = "Its number (gcloud projects describe PROJECT): Google's own service agents are named after it."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{6,}$", var.project_number))
    error_message = "project_number: expected digits, got '${var.project_number}'."
  }
}

variable "public_members" {
  description = "Who may call the public endpoints. Where the organisation forbids allUsers: see README, public endpoints."
  type        = set(string)
  default     = ["allUsers"]
}

variable "region" {
  description = "Region of functions, jobs, database and buckets."
  type        = string
}

variable "runtime" {
  description = "Python runtime of the functions; images/Dockerfile has the same version."
  type        = string
  default     = "python312"
}

variable "scheduler_region" {
  description = "Region of Cloud Scheduler where it is not offered in the region; null: the region."
  type        = string
  default     = null
}

variable "stripe_livemode" {
  description = "Whether this environment talks to Stripe's live mode. The other half of the environment stamp."
  type        = bool
}
