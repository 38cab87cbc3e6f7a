"""Manual grants: tiers that operators gave by hand. Each is on record, so that no subscription's end ends it too.

A grant given elsewhere (tier above free, no Stripe customer) is put on record by the nightly sweep. Giving and ending
are in the operators' audit.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from shared import audit, outbox
from shared.billing.accounts import TOPIC, Profile, locked
from shared.billing.tiers import TIERS
from shared.errors import Refused


@dataclass(frozen=True)
class Grant:
    """A grant in force. `recorded_at` None: given elsewhere, and not on record before the next sweep."""

    account_id: str
    tier: str
    recorded_at: datetime | None
    subscribed: bool


_IN_FORCE = text("""
    select p.account_id, coalesce(g.tier, p.tier), g.recorded_at, p.stripe_subscription_id is not null
      from user_profile p
      left join groundskeeper.billing_grant g on g.account_id = p.account_id and g.ended_at is null
     where g.account_id is not null
        or (p.tier <> :free and p.stripe_customer_id is null)
     order by p.account_id""")

_RECORD = text("""
    insert into groundskeeper.billing_grant as g (account_id, tier, recorded_at)
    values (:account, :tier, :now)
    on conflict (account_id) do update
       set tier = excluded.tier, recorded_at = excluded.recorded_at, ended_at = null
     where g.ended_at is not null""")

_END = text("""
    insert into groundskeeper.billing_grant (account_id, tier, recorded_at, ended_at)
    values (:account, :tier, :now, :now)
    on conflict (account_id) do update set ended_at = excluded.ended_at""")

_OPEN = text("select true from groundskeeper.billing_grant where account_id = :account and ended_at is null")

_TIER = text("update user_profile set tier = :tier, updated_at = :now where account_id = :account")

# What somebody gave or took away elsewhere. An account with a customer is left alone: its tier may be bought.
_GIVEN_ELSEWHERE = text("""
    insert into groundskeeper.billing_grant as g (account_id, tier, recorded_at)
    select account_id, tier, :now
      from user_profile
     where tier <> :free
       and stripe_customer_id is null
    on conflict (account_id) do update
       set tier = excluded.tier, recorded_at = excluded.recorded_at, ended_at = null
     where g.ended_at is not null""")

_TAKEN_ELSEWHERE = text("""
    update groundskeeper.billing_grant g
       set ended_at = :now
      from user_profile p
     where p.account_id = g.account_id
       and g.ended_at is null
       and p.tier = :free
       and p.stripe_customer_id is null""")


def in_force(connection: Connection) -> list[Grant]:
    """Every grant in force, by account."""
    return [Grant(*row) for row in connection.execute(_IN_FORCE, {"free": TIERS[0]})]


def give(connection: Connection, account_id: str, *, by: str, why: str, now: datetime) -> None:
    """Give the account the best tier for good. Raises Refused where there is no such account, or it is granted."""
    profile = _profile(connection, account_id)
    if not connection.execute(_RECORD, {"account": account_id, "tier": TIERS[-1], "now": now}).rowcount:
        raise Refused(f"account {account_id} has a grant already: `keeper grant list` shows it")
    _become(connection, profile, TIERS[-1], cause="granted", now=now)
    audit.record(connection, actor=by, action="grant", subject=account_id, why=why, now=now)


def end(connection: Connection, account_id: str, *, by: str, why: str, now: datetime) -> str:
    """End the account's grant; the tier it has now, which is that of its subscription. Raises Refused without one."""
    profile = _profile(connection, account_id)
    unrecorded = profile.tier != TIERS[0] and profile.customer_id is None
    if not unrecorded and connection.execute(_OPEN, {"account": account_id}).scalar() is None:
        raise Refused(f"account {account_id} has no grant: `keeper grant list` shows who has")
    connection.execute(_END, {"account": account_id, "tier": profile.tier, "now": now})
    # A subscription is shown only while it gives its tier.
    tier = profile.tier if profile.subscription_id is not None else TIERS[0]
    _become(connection, profile, tier, cause="grant ended", now=now)
    audit.record(connection, actor=by, action="end_grant", subject=account_id, why=why, now=now)
    return tier


def note(connection: Connection, now: datetime) -> tuple[int, int]:
    """Put on record what was given and taken away elsewhere since the last time; how many of each."""
    binds = {"free": TIERS[0], "now": now}
    return connection.execute(_GIVEN_ELSEWHERE, binds).rowcount, connection.execute(_TAKEN_ELSEWHERE, binds).rowcount


def _profile(connection: Connection, account_id: str) -> Profile:
    if (profile := locked(connection, account_id)) is None:
        raise Refused(f"there is no account {account_id!r}: give the id as user_profile.account_id has it")
    return profile


def _become(connection: Connection, profile: Profile, tier: str, *, cause: str, now: datetime) -> None:
    if tier == profile.tier:
        return
    connection.execute(_TIER, {"account": profile.account_id, "tier": tier, "now": now})
    outbox.publish(
        connection,
        topic=TOPIC,
        kind="account.tier_changed",
        data={"from": profile.tier, "to": tier, "cause": cause},
        account_id=profile.account_id,
        ordering_key=profile.account_id,
        now=now,
    )
