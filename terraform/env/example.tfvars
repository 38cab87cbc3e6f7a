# One file per environment: copy to env/<environment>.tfvars. Nothing in it is secret.
project           = "acme-prod"
project_number    = "123456789012"
region            = "europe-west1"
environment       = "prod"
stripe_livemode   = true
github_repository = "acme/groundskeeper"

# The database that is there. Leave both out to have a network and a Cloud SQL instance made.
# gcloud sql instances describe INSTANCE --format 'value(ipAddresses[0].ipAddress, serverCaCert.cert)'
database = {
  name = "app"
  existing = {
    instance  = "platform"
    host      = "10.1.2.3"
    server_ca = <<-PEM
      -----BEGIN CERTIFICATE-----
      ...
      -----END CERTIFICATE-----
    PEM
  }
}
network = {
  network    = "projects/acme-prod/global/networks/main"
  subnetwork = "projects/acme-prod/regions/europe-west1/subnetworks/serverless"
}

# Every destructive task plans and shows until its name stands here.
mode  = "observe"
modes = {}

operators    = ["ops@example.com"]
alert_emails = ["oncall@example.com"]
billing      = { account = "012345-678901-ABCDEF", currency = "EUR", monthly_units = 50 }

# platform_buckets = { mockups = "acme-mockups", general = "acme-uploads" }
# parameters       = { S3_RETENTION_DAYS = "60" }
# callers          = { outbox_relay = ["serviceAccount:api@acme-prod.iam.gserviceaccount.com"] }
