"""The way of every rotation: started, promoted, (grace,) disabled, destroyed; or rolled back.

A step is written down in one transaction after its effect outside, and each effect can be repeated: a run killed in
between repeats it. The secret's old version stays readable until the grace is over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.exc import DBAPIError

from shared import audit, plans
from shared.context import Context
from shared.database import ending_of
from shared.errors import Refused, Retry, Unavailable, Waiting
from shared.plans import Item, Plan
from shared.redaction import redact
from shared.rotation import record
from shared.rotation.record import Rotation
from shared.rotation.rotator import Rotator, Target
from shared.wording import counted

Rotators = Callable[[Target], Rotator]
_WORDS = (Refused, Retry, Unavailable)


@dataclass(frozen=True)
class Pace:
    """How long both values work, and how long the old one can be brought back after that."""

    grace: timedelta
    keep_disabled: timedelta


class Rotations:
    """One run's work on every target. `news` and `failed` say in words what happened, by secrets' names."""

    def __init__(self, ctx: Context, targets: Sequence[Target], rotator_of: Rotators, pace: Pace) -> None:
        self._ctx, self._rotator_of, self._pace = ctx, rotator_of, pace
        self._targets: Mapping[str, Target] = {target.secret: target for target in targets}
        self.news: list[str] = []
        self.failed: list[str] = []

    # --- asking

    def due(self, only: Sequence[str]) -> list[Target]:
        """What is to be rotated: what was not this calendar month, or what `only` names. Raises Refused."""
        if unknown := sorted(set(only) - set(self._targets)):
            raise Refused(f"no secret of rotate_secrets is called {', '.join(unknown)}: see its task.yaml")
        ctx, month = self._ctx, self._ctx.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        with ctx.read() as connection:
            begun = record.begun_since(connection, month, but_by=ctx.run_id)
            under_way = {r.secret for r in record.open_ones(connection) if r.run_id != ctx.run_id}
            refused = record.rejected_since(connection, ctx.task.name, month)
        if refused and not only and ctx.plan_hash is None:
            return []
        wanted = [t for name, t in self._targets.items() if (name in only if only else name not in begun)]
        return [target for target in wanted if target.secret not in under_way and self._configured(target)]

    def _configured(self, target: Target) -> bool:
        """Whether there is something to rotate; a token of our own can be made from nothing."""
        there = target.rotator == "generated" or self._ctx.secret_versions(target.secret).newest() is not None
        self._ctx.count("not_configured", int(not there))
        return there

    def approve(self, due: Sequence[Target]) -> None:
        """Return in the approved run of exactly `due`; otherwise ask, once, and end as waiting."""
        ctx = self._ctx
        if ctx.plan_hash is None and not ctx.planning:
            with ctx.read() as connection:
                asked = [a for a in plans.pending(connection, ctx.clock.now()) if a.task == ctx.task.name]
            if asked:
                raise Waiting(f"an approval is open: decide with `keeper approvals approve {asked[0].approval_id}`")
        ctx.await_approval(_plan(due), f"{counted(len(due), 'secret')} due to be rotated")

    # --- going on

    def begin(self, due: Sequence[Target]) -> None:
        """Write down a rotation of each, before anything is made."""
        ctx = self._ctx
        with ctx.read() as connection:
            mine = record.of_run(connection, ctx.run_id)
        for target in due:
            if target.secret not in mine:
                self._try(target.secret, partial(self._begin, target))

    def _begin(self, target: Target) -> None:
        ctx, secret = self._ctx, self._ctx.secret_versions(target.secret)
        newest = secret.newest()
        details = self._rotator_of(target).prepare(secret.get(str(newest)) if newest else None)
        with ctx.begin() as connection:
            record.begin(
                connection,
                secret=target.secret,
                rotator=target.rotator,
                run_id=ctx.run_id,
                old_version=newest,
                details={**details, "added_after": newest or 0},
                now=ctx.clock.now(),
            )
            ctx.count("begun")

    def advance(self) -> None:
        """Take every rotation under way as far as it can go now."""
        with self._ctx.read() as connection:
            under_way = record.open_ones(connection)
        for rotation in under_way:
            target = self._targets.get(rotation.secret)
            if target is None:
                self.failed.append(f"{rotation.secret}: a rotation is open but task.yaml does not name the secret")
                continue
            self._ctx.check()
            self._try(rotation.secret, partial(self._advance, rotation, target), rotation)

    def _try(self, name: str, act: Callable[[], None], rotation: Rotation | None = None) -> None:
        """One secret's trouble keeps no other from its rotation."""
        try:
            act()
        except _WORDS as error:
            words = redact(str(error))
        except DBAPIError as error:
            meant = ending_of(error)
            if meant is None:
                raise
            words = str(meant)
        else:
            return
        self.failed.append(f"{name}: {words}")
        if rotation is not None:
            with self._ctx.begin() as connection:
                record.complain(connection, rotation, words)

    def _advance(self, rotation: Rotation, target: Target) -> None:
        now = self._ctx.clock.now()
        if rotation.step == "started":
            self._promote(rotation, target)
        elif rotation.step == "promoted" and _since(rotation.promoted_at, now) >= self._pace.grace:
            self._disable(rotation, target)
        elif rotation.step == "disabled" and _since(rotation.disabled_at, now) >= self._pace.keep_disabled:
            self._destroy(rotation, target)

    def _promote(self, rotation: Rotation, target: Target) -> None:
        ctx, rotator = self._ctx, self._rotator_of(target)
        secret = ctx.secret_versions(target.secret)
        old = secret.get(rotation.old_version) if rotation.old_version else None
        made = rotator.create(secret, old, rotation.details)
        if made is None:
            ctx.count("awaiting_operator")
            self.news.append(f"{target.secret}: add the new value with `keeper secret add {target.secret}`")
            return
        details = {**rotation.details, **made.details}
        try:
            rotator.test(made.value, details)
        except (*_WORDS, DBAPIError):
            self._leave(replace(rotation, details=details), target, made.version)
            raise
        ctx.check()
        version = made.version or secret.add(made.value)
        self._move(rotation, "promoted", new_version=str(version), promoted_at=ctx.clock.now(), details=details)
        self.news.append(f"{target.secret}: version {version} is in use. {target.consumers}")

    def _leave(self, rotation: Rotation, target: Target, added: int | None) -> None:
        """The way back from a new value that did not pass its test: nobody was given it, but by an operator."""
        self._rotator_of(target).undo(rotation.details)
        secret = self._ctx.secret_versions(target.secret)
        if added is not None and rotation.old_version:
            secret.add(secret.get(rotation.old_version))  # `latest` is the newest version, not the newest good one
        self._move(rotation, "rolled_back", ended_at=self._ctx.clock.now())

    def _disable(self, rotation: Rotation, target: Target) -> None:
        ctx, rotator = self._ctx, self._rotator_of(target)
        secret = ctx.secret_versions(target.secret)
        value, version = secret.get(), int(rotation.new_version or 0)
        rotator.confirm(value, rotation.details)
        ctx.check()
        final = rotator.disable(value, rotation.details)
        if final is not None and final != value:
            version = secret.add(final)
        secret.set_older(version, "disabled")
        self._move(rotation, "disabled", new_version=str(version), disabled_at=ctx.clock.now())
        self.news.append(f"{target.secret}: the value before is disabled")

    def _destroy(self, rotation: Rotation, target: Target) -> None:
        self._rotator_of(target).destroy(rotation.details)
        self._ctx.secret_versions(target.secret).set_older(int(rotation.new_version or 0), "destroyed")
        self._move(rotation, "destroyed", ended_at=self._ctx.clock.now())
        self.news.append(f"{target.secret}: the value before is destroyed")

    # --- going back

    def back(self, names: Sequence[str]) -> None:
        """Bring the value before back for each of `names`. Raises Refused where none is under way."""
        with self._ctx.read() as connection:
            under_way = {rotation.secret: rotation for rotation in record.open_ones(connection)}
        for name in names:
            if name not in under_way or name not in self._targets:
                raise Refused(f"no rotation of {name} is under way: what is destroyed cannot come back")
            self._try(name, partial(self._back, under_way[name], self._targets[name]), under_way[name])

    def _back(self, rotation: Rotation, target: Target) -> None:
        rotator, secret = self._rotator_of(target), self._ctx.secret_versions(target.secret)
        if rotation.step == "disabled":
            rotator.revive(rotation.details)
            if rotation.old_version:
                secret.store.enable(secret.name, int(rotation.old_version))
        if rotation.step != "started" and rotation.old_version:
            again = secret.add(secret.get(rotation.old_version))
            secret.store.disable(secret.name, int(rotation.new_version or 0))
            self.news.append(f"{target.secret}: went back; version {again} is the value before. {target.consumers}")
        rotator.undo(rotation.details)
        self._move(rotation, "rolled_back", ended_at=self._ctx.clock.now())

    def _move(self, rotation: Rotation, step: str, **values: object) -> None:
        ctx = self._ctx
        with ctx.begin() as connection:
            record.move(connection, rotation, step, **values)
            audit.record(
                connection,
                actor=ctx.actor,
                action="rotate_secret",
                subject=rotation.secret,
                why=None,
                now=ctx.clock.now(),
                details={"step": step, "run_id": str(ctx.run_id), "rotation": str(rotation.rotation_id)},
            )
            ctx.count(step)


def _since(moment: datetime | None, now: datetime) -> timedelta:
    return now - moment if moment else timedelta(0)


def _plan(due: Sequence[Target]) -> Plan:
    return Plan(
        items=tuple(Item(t.secret, 1, "secrets", f"{t.rotator}: {t.consumers}") for t in due),
        predicates={"secrets": sorted(f"{t.secret} {t.rotator}" for t in due)},
        notes=("the value before works until the grace is over, and can be brought back until it is destroyed",),
    )
