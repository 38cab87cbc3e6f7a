"""Laws over the plan: what each function and job is made of, told, and watched by."""

import ast
import hashlib
import re
import sys
from importlib.metadata import packages_distributions, requires
from urllib.parse import unquote

import pytest

from shared import settings
from shared.database import url_of
from shared.manifest import Http, Task, load_all
from shared.strict_yaml import parse
from tests.terraform.workspace import BASIC, PROJECT, ROOT, TERRAFORM, Plan, Resource

Tasks = dict[str, Task]

CORE = parse((ROOT / "shared/core.yaml").read_text(), "core.yaml")["requires"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PINS = {
    normal(re.split(r"[=;\s]", line)[0]): line.strip()
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and line[0].isalnum()
}


def environment(resource: Resource) -> dict[str, str]:
    """The environment of a function or job."""
    if resource.type == "google_cloudfunctions2_function":
        return dict(resource.values["service_config"][0]["environment_variables"])
    (container,) = resource.values["template"][0]["template"][0]["containers"]
    return {e["name"]: e.get("value", "") for e in container["env"]}


def deployed(plan: Plan) -> dict[str, Resource]:
    """The function or job of each task."""
    found = plan.of("cloudfunctions2_function") + plan.of("cloud_run_v2_job", "task")
    return {str(r.key): r for r in found}


def test_each_task_is_one_function_or_job_of_its_name(plan: Plan, tasks: Tasks) -> None:
    found = deployed(plan)
    assert {name: r.values["name"] for name, r in found.items()} == {name: t.slug for name, t in tasks.items()}
    for name, resource in found.items():
        assert ("job" in resource.type) == (tasks[name].run.kind == "job"), name
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", resource.values["name"])


def test_it_runs_with_what_its_declaration_asks_for(plan: Plan, tasks: Tasks) -> None:
    for name, resource in deployed(plan).items():
        run = tasks[name].run
        if run.kind == "function":
            config = resource.values["service_config"][0]
            assert config["available_memory"] == f"{run.memory_mb}Mi", name
            assert float(config["available_cpu"]) == run.cpu, name
            assert config["timeout_seconds"] == run.timeout_s, name
            assert config["max_instance_count"] == run.max_instances, name
            assert config["max_instance_request_concurrency"] == run.concurrency, name
            assert config["all_traffic_on_latest_revision"] is True, name
            assert config["direct_vpc_egress"] == "VPC_EGRESS_PRIVATE_RANGES_ONLY", name
            assert config["direct_vpc_network_interface"], name
            assert resource.values["build_config"][0]["entry_point"] == "main", name
            assert resource.values["build_config"][0]["runtime"] == "python312", name
        else:
            outer = resource.values["template"][0]
            inner = outer["template"][0]
            (container,) = inner["containers"]
            assert outer["task_count"] == run.tasks, name
            assert outer["parallelism"] == min(run.tasks, run.parallelism), name
            assert inner["timeout"] == f"{run.timeout_s}s", name
            assert container["resources"][0]["limits"]["memory"] == f"{run.memory_mb}Mi", name
            assert float(container["resources"][0]["limits"]["cpu"]) == run.cpu, name
            assert container["image"] == BASIC["images"][run.image], name
            assert container["args"] == ["python", "-m", "shared.task", f"functions/{name}"], name
            assert inner["vpc_access"][0]["egress"] == "PRIVATE_RANGES_ONLY", name
            assert inner["vpc_access"][0]["network_interfaces"], name


def test_the_python_of_functions_and_images_is_one() -> None:
    (version,) = re.findall(r"^ARG PYTHON=(\d+)\.(\d+)$", (ROOT / "images/Dockerfile").read_text(), re.M)
    assert f'default     = "python{"".join(version)}"' in (TERRAFORM / "variables.tf").read_text()


def test_a_source_is_named_by_its_hash(plan: Plan, tasks: Tasks) -> None:
    for item in plan.of("storage_bucket_object", "task"):
        raw = (plan.folder / "terraform" / ".build" / f"{item.key}.zip").read_bytes()
        assert item.values["name"] == f"tasks/{tasks[str(item.key)].slug}/{hashlib.sha256(raw).hexdigest()}.zip"
    for name, resource in deployed(plan).items():
        (item,) = [o for o in plan.of("storage_bucket_object", "task") if o.key == name]
        if tasks[name].run.kind == "job":
            assert environment(resource)["KEEPER_SOURCE"] == f"gs://{PROJECT}-keeper-source/{item.values['name']}"
        else:
            (source,) = resource.values["build_config"][0]["source"][0]["storage_source"]
            assert (source["bucket"], source["object"]) == (f"{PROJECT}-keeper-source", item.values["name"])


def adoption(plan: Plan) -> set[str]:
    """What says how a platform calls its tables, where it is written down: the fixtures' is, nobody's is here."""
    return {f"functions/{file.name}" for file in plan.functions.glob("adopt.yaml")}


def test_a_source_holds_the_core_the_rooms_it_uses_and_the_task(plan: Plan, tasks: Tasks) -> None:
    for name, task in tasks.items():
        due = {f"shared/{f.name}" for f in (plan.folder / "shared").iterdir() if f.suffix in (".py", ".yaml")}
        for room in task.uses:
            place = plan.folder / "shared" / room
            due |= {
                f.relative_to(plan.folder).as_posix()
                for f in place.rglob("*")
                if f.suffix in (".css", ".html", ".js", ".json", ".py", ".sql", ".yaml")
            }
        due |= {f"functions/{name}/{f.name}" for f in task.folder.iterdir() if f.suffix in (".py", ".sql", ".yaml")}
        if {"console", "watch"} & set(task.uses):  # they watch and show what every task.yaml declares
            due |= {f"functions/{other}/task.yaml" for other in tasks}
        if task.adopts:
            due |= adoption(plan)
        if task.run.kind == "function":
            due |= {"main.py", "requirements.txt", "constraints.txt"}
        found = plan.archive(name)
        assert found.keys() == due, name
        for file in found:
            here = file.startswith("functions/")
            original = task.folder.parent / file.removeprefix("functions/") if here else plan.folder / file
            if file.startswith(("functions/", "shared/")):
                assert found[file] == original.read_text(), file


def test_requirements_are_the_core_and_the_tasks_own_at_the_one_set_of_pins(plan: Plan, tasks: Tasks) -> None:
    for name, task in tasks.items():
        if task.run.kind == "function":
            found = plan.archive(name)
            lines = found["requirements.txt"].splitlines()
            assert lines[0] == "-c constraints.txt"
            assert lines[1:] == sorted({PINS[normal(p)] for p in (*CORE, *task.requires)}), name
            assert set(found["constraints.txt"].split("\n")) - {""} == set(PINS.values()), name


def test_every_file_of_a_source_compiles(plan: Plan, tasks: Tasks) -> None:
    for name in tasks:
        for file, text in plan.archive(name).items():
            if file.endswith(".py"):
                compile(text, file, "exec")


def imported(text: str) -> set[str]:
    """Every module that `text` names in an import, wherever it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def closure(names: set[str]) -> set[str]:
    """`names` and all they need, as installed here."""
    todo, done = {normal(n) for n in names}, set()
    while todo:
        name = todo.pop()
        done.add(name)
        for line in requires(name) or []:
            if "extra ==" not in line:
                needed = normal(re.match(r"[A-Za-z0-9._-]+", line).group())  # type: ignore[union-attr]
                if needed in PINS and needed not in done:
                    todo.add(needed)
    return done


# What of the core is imported only when a task declares the thing.
BY_DECLARATION = {
    "google.cloud.secretmanager_v1": ("google-cloud-secret-manager", lambda t: t.secrets),
    "google.cloud.storage": ("google-cloud-storage", lambda t: t.buckets),
    "google.cloud.kms_v1": ("google-cloud-kms", lambda t: t.kms),
    "google.cloud.pubsub_v1": ("google-cloud-pubsub", lambda t: t.publishes or t.subscribes),
    "google.cloud.run_v2": ("google-cloud-run", lambda t: t.starts),
}


def reached(found: dict[str, str], start: str) -> dict[str, set[str]]:
    """The files of a source that `start` imports, directly or not, with what each imports from elsewhere."""
    todo, done = [start], dict[str, set[str]]()
    while todo:
        file = todo.pop()
        done[file] = set()
        for module in imported(found[file]):
            path = module.replace(".", "/")
            places = [f"{path}.py", f"{path}/__init__.py", f"{path.rpartition('/')[0]}.py"]
            here = [place for place in places if place in found]
            if module.partition(".")[0] != "shared":
                done[file].add(module.partition(".")[0])
            elif not here:
                # a name of a package's __init__ is no module of its own
                assert f"{path.rpartition('/')[0]}/__init__.py" in found, f"{file} imports {module}, which is not there"
            todo += [place for place in here if place not in done and place not in todo]
    return done


def test_all_that_a_function_imports_is_in_its_source_or_required(plan: Plan, tasks: Tasks) -> None:
    distributions = packages_distributions()
    for name, task in tasks.items():
        if task.run.kind == "job":
            continue  # its image holds every package
        available = closure({*CORE, *task.requires})
        for file, tops in reached(plan.archive(name), f"functions/{name}/main.py").items():
            for top in tops - {"functions", "google"} - sys.stdlib_module_names:
                owners = {normal(d) for d in distributions.get(top, ())}
                assert owners & available, f"{name}: {file} imports {top}, which is in no requirement"


def test_a_task_that_declares_a_thing_requires_its_client(plan: Plan, tasks: Tasks) -> None:
    for name, task in tasks.items():
        for module, (package, declared) in BY_DECLARATION.items():
            if declared(task) and module in str(plan.archive(name)) and task.run.kind == "function":
                assert package in task.requires, f"{name}: its declaration needs {package} in requires"


def test_a_task_calls_only_what_it_declares(plan: Plan, tasks: Tasks) -> None:
    """Names given as text to the context: secrets, topics, buckets and tasks."""
    for name, task in tasks.items():
        allowed = {
            "secret": set(task.secrets),
            "publish": set(task.publishes),
            "start": set(task.starts),
            "objects": {b.bucket for b in task.buckets},
        }
        for file, text in plan.archive(name).items():
            if file.endswith(".py") and not re.fullmatch(r"shared/[^/]+\.py", file):
                for method, what in re.findall(r"\bctx\.(secret|publish|start|objects)\(\s*\"([^\"]+)\"", text):
                    assert what in allowed[method], (
                        f"{name}: {file} calls ctx.{method}({what!r}), task.yaml names no such"
                    )


COMMON = {
    "DATABASE_CA",
    "DATABASE_URL",
    "GOOGLE_CLOUD_PROJECT",
    "KEEPER_BACKUP_GATE_HOURS",
    "KEEPER_DOCS",
    "KEEPER_SCHEDULER_REGION",
    "KEEPER_MODE",
    "KEEPER_STRIPE_LIVEMODE",
}


def test_it_is_told_exactly_what_it_needs(real: Plan) -> None:
    tasks = load_all(real.functions)
    for name, resource in deployed(real).items():
        task, told = tasks[name], environment(resource)
        due = COMMON | {f"KEEPER_BUCKET_{b.bucket.upper().replace('-', '_')}" for b in task.buckets}
        due |= {f"KEEPER_KEY_{key.upper().replace('-', '_')}" for key in task.kms}
        due |= {f"KEEPER_TARGET_{other.upper()}" for other in task.starts}
        if any(isinstance(t, Http) and t.auth == "operator" for t in task.triggers):
            due.add("KEEPER_OPERATORS")
        if "PUBSUB_ENDPOINT" in (task.folder / "task.yaml").read_text():
            due.add("PUBSUB_ENDPOINT")
            assert told["PUBSUB_ENDPOINT"] == "europe-west1-pubsub.googleapis.com:443"
        due.add("KEEPER_SOURCE" if task.run.kind == "job" else "LOG_EXECUTION_ID")
        assert told.keys() == due, name
        ring = f"projects/{PROJECT}/locations/europe-west1/keyRings/groundskeeper"
        assert all(told[f"KEEPER_KEY_{k.upper()}"] == f"{ring}/cryptoKeys/{k}" for k in task.kms), name
        assert told["KEEPER_MODE"] == "observe", name
        assert told["GOOGLE_CLOUD_PROJECT"] == PROJECT, name
        assert told["KEEPER_STRIPE_LIVEMODE"] == "false", name
        user, _, rest = told["DATABASE_URL"].removeprefix("postgresql://").partition("@")
        assert unquote(user) == f"{task.slug}@{PROJECT}.iam", name
        assert rest == "10.1.2.3:5432/app?iam=1", name


def test_what_it_is_told_is_what_the_core_understands(real: Plan) -> None:
    for name, resource in deployed(real).items():
        told = environment(resource)
        read = settings.read({**told, "K_SERVICE": resource.values["name"]})
        assert read.in_cloud, name
        assert read.project == PROJECT, name
        assert read.database_ca == told["DATABASE_CA"], name
        url = url_of(read.database())
        assert (url.username, url.host) == (f"{resource.values['name']}@{PROJECT}.iam", "10.1.2.3"), name


def test_every_task_raises_an_alert_that_leads_to_its_runbook(plan: Plan, tasks: Tasks) -> None:
    policies = {str(p.key): p.values for p in plan.of("monitoring_alert_policy", "ended_badly")}
    assert policies.keys() == tasks.keys()
    for name, task in tasks.items():
        policy = policies[name]
        (condition,) = policy["conditions"]
        kind = "job_name" if task.run.kind == "job" else "service_name"
        filter_ = condition["condition_matched_log"][0]["filter"]
        assert f'resource.labels.{kind}="{task.slug}"' in filter_, name
        assert "jsonPayload.alert=true" in filter_, name
        # required by the API for alerts on logs, and only there
        assert policy["alert_strategy"][0]["notification_rate_limit"][0]["period"] == "3600s", name
        (link,) = policy["documentation"][0]["links"]
        assert link["url"].endswith(f"/docs/tasks/{name}.md"), name


def test_every_scheduled_task_is_missed_when_it_is_gone(plan: Plan, tasks: Tasks) -> None:
    """By the absence of its good endings, or, past Cloud Monitoring's 23.5 hours, by the watchdog."""
    missed = {str(p.key): p.values for p in plan.of("monitoring_alert_policy", "missing")}
    for name, task in tasks.items():
        limit = task.must_succeed_within_s
        assert (name in missed) == (limit is not None and limit <= 84600), name
        if name in missed:
            (condition,) = missed[name]["conditions"]
            (query,) = condition["condition_prometheus_query_language"]
            assert f'task="{name}"' in query["query"], name
            assert f"[{limit}s]" in query["query"], name
            assert query["disable_metric_validation"] is True, name
        elif task.scheduled:
            assert plan.output("tasks")[name]["watched"] == "watchdog", name


def test_the_metric_counts_what_the_wrapper_says(plan: Plan) -> None:
    (metric,) = plan.of("logging_metric")
    assert 'jsonPayload.message="run ended"' in metric.values["filter"]
    assert '"run ended"' in (plan.folder / "shared/run.py").read_text()
    assert {label["key"] for label in metric.values["metric_descriptor"][0]["labels"]} == {"task", "outcome"}
    assert metric.values["label_extractors"].keys() == {"task", "outcome"}


def test_dead_letters_waiting_messages_and_the_budget_are_watched(fixtures: Plan) -> None:
    (policy,) = fixtures.of("monitoring_alert_policy", "dead_letters")
    assert "num_undelivered_messages" in policy.values["conditions"][0]["condition_threshold"][0]["filter"]
    (waiting,) = fixtures.of("monitoring_alert_policy", "backlog")
    watched = waiting.values["conditions"][0]["condition_threshold"][0]["filter"]
    assert "oldest_unacked_message_age" in watched
    names = {s.values["name"] for s in fixtures.of("pubsub_subscription", "task")}
    assert names == set(re.findall(r'"([a-z0-9.-]+)"', watched.partition("one_of")[2].partition(")")[0]))
    (budget,) = fixtures.of("billing_budget")
    assert {r["threshold_percent"] for r in budget.values["threshold_rules"]} == {0.5, 1.0}


def test_the_tasks_together_stay_within_the_connections(plan: Plan, tasks: Tasks) -> None:
    held = sum(
        (min(t.run.tasks, t.run.parallelism) if t.run.kind == "job" else t.run.max_instances) * t.run.connections
        for t in tasks.values()
    )
    assert plan.output("connections") == f"{held} of 240"
    assert held <= 240


@pytest.mark.parametrize("name", ["DATABASE_PASSWORD", "KEEPER_SECRETS", "PUBSUB_EMULATOR_HOST"])
def test_nothing_is_told_that_belongs_elsewhere(plan: Plan, name: str) -> None:
    for resource in deployed(plan).values():
        assert name not in str(resource.values.get("service_config") or resource.values.get("template"))


def test_migrations_run_as_themselves_from_a_source_of_their_own(plan: Plan, tasks: Tasks) -> None:
    (job,) = plan.of("cloud_run_v2_job", "migrate")
    inner = job.values["template"][0]["template"][0]
    (container,) = inner["containers"]
    assert inner["service_account"] == f"keeper-migrate@{PROJECT}.iam.gserviceaccount.com"
    assert inner["max_retries"] == 0
    assert container["args"] == ["python", "-m", "shared.keeper", "migrate", "--grants"]
    found = plan.archive("migrate")
    assert {f for f in found if f.startswith("functions/")} == {f"functions/{n}/task.yaml" for n in tasks} | adoption(
        plan
    )
    # the command has commands for most rooms; the laptop's is none of the cloud's
    rooms = {folder.name for folder in (ROOT / "shared").iterdir() if any(folder.glob("*.py"))} - {"laptop"}
    assert {f.split("/")[1] for f in found if f.count("/") > 1 and f.startswith("shared/")} == rooms
    assert container["resources"][0]["limits"] == {"cpu": "1", "memory": "512Mi"}
    assert {e["name"] for e in container["env"]} >= {
        "DATABASE_CA",
        "DATABASE_URL",
        "GOOGLE_CLOUD_PROJECT",
        "KEEPER_SOURCE",
    }
    assert inner["vpc_access"][0]["network_interfaces"]


def test_a_job_is_told_as_much_as_a_function(fixtures: Plan) -> None:
    for resource in deployed(fixtures).values():
        # the address and authority of a database that is yet to be made are unknown
        assert environment(resource).keys() >= COMMON - {"DATABASE_CA", "DATABASE_URL"}, resource.address


def test_the_table_of_tasks_says_what_each_is(plan: Plan, tasks: Tasks) -> None:
    table = plan.output("tasks")
    assert table.keys() == tasks.keys()
    for name, task in tasks.items():
        row = table[name]
        assert (row["kind"], row["memory_mb"], row["timeout_s"]) == (
            task.run.kind,
            task.run.memory_mb,
            task.run.timeout_s,
        )
        assert (row["secrets"], row["keys"], row["roles"]) == (list(task.secrets), list(task.kms), list(task.roles))
        assert row["identity"] == f"{task.slug}@{PROJECT}.iam.gserviceaccount.com"
        assert len(row["schedules"]) == sum(t.kind in ("cron", "every") for t in task.triggers)
        assert len(row["buckets"]) == len(task.buckets)
        assert set(row["topics"]) >= set(task.publishes)


def test_the_endpoints_output_names_every_endpoint(plan: Plan, tasks: Tasks) -> None:
    listed = {(e["service"], e["path"], tuple(e["methods"]), e["auth"]) for e in plan.output("endpoints")}
    assert listed == {
        (t.slug, x.path, x.methods, x.auth) for t in tasks.values() for x in t.triggers if isinstance(x, Http)
    }


def test_only_the_two_providers_are_used_at_their_versions(plan: Plan) -> None:
    providers = plan.document["configuration"]["provider_config"].values()
    assert {p["name"]: p.get("version_constraint") for p in providers if p["name"] != "terraform"} == {
        "google": "~> 8.7",
        "archive": "~> 2.8",
    }


def test_everything_says_which_environment_it_is_of(fixtures: Plan) -> None:
    labels = fixtures.document["configuration"]["provider_config"]["google"]["expressions"]["default_labels"]
    assert "var.environment" in labels["references"]


def test_alerts_and_the_budget_go_to_those_named(fixtures: Plan) -> None:
    (channel,) = fixtures.of("monitoring_notification_channel")
    assert channel.values["labels"] == {"email_address": "sre@example.com"}
    configuration = fixtures.document["configuration"]["root_module"]["resources"]
    for resource in configuration:
        if resource["type"] == "google_monitoring_alert_policy":
            assert "local.channels" in resource["expressions"]["notification_channels"]["references"], resource["name"]
    (budget,) = fixtures.of("billing_budget")
    assert len(budget.values["threshold_rules"]) == 3
    assert budget.values["amount"][0]["specified_amount"] == [{"currency_code": "USD", "nanos": None, "units": "100"}]
