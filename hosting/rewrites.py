"""Keeps the rewrites of hosting/firebase.json equal to the public http triggers of the task.yaml files.

    python -m hosting.rewrites            say whether they are equal (exit 1 and the difference if not)
    python -m hosting.rewrites --write    make them equal

A rewrite names the Cloud Run service, which bears its function's name. The region is no fact of this repository: the
deploy adds it. Hosting knows no methods and takes the first rewrite that matches, so a path belongs to one task and
the more exact path stands first.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.manifest import Http, Task, load_all
from shared.strict_yaml import ManifestError

FIREBASE_JSON = Path(__file__).resolve().parent / "firebase.json"

Rewrite = dict[str, Any]


def source(path: str) -> str:
    """The Hosting glob for the path of a trigger: `/x/{id}` is `/x/*`."""
    return re.sub(r"\{[^}]*\}", "*", path)


def rewrites(tasks: Iterable[Task]) -> list[Rewrite]:
    """What `hosting.rewrites` must be for `tasks`: [{source, run: {serviceId}}], the more exact first.

    Triggers with auth `service` are left out: their callers have an identity and use the service's own address.
    Raises ManifestError where two tasks claim one path.
    """
    owners: dict[str, Task] = {}
    for task in tasks:
        for trigger in task.triggers:
            if not isinstance(trigger, Http) or trigger.auth == "service":
                continue
            pattern = source(trigger.path)
            owner = owners.setdefault(pattern, task)
            if owner.name != task.name:
                raise ManifestError(
                    f"functions/{task.name}/task.yaml: triggers: {trigger.path} is also a path of "
                    f"{owner.name}, and Hosting sends a path to one service: change one of them"
                )
    return [{"source": pattern, "run": {"serviceId": owners[pattern].slug}} for pattern in sorted(owners, key=_vague)]


def _vague(pattern: str) -> tuple[tuple[int, str], ...]:
    """Sorts the exact before the vague, segment by segment."""
    return tuple((segment.count("*"), segment) for segment in pattern.split("/"))


def main(arguments: list[str]) -> int:
    document = json.loads(FIREBASE_JSON.read_text(encoding="utf-8"))
    wanted, found = rewrites(load_all().values()), document["hosting"]["rewrites"]
    if wanted == found:
        return 0
    if arguments == ["--write"]:
        document["hosting"]["rewrites"] = wanted
        FIREBASE_JSON.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return 0
    print(
        f"{FIREBASE_JSON.name}: hosting.rewrites are {json.dumps(found)}, the http triggers want "
        f"{json.dumps(wanted)}: run `python -m hosting.rewrites --write`",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
