variable "environment" {
  description = "Name of the GitHub environment whose approval stands before an apply; the environment of ../variables.tf."
  type        = string
}

variable "github_repository" {
  description = "owner/name of the repository."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository: expected owner/name, got '${var.github_repository}'."
  }
}

variable "github_repository_id" {
  description = "Its number (gh api repos/OWNER/NAME --jq .id): a name can be taken by somebody else, a number cannot."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+$", var.github_repository_id))
    error_message = "github_repository_id: expected digits, got '${var.github_repository_id}'."
  }
}

variable "previews" {
  description = "Whether this project only shows previews of the site: then every branch may deploy to its Hosting."
  type        = bool
  default     = false
}

variable "project" {
  description = "Google Cloud project of this environment."
  type        = string
}

variable "project_number" {
  description = "Its number."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{6,}$", var.project_number))
    error_message = "project_number: expected digits, got '${var.project_number}'."
  }
}

variable "region" {
  description = "Region of the plane."
  type        = string
}
