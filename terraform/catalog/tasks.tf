# Every functions/<task>/task.yaml in one shape: what was left out has its default (shared/manifest.py has the
# same ones, held equal by a test), so that what reads these maps needs no try().
locals {
  _known = {
    top = [
      "buckets", "caps", "database_roles", "destructive", "kms", "lock", "must_succeed_within_s", "owner", "params",
      "publishes", "requires", "roles", "run", "secrets", "starts", "summary", "tables", "topics", "triggers", "uses",
    ]
    run = [
      "concurrency", "cpu", "image", "ingress", "kind", "max_instances", "memory_mb", "parallelism", "tasks",
      "timeout_s",
    ]
  }

  _raw = {
    for file in fileset(var.functions_dir, "*/task.yaml") :
    dirname(file) => yamldecode(file("${var.functions_dir}/${file}"))
  }

  tasks = {
    for name, t in local._raw : name => {
      slug                  = replace(name, "_", "-")
      summary               = try(t.summary, "")
      owner                 = try(t.owner, "")
      kind                  = try(t.run.kind, "")
      memory_mb             = try(t.run.memory_mb, 0)
      cpu                   = try(t.run.cpu, 0)
      timeout_s             = try(t.run.timeout_s, 0)
      max_instances         = try(t.run.max_instances, 1)
      concurrency           = try(t.run.concurrency, 1)
      ingress               = try(t.run.ingress, "internal")
      shards                = try(t.run.tasks, 1)
      parallelism           = try(t.run.parallelism, 1)
      image                 = try(t.run.image, "base")
      crons                 = [for x in try(t.triggers, []) : x.cron if can(x.cron)]
      ticks                 = [for x in try(t.triggers, []) : x.every_s if can(x.every_s)]
      listens               = [for x in try(t.triggers, []) : x.topic if can(x.topic)]
      endpoints             = [for x in try(t.triggers, []) : merge({ reason = "" }, x.http) if can(x.http)]
      uses                  = try(t.uses, [])
      requires              = try(t.requires, [])
      secrets               = try(t.secrets, [])
      kms                   = try(t.kms, [])
      publishes             = try(t.topics.publish, [])
      subscribes            = try(t.topics.subscribe, [])
      starts                = try(tolist(t.starts) == tolist(["*"]), false) ? [for other in keys(local._raw) : other if other != name] : tolist(try(t.starts, []))
      buckets               = [for b in try(t.buckets, []) : merge({ prefix = "" }, b)]
      roles                 = try(t.roles, [])
      destructive           = try(t.destructive, false)
      must_succeed_within_s = try(t.must_succeed_within_s, null)
      # `{default: x, env: NAME}` wherever it stands in params; jsonencode writes keys in this order
      params = regexall("\\{\"default\":(\"(?:[^\"\\\\]|\\\\.)*\"|[^,{}]+),\"env\":\"([A-Z][A-Z0-9_]*)\"\\}", jsonencode(try(t.params, {})))
    }
  }

  # name = environment variable; a parameter set here reaches every task and every lifecycle rule that names it
  parameter_defaults = {
    for name, found in merge(
      { for p in flatten([for t in local.tasks : [for m in t.params : { name = m[1], default = jsondecode(m[0]) }]]) : p.name => tostring(p.default)... },
    ) : name => distinct(concat(found, lookup(local._bucket_parameters, name, [])))
  }
  # a lifecycle rule may name a parameter that no task takes yet
  all_parameters = merge(local._bucket_parameters, local.parameter_defaults)

  environment = {
    for name, t in local.tasks : name => {
      for p in distinct([for m in t.params : m[1]]) : p => var.parameters[p] if contains(keys(var.parameters), p)
    }
  }
}

# --- what follows from the triggers
locals {
  # Cloud Scheduler's finest slot is a minute: a task that ticks is started each minute and ticks by itself.
  schedules = merge([
    for name, t in local.tasks : {
      for i, cron in concat(t.crons, [for s in t.ticks : "* * * * *"]) :
      (i == 0 ? t.slug : "${t.slug}-${i + 1}") => { task = name, cron = cron }
    }
  ]...)

  pushes = merge([
    for name, t in local.tasks : { for topic in t.listens : "${t.slug}.${topic}" => { task = name, topic = topic } }
  ]...)

  # drained by the task itself, at its own times
  pulls = merge([
    for name, t in local.tasks : {
      for topic in setsubtract(t.subscribes, t.listens) : "${t.slug}.${topic}" => { task = name, topic = topic }
    }
  ]...)

  topics = toset(flatten([for t in local.tasks : concat(t.listens, t.publishes, t.subscribes)]))

  publishers = merge([
    for name, t in local.tasks : { for topic in t.publishes : "${t.slug}.${topic}" => { task = name, topic = topic } }
  ]...)

  starts = merge([
    for name, t in local.tasks : { for other in t.starts : "${t.slug}.${other}" => { task = name, starts = other } }
  ]...)

  # reachable without Google's own identity check: each says why
  public = {
    for name, t in local.tasks : name => [for e in t.endpoints : e if e.auth != "service"]
    if anytrue([for e in t.endpoints : e.auth != "service"])
  }

  endpoints = flatten([
    for name, t in local.tasks : [
      for e in t.endpoints : { task = name, path = e.path, methods = e.methods, auth = e.auth, reason = e.reason }
    ]
  ])
}
