# What is wrong, each finding in words; outputs.tf refuses the plan when there is one. shared/manifest.py finds most
# of it too and says it better, but `terraform apply` must not depend on somebody having run the tests.
locals {
  # Scheduler waits half an hour for an answer, a push subscription ten minutes; a job may run a week.
  _longest_s = { for name, t in local.tasks : name => t.kind == "job" ? 604800 : length(t.listens) > 0 ? 540 : 1800 }

  # https://cloud.google.com/run/docs/configuring/services/memory-limits
  _most_mb = {
    for name, t in local.tasks : name =>
    t.cpu < 0.5 ? 512 : t.cpu < 1 ? 1024 : t.cpu < 2 ? 4096 : t.cpu < 4 ? 8192 : t.cpu < 8 ? 16384 : 32768
  }
  _least_mb = { for name, t in local.tasks : name => t.cpu >= 6 ? 4096 : t.cpu >= 4 ? 2048 : t.cpu > 1 ? 512 : 128 }

  _wrong_shape = concat(
    [
      for name in keys(local._raw) :
      "functions/${name}: the folder's name is the task's: 6 to 24 of a-z, 0-9 and _, a letter first and no _ last"
      if !can(regex("^[a-z][a-z0-9_]{4,22}[a-z0-9]$", name))
    ],
    [
      for name in keys(local._raw) : "functions/${name}: names beginning with keeper_ are the plane's own accounts"
      if startswith(name, "keeper_")
    ],
    [
      for x in flatten([for name, t in local._raw : [for key in keys(t) : { name = name, key = key }]]) :
      "functions/${x.name}/task.yaml: ${x.key} is not a key of task.yaml" if !contains(local._known.top, x.key)
    ],
    [
      for x in flatten([for name, t in local._raw : [for key in keys(try(t.run, {})) : { name = name, key = key }]]) :
      "functions/${x.name}/task.yaml: run.${x.key} is not a key of task.yaml" if !contains(local._known.run, x.key)
    ],
    [
      for name, t in local.tasks : "functions/${name}/task.yaml: owner: expected a label, a-z first, then a-z, 0-9, _ and -"
      if !can(regex("^[a-z][a-z0-9_-]{0,62}$", t.owner))
    ],
    [
      for name, t in local.tasks : "functions/${name}/task.yaml: summary: expected 1 to 256 characters, a description's limit"
      if length(t.summary) < 1 || length(t.summary) > 256
    ],
    [
      for name, t in local.tasks : "functions/${name}/task.yaml: run.kind: expected function or job, got '${t.kind}'"
      if !contains(["function", "job"], t.kind)
    ],
    [
      for x in flatten([
        for name, t in local._raw : [for i, trigger in try(t.triggers, []) : { name = name, i = i, keys = keys(trigger) }]
      ]) : "functions/${x.name}/task.yaml: triggers[${x.i}]: expected exactly one of cron, every_s, topic, http"
      if length(x.keys) != 1 || length(setintersection(x.keys, ["cron", "every_s", "topic", "http"])) != 1
    ],
    [
      for name, t in local.tasks :
      "functions/${name}/task.yaml: a job is started by cron or by hand only: make it a function"
      if t.kind == "job" && length(t.ticks) + length(t.listens) + length(t.endpoints) > 0
    ],
    [
      for name, t in local.tasks :
      "functions/${name}/task.yaml: run.timeout_s ${t.timeout_s}: expected 1 to ${local._longest_s[name]}"
      if t.timeout_s < 1 || t.timeout_s > local._longest_s[name]
    ],
    [
      for name, t in local.tasks :
      "functions/${name}/task.yaml: run.memory_mb ${t.memory_mb}: Cloud Run gives ${t.cpu} vCPU at most ${local._most_mb[name]}"
      if t.memory_mb > local._most_mb[name]
    ],
    [
      for name, t in local.tasks :
      "functions/${name}/task.yaml: run.memory_mb ${t.memory_mb}: Cloud Run wants ${local._least_mb[name]} for ${t.cpu} vCPU"
      if t.memory_mb < local._least_mb[name]
    ],
    [
      for name, t in local.tasks : "functions/${name}/task.yaml: run.cpu: a job needs at least 1, got ${t.cpu}"
      if t.kind == "job" && t.cpu < 1
    ],
  )

  _wrong_reference = concat(
    [
      for x in flatten([for name, t in local.tasks : [for room in t.uses : { name = name, room = room }]]) :
      "functions/${x.name}/task.yaml: uses ${x.room}: there is no shared/${x.room}"
      if length(local._room_files[x.room]) == 0
    ],
    [
      for x in flatten([for name, t in local.tasks : [for room in t.uses : { name = name, room = room }]]) :
      "functions/${x.name}/task.yaml: uses ${x.room}: the command line and the laptop are never deployed"
      if contains(["keeper", "laptop", "migrations", "platform", "costs"], x.room)
    ],
    [
      for x in flatten([
        for name, t in local.tasks : [for p in concat(local._core_requires, t.requires) : { name = name, package = p, job = t.kind == "job" }]
      ]) : "functions/${x.name}/task.yaml: requires ${x.package}: requirements.txt has no pin of it, run `make lock`"
      if !contains(concat(keys(local._pins), x.job ? local._image_pins : []), lower(x.package))
    ],
    [
      for x in flatten([for name, t in local.tasks : [for k in t.kms : { name = name, key = k }]]) :
      "functions/${x.name}/task.yaml: kms ${x.key}: terraform/data/keys.yaml has no such key"
      if !contains(keys(local._keys), x.key)
    ],
    [
      for x in flatten([for name, t in local.tasks : [for b in t.buckets : { name = name, bucket = b.bucket }]]) :
      "functions/${x.name}/task.yaml: buckets ${x.bucket}: terraform/data/buckets.yaml has no such bucket"
      if !contains(keys(local._buckets), x.bucket)
    ],
    [
      for x in flatten([for name, t in local.tasks : [for role in t.roles : { name = name, role = role }]]) :
      "functions/${x.name}/task.yaml: ${x.role} is not in terraform/data/roles.yaml: add it there, with its reason"
      if !contains(keys(local._roles), x.role)
    ],
    [
      for x in flatten([for name, t in local.tasks : [for s in t.starts : { name = name, starts = s }]]) :
      "functions/${x.name}/task.yaml: starts ${x.starts}: there is no such task" if !contains(keys(local.tasks), x.starts)
    ],
    [
      for name in keys(var.parameters) : "parameters: no task and no bucket takes ${name}"
      if !contains(keys(local.all_parameters), name)
    ],
    [
      for name in keys(var.parameters) : "parameters: ${name} is the plane's own: it has a variable of its own or none"
      if can(regex("^(KEEPER_|DATABASE_|GOOGLE_|K_|CLOUD_RUN_)|_EMULATOR_HOST$", name))
    ],
    [
      for name, values in local.all_parameters :
      "parameter ${name} has different defaults, ${join(" and ", values)}: make them one" if length(values) > 1
    ],
  )

  _wrong_exposure = concat(
    [
      for e in local.endpoints : "functions/${e.task}/task.yaml: ${e.path} is reachable from the internet: say why in reason"
      if e.auth != "service" && e.reason == ""
    ],
    [
      for name, found in local.public : "functions/${name}/task.yaml: run.ingress: a public endpoint needs `all`"
      if local.tasks[name].ingress != "all"
    ],
    [
      for name, t in local.tasks : "functions/${name}/task.yaml: run.ingress `all` needs an http trigger"
      if t.ingress == "all" && length(t.endpoints) == 0
    ],
  )

  # Run.connections of shared/manifest.py: one a request, and three for all of them together.
  connections = sum(concat([0], [
    for t in local.tasks : (t.kind == "job" ? min(t.shards, t.parallelism) : t.max_instances) * (t.concurrency + 3)
  ]))

  _wrong_storage = concat(
    [
      for x in flatten([for name, b in local._buckets : [for key in keys(b) : { name = name, key = key }]]) :
      "terraform/data/buckets.yaml: ${x.name}.${x.key} is not a key of a bucket" if !contains(local._bucket_keys, x.key)
    ],
    [
      for name, b in local.buckets :
      "terraform/data/buckets.yaml: ${name}: its data is gone after ${local.gone_after_days[name]} days, the promise is ${b.delete_after_days + b.tail_days}: versions, soft delete and retention count"
      if try(local.gone_after_days[name] > b.delete_after_days + b.tail_days, false)
    ],
  )

  findings = concat(local._wrong_shape, local._wrong_reference, local._wrong_exposure, local._wrong_storage)
}
