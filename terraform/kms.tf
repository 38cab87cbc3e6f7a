# What a key encrypted is lost with it, and a key ring can never be deleted.
resource "google_kms_key_ring" "main" {
  name     = "groundskeeper"
  location = coalesce(var.kms_location, var.region)

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key" "key" {
  for_each = module.catalog.keys

  name                       = each.key
  key_ring                   = google_kms_key_ring.main.id
  purpose                    = "ENCRYPT_DECRYPT"
  rotation_period            = "${each.value.rotation_days * 86400}s"
  destroy_scheduled_duration = "${each.value.destroy_after_days * 86400}s"

  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = "SOFTWARE"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "task" {
  for_each = module.catalog.key_grants

  crypto_key_id = google_kms_crypto_key.key[each.value.key].id
  role          = each.value.role
  member        = "serviceAccount:${local.accounts[each.value.task]}"
}
