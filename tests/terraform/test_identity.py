"""Laws over the plan: who may do what, and nothing more."""

import re
from collections import Counter

from shared.manifest import Http, Task, Topic
from shared.strict_yaml import parse
from tests.terraform.workspace import PROJECT, ROOT, Plan, Resource

Tasks = dict[str, Task]

ROLES = parse((ROOT / "terraform/data/roles.yaml").read_text(), "roles.yaml")
ON_PROJECT = {role for role, r in ROLES.items() if r["scope"] == "project"}


def account(name: str) -> str:
    return f"serviceAccount:{name}@{PROJECT}.iam.gserviceaccount.com"


def grants(plan: Plan) -> list[Resource]:
    return [r for r in plan.resources if r.type.endswith("_iam_member")]


def thing(grant: Resource) -> str:
    """What a grant is on, as `kind name`."""
    v = grant.values
    kind = grant.type.removeprefix("google_").removesuffix("_iam_member")
    name = {
        "artifact_registry_repository": v.get("repository"),
        "project": "",
        "cloud_run_v2_service": v.get("name"),
        "cloud_run_v2_job": v.get("name"),
        "pubsub_topic": v.get("topic"),
        "pubsub_subscription": v.get("subscription"),
        "secret_manager_secret": v.get("secret_id"),
        "kms_crypto_key": str(grant.key).split(".")[1] if kind == "kms_crypto_key" else "",
        "storage_bucket": v.get("bucket"),
        "storage_managed_folder": f"{v.get('bucket')}/{v.get('managed_folder')}",
    }[kind]
    return f"{kind} {name}".strip()


def bucket(name: str, plan: Plan) -> str:
    own = plan.document["variables"].get("platform_buckets", {}).get("value", {})
    return str(own.get(name, f"{PROJECT}-keeper-{name}"))


def declared(task: Task, tasks: Tasks, plan: Plan) -> Counter[tuple[str, str]]:
    """Every (thing, role) the account of `task` should hold."""
    due = Counter({("project", "roles/cloudsql.instanceUser"): 1})
    scoped = {s: [r for r in task.roles if ROLES[r]["scope"] == s] for s in ("project", "secrets", "kms", "buckets")}
    due.update(("project", role) for role in scoped["project"])
    for secret in task.secrets:
        due.update(
            (f"secret_manager_secret {secret}", r) for r in ("roles/secretmanager.secretAccessor", *scoped["secrets"])
        )
    for key in task.kms:
        due.update((f"kms_crypto_key {key}", r) for r in ("roles/cloudkms.cryptoKeyEncrypterDecrypter", *scoped["kms"]))
    for b in task.buckets:
        role = {"read": "roles/storage.objectViewer", "write": "roles/storage.objectUser"}[b.access]
        place = f"storage_bucket {bucket(b.bucket, plan)}"
        folder = f"storage_managed_folder {bucket(b.bucket, plan)}/{b.prefix.strip('/')}/"
        due[(folder if b.prefix else place, role)] += 1
        due.update((place, r) for r in scoped["buckets"])
    due.update((f"pubsub_topic {topic}", "roles/pubsub.publisher") for topic in task.publishes)
    listens = {t.name for t in task.triggers if isinstance(t, Topic)}
    due.update(
        (f"pubsub_subscription {task.slug}.{topic}", "roles/pubsub.subscriber")
        for topic in set(task.subscribes) - listens
    )
    for other in task.starts:
        kind = "service" if tasks[other].run.kind == "function" else "job"
        due[(f"cloud_run_v2_{kind} {tasks[other].slug}", "roles/run.invoker")] += 1
    if task.run.kind == "job":
        due[(f"storage_bucket {PROJECT}-keeper-source", "roles/storage.objectViewer")] += 1
    return due


def test_each_task_has_an_identity_of_its_own(plan: Plan, tasks: Tasks) -> None:
    accounts = {str(a.key): a.values["account_id"] for a in plan.of("service_account", "task")}
    assert accounts == {name: task.slug for name, task in tasks.items()}
    for found in plan.of("service_account"):
        assert re.fullmatch(r"[a-z][-a-z0-9]{4,28}[a-z0-9]", found.values["account_id"]), found.address
    runs_as = {
        str(f.key): f.values["service_config"][0]["service_account_email"] for f in plan.of("cloudfunctions2_function")
    }
    runs_as |= {
        str(j.key): j.values["template"][0]["template"][0]["service_account"]
        for j in plan.of("cloud_run_v2_job", "task")
    }
    assert runs_as == {name: account(task.slug).partition(":")[2] for name, task in tasks.items()}


def test_an_identity_holds_exactly_what_its_task_names(plan: Plan, tasks: Tasks) -> None:
    for task in tasks.values():
        held = Counter((thing(g), g.values["role"]) for g in grants(plan) if g.values["member"] == account(task.slug))
        assert held == declared(task, tasks, plan), task.name


def test_those_who_call_may_only_call(plan: Plan, tasks: Tasks) -> None:
    for caller, reach in {
        "keeper-scheduler": {t.slug for t in tasks.values() if t.scheduled},
        "keeper-pubsub": {t.slug for t in tasks.values() if t.trigger("topic")},
    }.items():
        held = [g for g in grants(plan) if g.values["member"] == account(caller)]
        assert {g.values["role"] for g in held} <= {"roles/run.invoker"}, caller
        assert {g.values["name"] for g in held} == reach, caller


def test_nobody_is_owner_editor_or_admin(plan: Plan, bootstrap: Plan) -> None:
    for grant in (*grants(plan), *grants(bootstrap)):
        role = grant.values["role"]
        assert role not in ("roles/owner", "roles/editor", "roles/viewer"), grant.address
        if "admin" in role.lower():
            # the one exception, and it is held to a list of roles
            assert grant.address == "google_project_iam_member.apply_policy"
            assert "hasOnly([" in grant.values["condition"][0]["expression"]


def test_on_the_project_only_listed_roles_are_granted(plan: Plan) -> None:
    for grant in plan.of("project_iam_member"):
        if grant.name == "task":
            assert grant.values["role"] in ON_PROJECT, grant.address
        else:
            assert grant.values["role"] == "roles/cloudsql.instanceUser", grant.address
            assert f"projects/{PROJECT}/instances/" in grant.values["condition"][0]["expression"], grant.address


def test_a_role_is_listed_with_its_reason() -> None:
    for role, entry in ROLES.items():
        assert entry["scope"] in ("project", "secrets", "kms", "buckets"), role
        assert len(entry["reason"]) > 20, role


def test_what_sets_a_whole_policy_is_not_used(plan: Plan, bootstrap: Plan) -> None:
    """A binding or policy would take away what somebody else granted."""
    assert not [
        r.address for p in (plan, bootstrap) for r in p.resources if re.search(r"_iam_(binding|policy)$", r.type)
    ]


def test_public_endpoints_are_exactly_those_with_a_reason(plan: Plan, tasks: Tasks) -> None:
    public = {
        t.slug for t in tasks.values() for x in t.triggers if isinstance(x, Http) and x.auth != "service" and x.reason
    }
    anybody = {g.values["name"] for g in grants(plan) if g.values["member"] in ("allUsers", "allAuthenticatedUsers")}
    assert anybody == public
    for function in plan.of("cloudfunctions2_function"):
        config = function.values["service_config"][0]
        if function.values["name"] in public:
            assert config["ingress_settings"] == "ALLOW_ALL"
        elif tasks[str(function.key)].run.ingress == "internal":
            assert config["ingress_settings"] == "ALLOW_INTERNAL_ONLY", function.address


def test_no_service_account_has_a_key(plan: Plan, bootstrap: Plan) -> None:
    assert not [r.address for p in (plan, bootstrap) for r in p.resources if r.type == "google_service_account_key"]


def test_each_task_logs_in_to_the_database_as_itself(plan: Plan, tasks: Tasks) -> None:
    users = {str(u.key): u.values for u in plan.of("sql_user", "task")}
    assert {name: u["name"] for name, u in users.items()} == {n: f"{t.slug}@{PROJECT}.iam" for n, t in tasks.items()}
    for user in plan.of("sql_user"):
        assert user.values["type"] == "CLOUD_IAM_SERVICE_ACCOUNT", user.address
        assert user.values.get("password") is None, user.address
    assert all(not u.get("database_roles") for u in users.values())


def test_a_pull_request_of_this_repository_may_only_read(bootstrap: Plan) -> None:
    (provider,) = bootstrap.of("iam_workload_identity_pool_provider")
    assert provider.values["attribute_condition"] == "assertion.repository_id == '42'"
    assert provider.values["oidc"][0]["issuer_uri"] == "https://token.actions.githubusercontent.com"
    roles = {r.values["role_id"]: r.values["permissions"] for r in bootstrap.of("project_iam_custom_role")}
    for permission in roles["groundskeeperPlan"]:
        assert re.search(r"\.(get|list|getIamPolicy)$", permission), permission
        assert not re.search(r"objects|versions\.access|consume|snapshots", permission), permission
    held = {(thing(g), g.values["role"]) for g in grants(bootstrap) if g.values["member"] == account("keeper-plan")}
    assert held == {
        ("artifact_registry_repository keeper", "roles/artifactregistry.reader"),
        ("project", f"projects/{PROJECT}/roles/groundskeeperPlan"),
        (f"storage_bucket {PROJECT}-keeper-source", "roles/storage.objectViewer"),
        (f"storage_bucket {PROJECT}-keeper-state", "roles/storage.objectViewer"),
    }


def test_neither_of_githubs_identities_reads_data(bootstrap: Plan) -> None:
    for role in bootstrap.of("project_iam_custom_role"):
        assert len(role.values["permissions"]) == len(set(role.values["permissions"])), role.address
        for permission in role.values["permissions"]:
            assert not re.search(r"objects\.|versions\.access|consume|\.login|\.connect|useTo|export", permission), (
                permission
            )


def test_an_apply_comes_from_main_behind_an_approval(bootstrap: Plan) -> None:
    pool = "iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/github"
    members = {g.name: g.values["member"] for g in bootstrap.of("service_account_iam_member")}
    assert members == {
        "apply": f"principalSet://{pool}/attribute.gate/prod@refs/heads/main",
        "hosting": f"principalSet://{pool}/attribute.gate/hosting@refs/heads/main",
        "plan": f"principal://{pool}/subject/repo:example/groundskeeper:pull_request",
        "plan_main": f"principalSet://{pool}/attribute.gate/prod-plan@refs/heads/main",
    }
    (provider,) = bootstrap.of("iam_workload_identity_pool_provider")
    gate = provider.values["attribute_mapping"]["attribute.gate"]
    assert gate == "(has(assertion.environment) ? assertion.environment : 'none') + '@' + assertion.ref"


def test_every_identity_of_github_is_bound_to_a_branch_or_a_kind_of_event(bootstrap: Plan) -> None:
    """An attribute of the whole repository would let any branch's workflow in."""
    for grant in bootstrap.of("service_account_iam_member"):
        assert grant.values["role"] == "roles/iam.workloadIdentityUser", grant.address
        member = grant.values["member"]
        assert re.search(r"/attribute\.gate/[a-z-]+@refs/heads/main$|/subject/repo:example/groundskeeper:\S+$", member)


def test_who_applies_can_grant_the_planes_roles_only(bootstrap: Plan) -> None:
    (grant,) = bootstrap.of("project_iam_member", "apply_policy")
    listed = set(re.findall(r'"(roles/[^"]+)"', grant.values["condition"][0]["expression"]))
    assert listed == ON_PROJECT | {"roles/cloudsql.instanceUser"}
