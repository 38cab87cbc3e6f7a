"""Laws over the plan: what is started when, by whom, and how often it is tried again."""

from shared.manifest import Cron, Every, Task, Topic
from tests.terraform.workspace import PROJECT, Plan

Tasks = dict[str, Task]


def expected(task: Task) -> list[str]:
    """The cron expressions of a task's schedules."""
    return [t.expression for t in task.triggers if isinstance(t, Cron)] + [
        "* * * * *" for t in task.triggers if isinstance(t, Every)
    ]


def owner(name: str, tasks: Tasks) -> Task:
    """The task a schedule is named after: its slug, with a number from the second on."""
    return next(t for t in tasks.values() if name == t.slug or name.rpartition("-")[0] == t.slug)


def test_schedules_are_exactly_those_declared_in_utc(plan: Plan, tasks: Tasks) -> None:
    planned: dict[str, list[str]] = {}
    for job in plan.of("cloud_scheduler_job"):
        assert job.values["time_zone"] == "Etc/UTC", job.address
        planned.setdefault(owner(job.values["name"], tasks).name, []).append(job.values["schedule"])
    declared = {name: sorted(expected(task)) for name, task in tasks.items() if expected(task)}
    assert {name: sorted(crons) for name, crons in planned.items()} == declared


def test_cleanup_is_at_two(real: Plan) -> None:
    assert {j.values["name"]: j.values["schedule"] for j in real.of("cloud_scheduler_job")}["db-cleanup"] == "0 2 * * *"


def test_functions_are_called_with_an_identity_token_and_jobs_with_an_access_token(plan: Plan, tasks: Tasks) -> None:
    for job in plan.of("cloud_scheduler_job"):
        (target,) = job.values["http_target"]
        scheduler = f"keeper-scheduler@{PROJECT}.iam.gserviceaccount.com"
        assert target["http_method"] == "POST", job.address
        assert target["headers"] == {"Content-Type": "application/json"}, job.address
        if owner(job.values["name"], tasks).run.kind == "function":
            assert [t["service_account_email"] for t in target["oidc_token"]] == [scheduler], job.address
            assert not target["oauth_token"], job.address
        else:
            assert [t["service_account_email"] for t in target["oauth_token"]] == [scheduler], job.address
            assert target["oauth_token"][0]["scope"] == "https://www.googleapis.com/auth/cloud-platform"
            assert not target["oidc_token"], job.address


def test_the_audience_of_a_token_is_the_address_it_is_sent_to(plan: Plan) -> None:
    """Both come from the same attribute of the function, which is known only once it is there."""
    unknown = {c["address"]: c["change"]["after_unknown"] for c in plan.document["resource_changes"]}
    for job in plan.of("cloud_scheduler_job"):
        if job.values["http_target"][0]["oidc_token"]:
            (target,) = unknown[f'google_cloud_scheduler_job.task["{job.key}"]']["http_target"]
            assert target["uri"] is True, job.address
            assert target["oidc_token"] == [{"audience": True}], job.address


def test_scheduler_waits_as_long_as_the_task_may_take(plan: Plan, tasks: Tasks) -> None:
    for job in plan.of("cloud_scheduler_job"):
        task, deadline = owner(job.values["name"], tasks), int(job.values["attempt_deadline"].rstrip("s"))
        assert 15 <= deadline <= 1800, job.address
        if task.run.kind == "function":
            assert deadline >= task.run.timeout_s, job.address


def test_a_slot_is_tried_again_unless_the_next_minute_brings_one(plan: Plan) -> None:
    for job in plan.of("cloud_scheduler_job"):
        (retry,) = job.values["retry_config"]
        assert retry["retry_count"] == (0 if job.values["schedule"] == "* * * * *" else 3), job.address
        assert int(retry["min_backoff_duration"].rstrip("s")) <= int(retry["max_backoff_duration"].rstrip("s"))


def test_no_schedule_is_paused_by_terraform(plan: Plan) -> None:
    """A pause is a row in the ledger; one of the schedule would come undone with the next apply."""
    assert not [j.address for j in plan.of("cloud_scheduler_job") if j.values.get("paused")]


def test_each_topic_a_task_listens_to_is_pushed_to_it(plan: Plan, tasks: Tasks) -> None:
    listening = {f"{t.slug}.{x.name}" for t in tasks.values() for x in t.triggers if isinstance(x, Topic)}
    draining = {f"{t.slug}.{topic}" for t in tasks.values() for topic in t.subscribes} - listening
    pushed = {s.key: s.values["push_config"] for s in plan.of("pubsub_subscription", "task")}
    assert {key for key, push in pushed.items() if push} == listening
    assert {key for key, push in pushed.items() if not push} == draining
    for key in listening:
        (token,) = pushed[key][0]["oidc_token"]
        assert token["service_account_email"] == f"keeper-pubsub@{PROJECT}.iam.gserviceaccount.com", key


def test_no_message_is_lost(plan: Plan, tasks: Tasks) -> None:
    """Dead letters have a topic with a subscription, and no subscription expires for being idle."""
    dead = {s.values["name"] for s in plan.of("pubsub_subscription", "dead")}
    agent = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    moves = {m.key for m in plan.of("pubsub_topic_iam_member", "dead") if m.values["member"] == agent}
    takes = {m.key for m in plan.of("pubsub_subscription_iam_member", "dead") if m.values["member"] == agent}
    for subscription in plan.of("pubsub_subscription"):
        assert subscription.values["expiration_policy"] == [{"ttl": ""}], subscription.address
    for subscription in plan.of("pubsub_subscription", "task"):
        (policy,) = subscription.values["dead_letter_policy"]
        assert 5 <= policy["max_delivery_attempts"] <= 100, subscription.address
        (retry,) = subscription.values["retry_policy"]
        assert (retry["minimum_backoff"], retry["maximum_backoff"]) == ("10s", "600s"), subscription.address
        assert f"{subscription.key}.dead" in dead
        assert subscription.key in moves
        assert subscription.key in takes
        task = next(t for t in tasks.values() if str(subscription.key).startswith(t.slug + "."))
        assert task.run.timeout_s <= subscription.values["ack_deadline_seconds"] <= 600, subscription.address


def test_topics_are_exactly_those_named(plan: Plan, tasks: Tasks) -> None:
    named = {
        topic
        for t in tasks.values()
        for topic in (*t.publishes, *t.subscribes, *(x.name for x in t.triggers if isinstance(x, Topic)))
    }
    assert {t.values["name"] for t in plan.of("pubsub_topic", "topic")} == named
