"""After the database was restored from a backup: the tombstones kept outside it say which accounts must go again."""

import re

from sqlalchemy import select, text

from shared import erasure
from shared.accounts import progress
from shared.accounts.deletion import TOMBSTONES
from shared.context import Context
from shared.schema import erasure as table

_NAME = re.compile(r"erasures/([0-9a-f]{64})\.json")
_PAGE = 5000


def replay(ctx: Context) -> None:
    """Bury every account whose tombstone is in the bucket, and begin the deletion of those that are back.

    Counts `tombstones_brought_back` and `accounts_back`.
    """
    key = ctx.secret(erasure.KEY)
    kept = {m[1] for stat in ctx.objects(TOMBSTONES).list("erasures/") if (m := _NAME.fullmatch(stat.name))}
    with ctx.begin() as connection:
        known = set(connection.execute(select(table.c.account_hash).where(table.c.erased_at.is_not(None))).scalars())
        for digest in sorted(kept - known):
            erasure.bury(connection, digest, ctx.clock.now())
    ctx.count("tombstones_brought_back", len(kept - known))
    after = ""
    while True:
        with ctx.begin() as connection:
            page = connection.execute(
                text("""
                    select account_id, firebase_uid from user_profile
                     where account_id > :after order by account_id limit :page"""),
                {"after": after, "page": _PAGE},
            ).all()
            back = erasure.among(connection, [row.account_id for row in page], key)
            for row in page:
                if row.account_id in back:
                    progress.begin(connection, row.account_id, row.firebase_uid, key, ctx.clock.now())
                    ctx.count("accounts_back")
        if len(page) < _PAGE:
            return
        after = page[-1].account_id
