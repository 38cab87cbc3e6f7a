# One subnetwork that functions and jobs reach the database from. What is not private goes out directly: no NAT.
locals {
  create_network = var.network == null
  network        = local.create_network ? one(google_compute_network.main[*].id) : var.network.network
  subnetwork     = local.create_network ? one(google_compute_subnetwork.main[*].id) : var.network.subnetwork

  # a call from task to task counts as internal only when it comes through the network
  calls_inside = anytrue([for s in module.catalog.starts : contains(keys(local.functions), s.starts)])
}

resource "google_compute_network" "main" {
  count = local.create_network ? 1 : 0

  name                    = "keeper"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "main" {
  count = local.create_network ? 1 : 0

  name                     = "keeper"
  region                   = var.region
  network                  = google_compute_network.main[0].id
  ip_cidr_range            = "10.20.0.0/23" # an instance takes an address, and a revision that goes out keeps its own
  private_ip_google_access = true

  # who talked to whom, sampled: to find out afterwards
  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "EXCLUDE_ALL_METADATA"
  }
}

# Private services access: where Cloud SQL has its address.
resource "google_compute_global_address" "services" {
  count = local.create_network && local.create_database ? 1 : 0

  name          = "keeper-services"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  network       = google_compute_network.main[0].id
}

resource "google_service_networking_connection" "main" {
  count = local.create_network && local.create_database ? 1 : 0

  network                 = google_compute_network.main[0].id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services[0].name]
  deletion_policy         = "ABANDON" # it cannot be deleted while Google still holds the instance's address
}

# *.run.app by private.googleapis.com: through the network without a NAT, and so past an internal-only ingress.
resource "google_dns_managed_zone" "run" {
  count = local.calls_inside ? 1 : 0

  name        = "keeper-run-app"
  dns_name    = "run.app."
  description = "Calls from task to task stay inside the network."
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = local.network
    }
  }
}

resource "google_dns_record_set" "run" {
  count = local.calls_inside ? 1 : 0

  managed_zone = google_dns_managed_zone.run[0].name
  name         = "*.run.app."
  type         = "A"
  ttl          = 300
  rrdatas      = ["199.36.153.8", "199.36.153.9", "199.36.153.10", "199.36.153.11"]
}
