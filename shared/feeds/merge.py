"""Into threat_intelligence: one COPY and one merge a copy, by canonical key; and scores that sink with age.

Each source keeps its own entry in `sources` (who says so, where to look, when it saw it last, how sure it is), so the
row always says why it is there. Sources are taken as independent witnesses: together they are as sure as
1 - (1 - a)(1 - b)…, 99 % at most each. No row is ever deleted: what nobody sees any more expires.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.context import Context
from shared.copying import copy, escaped
from shared.feeds.allowed import Allowed
from shared.feeds.formats import Bad, Record
from shared.feeds.indicators import Reader, Unfit
from shared.redaction import redact

# Kept of a copy's refused rows; the counts have them all.
_MOST_REJECTS = 1000
_LONGEST_CONTENT = 300
_LATELY = 1 << 15  # entries remembered while a copy is read: some 10 MB
_NEVER = (-1, "")

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d))?(?:\.\d+)?\s*(?:Z|UTC|([+-]\d\d:?\d\d))?")

_STAGE = text("""
create temporary table feed_stage (
  canonical_key text, indicator_type text, indicator text, confidence smallint, severity text, description text,
  sources jsonb, first_seen timestamptz, last_seen timestamptz, days int
) on commit drop
""")
_COLUMNS = (
    "canonical_key, indicator_type, indicator, confidence, severity, description, sources, first_seen, last_seen, days"
)

# A row that says nothing new is not written again; that it is still listed is noted once in `refresh`.
# MERGE and not INSERT … ON CONFLICT: it looks for conflicts once for all rows, which takes a third off the whole.
_MERGE = text("""
merge into threat_intelligence t
using (
  select distinct on (canonical_key)
         canonical_key, indicator_type, indicator, confidence, severity, description, sources, first_seen, last_seen,
         last_seen + days * interval '24 hours' as expires_at
    from feed_stage
   order by canonical_key, confidence desc, last_seen desc
) s
on t.canonical_key = s.canonical_key
when matched
 and (s.last_seen > t.last_seen + :refresh
      or not t.sources @> jsonb_build_array(
           jsonb_build_object('source', cast(:feed as text), 'confidence', s.confidence)))
then update
   set (confidence, base_confidence) = (
         select certainty, certainty
           from (
             select round(100 * (1 - exp(sum(ln(1 - least(cast(each as numeric), 99) / 100))))) as certainty
               from (
                 select e ->> 'confidence' from jsonb_array_elements(t.sources) e where e ->> 'source' <> :feed
                 union all
                 select cast(s.confidence as text)
               ) as all_of_them (each)
           ) as together
       ),
       sources = (
         select coalesce(jsonb_agg(e order by e ->> 'source'), '[]')
           from jsonb_array_elements(t.sources) e
          where e ->> 'source' <> :feed
       ) || s.sources,
       severity = coalesce(s.severity, t.severity),
       description = coalesce(t.description, s.description),
       first_seen = least(t.first_seen, s.first_seen),
       last_seen = greatest(t.last_seen, s.last_seen),
       expires_at = case when s.expires_at is not null then greatest(t.expires_at, s.expires_at) end
when not matched then
insert (
    canonical_key, indicator_type, indicator, confidence, base_confidence, severity, description, sources,
    first_seen, last_seen, expires_at, created_at
)
values (
    s.canonical_key, s.indicator_type, s.indicator, s.confidence, s.confidence, s.severity, s.description, s.sources,
    s.first_seen, s.last_seen, s.expires_at, :now
)
""")

# What this session has inserted: MERGE tells its rows together, and each kind from PostgreSQL 17 on only.
_INSERTED = text("select pg_stat_get_xact_tuples_inserted(cast('threat_intelligence' as regclass))")


@dataclass
class Tally:
    """What became of a copy's entries: each is exactly one of these."""

    accepted: int = 0
    unfit: int = 0
    allowed: int = 0
    rejects: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def entries(self) -> int:
        return self.accepted + self.unfit + self.allowed

    def refuse(self, number: int, reason: str, content: str, *, allowed: bool = False) -> None:
        """Note an entry that is not taken."""
        if allowed:
            self.allowed += 1
        else:
            self.unfit += 1
        if len(self.rejects) < _MOST_REJECTS:
            whole = content[:_LONGEST_CONTENT].encode("utf-8", "replace").decode()
            self.rejects.append((number, reason, redact(whole)))  # some list addresses of persons


class Judge(NamedTuple):
    """How entries of a feed become rows: by which reader, against which allow-list, how sure, for how long.

    `days` maps a kind to the days until a row of it expires, 0 for never. `current`: a list of what is so now, so that
    to stand on it is to be seen; without, an entry's own moment counts.
    """

    feed: str
    reader: Reader
    allowed: Allowed
    confidence: int
    days: dict[str, int]
    current: bool

    def lines(self, entries: Iterable[Record | Bad], now: datetime, tally: Tally) -> Iterator[str]:
        """Lines for COPY, one an accepted entry; the others go to `tally`.

        What says of an indicator again, lately, no more than was said is accepted without a line: the merge would
        keep the surest and latest alone.
        """
        stamp, source = now.isoformat(), _json(self.feed)
        read, covers, current, usual = self.reader.read, self.allowed.covers, self.current, self.confidence
        days = {kind: str(many) if many else _NULL for kind, many in self.days.items()}
        lately: dict[tuple[str | None, str], tuple[int, str]] = {}
        remembering, repeats = True, 0
        for entry in entries:
            if isinstance(entry, Bad):
                tally.refuse(*entry)
                continue
            number, given, kind, confidence, severity, description, reference, first_seen, last_seen = entry
            first = _moment(first_seen, now) if first_seen else None
            last = stamp if current else (_moment(last_seen, now) if last_seen else None) or first or stamp
            sure = usual if confidence is None else confidence
            if remembering and lately.get((kind, given), _NEVER) >= (sure, last):
                tally.accepted += 1
                repeats += 1
                continue
            try:
                indicator = read(given, kind)
            except Unfit as unfit:
                tally.refuse(number, str(unfit), given)
                continue
            if covers(indicator):
                tally.refuse(number, "on the allow-list", given, allowed=True)
                continue
            tally.accepted += 1
            if remembering:
                lately[kind, given] = sure, last
                if len(lately) == _LATELY:
                    remembering = repeats > _LATELY // 4  # with fewer it costs more than it saves
                    lately.clear()
                    repeats = 0
            name, value = indicator  # of signs that need no escape
            score = str(sure)
            yield (
                f"{name}:{value}\t{name}\t{value}\t{score}\t{_field(severity) if severity else _NULL}"
                f"\t{_field(description) if description else _NULL}"
                f'\t[{{"source":{source},"reference":{_json(reference) if reference else "null"}'
                f',"seen_at":"{last}","confidence":{score}}}]'
                f"\t{first if first and first < last else last}\t{last}\t{days.get(name, _NULL)}\n"
            )


_NULL = "\\N"
_NONE = "None"  # what abuse.ch's CSV says for nothing


@functools.lru_cache(maxsize=256)  # many entries are called the same
def _field(given: str | None) -> str:
    """A field of COPY's text format."""
    if not given or given == _NONE:
        return _NULL
    return given if given.isprintable() and "\\" not in given else escaped(_whole(given))


def _json(given: str | None) -> str:
    """A string in JSON, within a field of COPY's text format."""
    if not given or given == _NONE:
        return "null"
    plain = given.isprintable() and "\\" not in given and '"' not in given
    return f'"{given}"' if plain else escaped(json.dumps(_whole(given), ensure_ascii=False))


def _whole(given: str) -> str:
    """JSON may hold what no text of PostgreSQL does: halves of characters, and NUL."""
    return given.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


@functools.lru_cache(maxsize=4096)  # a feed's moments are often the same, to the second or the day
def _moment(given: str, now: datetime) -> str | None:
    """A moment as ISO 8601 in UTC, `now` for one to come, None for no moment. Where it names no zone it is UTC."""
    if not (found := _MOMENT.fullmatch(given.strip())):
        return None
    try:
        moment = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00:00'}{found[3] or '+00:00'}")
        return min(moment, now).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return None


def stage(connection: Connection, lines: Iterable[str]) -> int:
    """Load `lines` beside the table, for as long as the transaction lasts; how many."""
    connection.execute(_STAGE)
    return copy(connection, "feed_stage", _COLUMNS, lines)


def merge(connection: Connection, feed: str, *, now: datetime, refresh: timedelta) -> tuple[int, int]:
    """Merge what is staged; how many rows were written, and how many of them are new.

    Raises IntegrityError when somebody else adds one of them meanwhile.
    """
    before = connection.execute(_INSERTED).scalar_one()
    written = connection.execute(_MERGE, {"feed": feed, "now": now, "refresh": refresh}).rowcount
    return written, connection.execute(_INSERTED).scalar_one() - before


_REJECTED = text("delete from groundskeeper.feed_reject where feed = :feed")


def quarantine(connection: Connection, feed: str, tally: Tally, now: datetime) -> None:
    """Keep the first refused entries of this copy, with their reasons, in place of those of the copy before."""
    connection.execute(_REJECTED, {"feed": feed})
    unique = {number: (reason, content) for number, reason, content in tally.rejects}
    copy(
        connection,
        "groundskeeper.feed_reject",
        "feed, number, reason, content, rejected_at",
        (
            f"{escaped(feed)}\t{number}\t{escaped(reason)}\t{escaped(content)}\t{now.isoformat()}\n"
            for number, (reason, content) in unique.items()
        ),
    )


# --- age

# As MISP's decaying models do it: base * (1 - (t / lifetime) ^ (1 / speed)). Mokaddem et al., "Taxonomy driven
# indicator scoring in MISP threat intelligence platforms", arXiv:1902.03914
_AGE = text("""
update threat_intelligence t
   set confidence = a.score
  from (
    select id,
           case when expires_at <= :now then 0 else
             round(base_confidence * (1 - power(
               cast(greatest(extract(epoch from :now - last_seen), 0) as double precision)
                 / cast(extract(epoch from expires_at - last_seen) as double precision),
               1 / cast(:speed as double precision))))
           end as score
      from threat_intelligence
     where id > :after
       and id <= :upto
       and base_confidence is not null
       and expires_at > last_seen
  ) a
 where t.id = a.id
   and (abs(t.confidence - a.score) >= cast(:step as int) or (a.score = 0 and t.confidence <> 0))
""")
_LAST_ID = text("select coalesce(max(id), 0) from threat_intelligence")
_IDS = 100_000


def age(ctx: Context, *, speed: float, step: int) -> int:
    """Lower the scores of what was not seen lately, where that makes `step` points or all of it; how many rows."""
    with ctx.read() as connection:
        last = int(connection.execute(_LAST_ID).scalar_one())
    changed = 0
    for after in range(0, last, _IDS):
        with ctx.begin() as connection:
            done = connection.execute(
                _AGE, {"now": ctx.now, "after": after, "upto": after + _IDS, "speed": speed, "step": step}
            )
            changed += done.rowcount
        ctx.progress(after, last)
    return changed
