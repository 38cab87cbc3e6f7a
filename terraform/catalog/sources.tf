# What each task's source archive holds, file name => text. Nothing is built: functions-framework imports the
# generated main.py at the archive's root, and `shared` is the package the repository's own tests import.
locals {
  _core_requires = yamldecode(file("${var.root}/shared/core.yaml")).requires

  # pins of what only a job's image holds
  _image_pins = [
    for line in split("\n", file("${var.root}/requirements-train.txt")) :
    lower(regex("^[A-Za-z0-9][A-Za-z0-9._-]*", line)) if can(regex("^[A-Za-z0-9]", line))
  ]
  # name => its line of requirements.txt, environment marker included
  _pins = {
    for line in split("\n", file("${var.root}/requirements.txt")) :
    lower(regex("^[A-Za-z0-9][A-Za-z0-9._-]*", line)) => trimspace(line) if can(regex("^[A-Za-z0-9]", line))
  }
  _constraints = format("%s\n", join("\n", [for name in sort(keys(local._pins)) : local._pins[name]]))

  _rooms = setunion(flatten([for t in local.tasks : t.uses]), local._migrate_rooms)
  _room_files = {
    for room in local._rooms : room => fileset("${var.root}/shared/${room}", "**/*.{css,html,js,json,mako,py,sql,yaml}")
  }
  _core = { for file in fileset("${var.root}/shared", "*.{py,yaml}") : "shared/${file}" => file("${var.root}/shared/${file}") }
  _room_texts = {
    for room, files in local._room_files : room => {
      for file in files : "shared/${room}/${file}" => file("${var.root}/shared/${room}/${file}")
    }
  }

  _requirements = {
    for name, t in local.tasks : name => format("%s\n", join("\n", concat(["-c constraints.txt"], [
      for package in sort(distinct(concat(local._core_requires, t.requires))) :
      lookup(local._pins, lower(package), "${package}  # no pin")
    ])))
  }

  _declarations = {
    for name, t in local.tasks : "functions/${name}/task.yaml" => file("${var.functions_dir}/${name}/task.yaml")
  }

  # what a platform calls its tables, where somebody wrote it down
  _adoption = { for name in fileset(var.functions_dir, "adopt.yaml") : "functions/${name}" => file("${var.functions_dir}/${name}") }

  sources = {
    for name, t in local.tasks : name => merge(concat(
      [{
        for file in fileset("${var.functions_dir}/${name}", "*.{py,sql,yaml}") :
        "functions/${name}/${file}" => file("${var.functions_dir}/${name}/${file}")
      }],
      [local._core],
      [for room in t.uses : local._room_texts[room]],
      [contains(t.uses, "retention") ? local._adoption : {}],
      # who watches the plane or shows it reads every declaration
      [length(setintersection(t.uses, ["console", "watch"])) > 0 ? local._declarations : {}],
    )...)
  }

  # a function is built with its packages; a job finds them in its image
  function_sources = {
    for name, files in local.sources : name => merge(files, {
      "main.py"          = "from functions.${name}.main import main\n\n__all__ = [\"main\"]\n"
      "requirements.txt" = local._requirements[name]
      "constraints.txt"  = local._constraints
    }) if local.tasks[name].kind == "function"
  }
  job_sources = { for name, files in local.sources : name => files if local.tasks[name].kind == "job" }

  # The migrate job: the command, with the core and every room, since it has a command for most of them, and every
  # declaration, from which the grants follow. The laptop stays at home.
  _migrate_rooms = setsubtract([for file in fileset("${var.root}/shared", "*/*.py") : dirname(file)], ["laptop"])
  migrate_source = merge(concat(
    [local._core],
    [local._declarations, local._adoption],
    [for room in local._migrate_rooms : local._room_texts[room]],
  )...)
}
