"""Where an account's data is: every table, how its rows are told, and what happens to them.

A test walks every table there is and finds none that could name an account and is not here (or explained there).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared import holds
from shared.errors import Refused
from shared.holds import Hold
from shared.wording import counted

_OWN = "t.account_id = :account"
_PAYLOAD = "t.payload ->> 'account_id' = :account"
# Stripe's customers of the account: the profile's, and those that Checkout sessions gave to it, unless another
# account's profile has one of them by now.
_CUSTOMERS = """
    select p.stripe_customer_id as customer_id
      from user_profile p
     where p.account_id = :account
       and p.stripe_customer_id is not null
     union
    select b.customer_id
      from groundskeeper.billing_customer b
     where b.account_id = :account
       and not exists (select 1 from user_profile p
                        where p.stripe_customer_id = b.customer_id and p.account_id <> :account)"""
_CUSTOMER = f"t.account_id = :account or t.customer_id in ({_CUSTOMERS})"


@dataclass(frozen=True)
class Store:
    """A table; `match` is SQL about its row t and :account."""

    table: str
    key: tuple[str, ...]
    match: str = _OWN

    @property
    def _keys(self) -> str:
        return ", ".join(f"t.{column}" for column in self.key)

    def count(self, connection: Connection, account: str) -> int:
        """How many rows are the account's."""
        found: int = connection.execute(
            text(f"select count(*) from {self.table} t where {self.match}"), {"account": account}
        ).scalar_one()
        return found

    def delete(self, connection: Connection, account: str, limit: int | None) -> int:
        """Delete at most `limit` of the account's rows, None: all; how many."""
        keys = ", ".join(self.key)
        return connection.execute(
            text(
                f"delete from {self.table} d where ({keys}) in"
                f" (select {self._keys} from {self.table} t where {self.match} limit cast(:limit as bigint))"
            ),
            {"account": account, "limit": limit},
        ).rowcount

    def restored(self, connection: Connection, account: str, run_id: str, names: Iterable[str]) -> bool:
        """Whether rows of the account are held because a restore of `run_id` into one of `names` brought them back."""
        return bool(
            connection.execute(
                text(
                    f"select exists (select from groundskeeper.restored_row w join {self.table} t"
                    f" on w.key = cast(row({self._keys}) as text)"
                    " where w.run_id = cast(:run as uuid) and w.source = any(:names) and (" + self.match + "))"
                ),
                {"account": account, "run": run_id, "names": sorted(names)},
            ).scalar_one()
        )


# Rows that go, those that others hang on last. Credentials first: what opens other people's systems goes soonest.
STORES = (
    Store("integration_credential", ("id",)),
    Store("endpoints", ("last_tested", "id")),
    Store("aggregated_analytics", ("id",)),
    Store("service_forecast", ("service_id",)),
    Store("lighthouse_scan", ("id",)),
    Store("incident", ("id",)),
    Store("audit_log", ("id",)),
    Store("outbox_event", ("id",), _PAYLOAD),
    Store("groundskeeper.outbox", ("id",), _PAYLOAD),
    Store("groundskeeper.billing_event", ("event_id",), _CUSTOMER),
    Store("groundskeeper.billing_grant", ("account_id",)),
    Store("groundskeeper.billing_customer", ("customer_id",), _CUSTOMER),
    Store("monitored_service", ("id",)),
    Store("status_page", ("id",)),
)
PROFILE = Store("user_profile", ("account_id",))

# Reports are the system of record and stay; what tells who reported is emptied.
REPORTS: Mapping[Store, tuple[str, ...]] = {
    Store("bug_report", ("id",)): ("account_id", "reporter_email", "ip_address", "user_agent"),
    Store("threat_report", ("id",)): ("account_id", "reporter_email", "ip_address"),
}

# A row of `child` hangs on one of `parent` by `column`, and goes or changes with it.
HANGING = (
    ("aggregated_analytics", "service_id", "monitored_service"),
    ("incident", "service_id", "monitored_service"),
    ("lighthouse_scan", "status_page_id", "status_page"),
    ("monitored_service", "status_page_id", "status_page"),
    ("service_forecast", "service_id", "monitored_service"),
)


def customers(connection: Connection, account: str) -> list[str]:
    """The account's customers at Stripe."""
    return list(connection.execute(text(f"{_CUSTOMERS} order by 1"), {"account": account}).scalars())


class Held(Refused):
    """A legal hold covers something of the account: nothing more of it is deleted."""


def empty_reports(connection: Connection, account: str) -> dict[str, int]:
    """Take the link and the personal columns out of the account's reports; how many by table."""
    return {
        store.table: connection.execute(
            text(f"update {store.table} t set {', '.join(f'{c} = null' for c in columns)} where {store.match}"),
            {"account": account},
        ).rowcount
        for store, columns in REPORTS.items()
    }


def check_holds(connection: Connection, found: Sequence[Hold], account: str) -> None:
    """Raises Held when one of the holds `found` covers the account, or rows of it."""
    stores = (*STORES, PROFILE, *REPORTS)
    names = holds.called(connection, [store.table for store in stores]) if found else {}
    for hold in found:
        about = [store for store in stores if hold.table is None or hold.table in names[store.table]]
        if hold.run_id is not None:
            run = str(hold.run_id)
            covers = any(store.restored(connection, account, run, names[store.table]) for store in about)
        elif hold.account is not None:
            covers = hold.account == account
        else:
            covers = hold.table is None or any(store.count(connection, account) for store in about)
        if covers:
            raise Held(f"legal hold {hold.hold_id} covers this account: `keeper hold list` shows why")


def check_neighbours(connection: Connection, account: str) -> None:
    """Raises Refused when rows of another account hang on this one's, and would go with them."""
    for child, column, parent in HANGING:
        others: int = connection.execute(
            text(
                f"select count(*) from {child} c join {parent} p on p.id = c.{column}"
                " where p.account_id = :account and c.account_id is distinct from :account"
            ),
            {"account": account},
        ).scalar_one()
        if others:
            raise Refused(
                f"{counted(others, 'row')} of other accounts in {child}, hanging on this one's {parent}: "
                "give them a parent of their own account first"
            )
