# Who may do what: one entry per grant, keyed by task and thing.
locals {
  _roles = yamldecode(file("${var.data_dir}/roles.yaml"))
  _keys  = yamldecode(file("${var.data_dir}/keys.yaml"))

  # role => what it is granted on: project, secrets, kms or buckets
  _scopes = { for role, r in local._roles : role => r.scope }

  keys    = { for name, k in local._keys : name => merge({ destroy_after_days = 60 }, k) }
  secrets = toset(flatten([for t in local.tasks : t.secrets]))

  project_roles = merge([
    for name, t in local.tasks : {
      for role in t.roles : "${t.slug}.${role}" => { task = name, role = role }
      if lookup(local._scopes, role, "") == "project"
    }
  ]...)

  secret_grants = merge([
    for name, t in local.tasks : {
      for pair in setproduct(t.secrets, concat(
        ["roles/secretmanager.secretAccessor"],
        [for role in t.roles : role if lookup(local._scopes, role, "") == "secrets"],
      )) : "${t.slug}.${pair[0]}.${pair[1]}" => { task = name, secret = pair[0], role = pair[1] }
    }
  ]...)

  key_grants = merge([
    for name, t in local.tasks : {
      for pair in setproduct(t.kms, concat(
        ["roles/cloudkms.cryptoKeyEncrypterDecrypter"],
        [for role in t.roles : role if lookup(local._scopes, role, "") == "kms"],
      )) : "${t.slug}.${pair[0]}.${pair[1]}" => { task = name, key = pair[0], role = pair[1] }
    }
  ]...)

  _bucket_role = { read = "roles/storage.objectViewer", write = "roles/storage.objectUser" }
  bucket_grants = merge([
    for name, t in local.tasks : merge([
      for b in t.buckets : {
        for role in concat([local._bucket_role[b.access]], [for role in t.roles : role if lookup(local._scopes, role, "") == "buckets"]) :
        "${t.slug}.${b.bucket}/${b.prefix}.${role}" => {
          task = name, bucket = b.bucket, role = role,
          # what concerns a bucket as such cannot be granted on a part of it
          folder = b.prefix == "" || lookup(local._scopes, role, "") == "buckets" ? "" : "${trim(b.prefix, "/")}/",
        }
      }
    ]...)
  ]...)
}
