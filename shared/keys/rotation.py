"""Rotate the data keys while the application goes on reading and writing.

Each step is one transaction and can be repeated: a run killed anywhere is gone on with by the next. At no moment is
there a row whose key is not there: a row and its key's number change together, and a key goes only when no row and
no backup can need it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared import audit, holds
from shared.context import Context
from shared.errors import Partial
from shared.keys.data_keys import (
    Credential,
    DataKeys,
    Key,
    activate,
    active,
    credentials,
    destroy,
    keys,
    retire,
    rewrap,
)
from shared.keys.kms import Kms, Unreadable
from shared.keys.sealing import Sealed, identity_of
from shared.keys.survey import Survey, archived, held, look
from shared.plans import Item, Plan
from shared.wording import counted

_BATCH = 500
# Rows a pass leaves were written meanwhile by code that does not know this library; more passes than this, and it
# writes faster than we read.
_PASSES = 3


@dataclass(frozen=True)
class Rules:
    """When a key is replaced and how long the replaced one is kept."""

    max_age: timedelta
    keep: timedelta
    always: bool  # a new key even if the active one is young

    def due(self, survey: Survey, now: datetime) -> bool:
        """Whether a new key is to be made. One that was made since this run began is this run's own."""
        made_by_this_run = survey.active is not None and survey.active.created_at >= now
        return not made_by_this_run and (self.always or survey.too_old(now, self.max_age))


def plan(survey: Survey, rules: Rules, *, now: datetime, kept: str | None) -> Plan:
    """What a rotation would do; `kept` is why no key may be destroyed, if so."""
    due = rules.due(survey, now)
    old = () if kept else survey.retired_before(now - rules.keep)
    items = [
        Item("integration_credential", survey.rows if due else survey.on_older_keys, "credentials", "sealed anew"),
        Item("data_encryption_key", int(due), "new_keys", "takes the active one's place"),
        Item("data_encryption_key", len(survey.to_rewrap), "rewrapped_keys", "wrapped by an older version of the KEK"),
        Item("data_encryption_key", len(old), "destroyed_keys", "sealing nothing, and older than any backup"),
    ]
    return Plan(
        items=tuple(item for item in items if item.count),
        predicates={
            "new_key": "always" if rules.always else f"older than {counted(rules.max_age.days, 'day')}",
            "destroyed": f"retired at or before {(now - rules.keep).isoformat()}",
        },
        notes=(
            "no undo: what a destroyed key sealed is gone for ever",
            *([f"no key is destroyed: {kept}"] * bool(kept)),
        ),
    )


class Rotation:
    """One run's rotation of the keys wrapped by `kms`."""

    def __init__(self, ctx: Context, kms: Kms, rules: Rules) -> None:
        self._ctx, self._kms, self._rules = ctx, kms, rules
        self._keys = DataKeys(kms)
        self._unreadable: set[int] = set()

    def run(self) -> None:
        """Plan, ask, and do what is due. Raises Partial when rows do not open; they are left as they are."""
        ctx = self._ctx
        primary = self._kms.primary()
        with ctx.read() as connection:
            survey = look(connection, primary)
            kept = _kept(connection, ctx)
        ctx.authorize(plan(survey, self._rules, now=ctx.now, kept=kept))
        for name in ("keys_made", "keys_rewrapped", "keys_retired", "keys_destroyed", "resealed", "verified"):
            ctx.count(name, 0)
        if self._rules.due(survey, ctx.now):
            self._make()
        self._rewrap(primary)
        left = self._reseal()
        self._verify()
        if not self._unreadable:
            self._retire()
        self._destroy()
        failed = [f"integration_credential {row_id} does not open" for row_id in sorted(self._unreadable)]
        if left:
            failed.append(
                f"{counted(left, 'row')} sealed with an older key: they are written faster than they can be sealed anew"
            )
        if failed:
            raise Partial(failed, ctx.counts)

    def _audit(self, connection: Connection, action: str, key_id: int) -> None:
        ctx = self._ctx
        audit.record(
            connection,
            actor=ctx.actor,
            action=action,
            subject=f"data_encryption_key {key_id}",
            why=None,
            now=ctx.clock.now(),
            details={"run_id": str(ctx.run_id)},
        )

    def _make(self) -> None:
        ctx = self._ctx
        wrapped, kek = self._keys.new()
        with ctx.begin(lock_timeout_ms=30_000) as connection:
            # not before the run's own moment, whatever this machine's clock says: a resumed attempt knows it by that
            made = activate(connection, wrapped, kek, now=max(ctx.now, ctx.clock.now()))
            self._audit(connection, "make_key", made)
            ctx.count("keys_made")

    def _rewrap(self, primary: str) -> None:
        ctx = self._ctx
        with ctx.read() as connection:
            due = look(connection, primary).to_rewrap
        for key in due:
            plain = self._keys.plain(key)
            wrapped, kek = self._kms.wrap(plain)
            if self._kms.unwrap(wrapped) != plain:
                raise Unreadable(f"the KMS gave back another key than data key {key.id}")
            with ctx.begin() as connection:
                if rewrap(connection, key, wrapped, kek):
                    self._audit(connection, "rewrap_key", key.id)
                    ctx.count("keys_rewrapped")

    # --- rows

    def _reseal(self) -> int:
        """Seal every row with the active key; how many were left on another by somebody else."""
        ctx = self._ctx
        with ctx.read() as connection:
            target, known = active(connection), {key.id: key for key in keys(connection)}
        if target is None:
            return 0
        for _ in range(_PASSES):
            after, seen = 0, 0
            while True:
                with ctx.read() as connection:
                    rows = credentials(connection, after=after, limit=_BATCH, not_by=target.id)
                if not rows:
                    break
                rows, after = [row for row in rows if row.id not in self._unreadable], rows[-1].id
                seen += len(rows)
                self._swap(target, [(row, new) for row in rows if (new := self._sealed(known, target, row))])
                ctx.progress(ctx.counts["resealed"], None)
            if not seen:
                return 0
        with ctx.read() as connection:
            left = credentials(connection, after=0, limit=_BATCH, not_by=target.id)
        return len([row for row in left if row.id not in self._unreadable])

    def _open(self, known: dict[int, Key], row: Credential) -> bytes | None:
        """The row's value; None, and remembered, when it does not open."""
        try:
            key = known[row.dek_id]
            return key.format.open(self._keys.plain(key), row.sealed, identity_of(row.account_id, row.provider))
        except Unreadable:
            self._unreadable.add(row.id)
            return None

    def _sealed(self, known: dict[int, Key], target: Key, row: Credential) -> Sealed | None:
        plain = self._open(known, row)
        if plain is None:
            return None
        return target.format.seal(self._keys.plain(target), plain, identity_of(row.account_id, row.provider))

    def _swap(self, target: Key, pairs: list[tuple[Credential, Sealed]]) -> None:
        """Put each row's new form in the place of exactly the one that was read."""
        if not pairs:
            return
        with self._ctx.begin() as connection:
            done = connection.execute(
                text("""
                    update integration_credential as c
                       set dek_id = :dek, nonce = n.nonce, ciphertext = n.ciphertext, generation = c.generation + 1
                      from unnest(cast(:ids as bigint[]), cast(:generations as integer[]), cast(:before as bigint[]),
                                  cast(:nonces as bytea[]), cast(:ciphertexts as bytea[]))
                        as n (id, generation, dek_id, nonce, ciphertext)
                     where c.id = n.id and c.generation = n.generation and c.dek_id = n.dek_id"""),
                {
                    "dek": target.id,
                    "ids": [row.id for row, _ in pairs],
                    "generations": [row.generation for row, _ in pairs],
                    "before": [row.dek_id for row, _ in pairs],
                    "nonces": [new.nonce for _, new in pairs],
                    "ciphertexts": [new.ciphertext for _, new in pairs],
                },
            )
            self._ctx.count("resealed", done.rowcount)

    def _verify(self) -> None:
        """Open every row there is, as its reader would."""
        ctx = self._ctx
        after, verified = 0, 0
        while True:
            ctx.check()
            with ctx.read() as connection:
                rows = credentials(connection, after=after, limit=_BATCH)
                known = {key.id: key for key in keys(connection)}
            if not rows:
                break
            after = rows[-1].id
            verified += sum(self._open(known, row) is not None for row in rows)
        ctx.count("verified", verified - ctx.counts["verified"])

    # --- old keys

    def _retire(self) -> None:
        ctx = self._ctx
        with ctx.read() as connection:
            retiring = [key for key in keys(connection) if key.state == "retiring"]
        for key in retiring:
            with ctx.begin(lock_timeout_ms=30_000) as connection:
                if retire(connection, key.id, now=ctx.clock.now()):
                    self._audit(connection, "retire_key", key.id)
                    ctx.count("keys_retired")

    def _destroy(self) -> None:
        ctx, before = self._ctx, self._ctx.now - self._rules.keep
        with ctx.read() as connection:
            due = look(connection, "").retired_before(before)
        for key in due:
            with ctx.begin(lock_timeout_ms=30_000) as connection:
                if _kept(connection, ctx):
                    return
                if destroy(connection, key.id, retired_before=before, now=ctx.clock.now()):
                    self._audit(connection, "destroy_key", key.id)
                    ctx.count("keys_destroyed")


def _kept(connection: Connection, ctx: Context) -> str | None:
    """Why no key may be destroyed now; None: nothing stands against it."""
    now = ctx.clock.now()
    if held(holds.in_force(connection, now)):
        return "a legal hold is in force"
    return "an archive that has not expired holds credentials" if archived(connection, now) else None
