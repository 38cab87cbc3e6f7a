"""One throwaway task of each trigger kind, and some that end badly, written into a folder of their own."""

from pathlib import Path

_MANIFEST = """\
summary: A throwaway task of the tests.
owner: tests
triggers: [{triggers}]
run: {{kind: {kind}, memory_mb: 256, cpu: 1, timeout_s: 60{more}}}
uses: []
requires: []
tables: {{}}
must_succeed_within_s: 86400
"""

_MAIN = '''\
"""A throwaway task."""

from dataclasses import dataclass

from shared.errors import Partial, Refused, Retry, Unavailable
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    pass


def run(ctx: Context, params: Params) -> dict[str, int]:
    {body}


main = entrypoint(__file__, run)
'''

# name: (kind of run, triggers, more of run, body)
KINDS = {
    "at_two": ("function", '{cron: "0 2 * * *"}', "", 'return {"done": 1}'),
    "each_half_minute": (
        "function", "{every_s: 30}", "",
        'while ctx.tick():\n        ctx.count("ticks")\n    return dict(ctx.counts)',
    ),
    "on_message": ("function", "{topic: user-deleted}", "", 'return {"bytes": len(ctx.message.data)}'),
    "on_request": (
        "function", "{http: {path: '/api/v1/things/{id}', methods: [POST], auth: service}}",
        ", max_instances: 2, concurrency: 4", 'return {"path": len(ctx.request.path)}',
    ),
    "in_parts": ("job", '{cron: "30 3 * * *"}', ", tasks: 2, parallelism: 2", 'return {"part": ctx.shard}'),
}  # fmt: skip

ENDINGS = {
    "ends_failed": 'raise RuntimeError("a defect")',
    "ends_partial": 'raise Partial(["one"], {"done": 1})',
    "ends_retry": 'raise Retry("the world was not ready")',
    "ends_refused": 'raise Refused("bad input")',
    "ends_unavailable": 'raise Unavailable("no such part")',
    "ends_ok": 'return {"done": 1}',
}


def write(folder: Path, name: str, *, kind: str, triggers: str, more: str = "", body: str) -> None:
    """One task below `folder`."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "task.yaml").write_text(_MANIFEST.format(kind=kind, triggers=triggers, more=more))
    (place / "main.py").write_text(_MAIN.format(body=body))


def write_kinds(folder: Path) -> None:
    """One of each trigger kind."""
    for name, (kind, triggers, more, body) in KINDS.items():
        write(folder, name, kind=kind, triggers=triggers, more=more, body=body)


def write_endings(folder: Path, *names: str, kind: str = "function") -> None:
    """Tasks that end as their names say."""
    for name in names:
        write(folder, name, kind=kind, triggers='{cron: "0 2 * * *"}', body=ENDINGS[name])
