"""The formats feeds come in, each as its publisher documents it: a stream of bytes into records, one by one.

Columns are found by their names, wherever they stand. A record that cannot be read is `Bad`, with the reason, and
costs nobody else; a copy whose shape is another than documented is `Malformed` as a whole.
"""

import csv
import functools
import io
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

from shared.wording import counted

_LONGEST_LINE = 65536


class Malformed(Exception):
    """The copy is not of its format. The message names what is missing, never what came."""


class Record(NamedTuple):
    """One entry of a feed, as it came. Moments are text; `kind` as shared/feeds/indicators.py names it, or None."""

    number: int
    text: str
    kind: str | None = None
    confidence: int | None = None
    severity: str | None = None
    description: str | None = None
    reference: str | None = None
    first_seen: str | None = None
    last_seen: str | None = None


_record = functools.partial(tuple.__new__, Record)  # a third of the time of Record(…)


class Bad(NamedTuple):
    """An entry nobody can read."""

    number: int
    reason: str
    content: str


Entries = Iterator[Record | Bad]

_COLUMNS = frozenset(Record._fields) - {"number"}


def plain_list(body: IO[bytes], _columns: Mapping[str, str]) -> Entries:
    """One indicator a line; comments after # or ;, and behind the indicator."""
    for number, raw in enumerate(_lines(body), 1):
        words = raw.split(None, 1)
        if words and words[0][0] not in "#;":
            yield Record(number, words[0])


def table(body: IO[bytes], columns: Mapping[str, str]) -> Entries:
    """CSV with a header, as the first line or, as abuse.ch writes it, the last comment before the rows.

    `columns` maps fields of Record to the header's names; `text` is required.
    """
    if unknown := set(columns) - _COLUMNS:
        raise ValueError(f"columns: {', '.join(sorted(unknown))}: known are {', '.join(sorted(_COLUMNS))}")
    lines, names, first = _lines(body), None, None
    for line in lines:
        if not line.strip():
            continue
        if line[0] != "#":
            first = line
            break
        if columns["text"] in (found := _header(line.lstrip("# \t"))):
            names = found
    if names is None and first is not None:
        names, first = _header(first), None
    if names is None:
        return
    if missing := [name for name in columns.values() if name not in names]:
        raise Malformed(f"no column {', '.join(missing)}: {len(names)} others")
    yield from _rows(lines, first, {field: names.index(name) for field, name in columns.items()}, len(names))


def _header(line: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([line], skipinitialspace=True), [])]


def _rows(lines: Iterator[str], first: str | None, places: dict[str, int], width: int) -> Entries:
    given = itertools.chain([] if first is None else [first], lines)
    rows = csv.reader(itertools.filterfalse(operator.methodcaller("startswith", "#"), given), skipinitialspace=True)
    # a column that is not there is the one after the last, which is always empty
    pick = operator.itemgetter(*(places.get(field, width) for field in Record._fields[1:]))
    number = 0
    while True:
        try:
            for row in rows:
                number += 1
                if len(row) == width:
                    row.append("")
                    text, kind, confidence, severity, description, reference, first_seen, last_seen = pick(row)
                    yield _record((
                        number, text, _KINDS.get(kind, kind) if kind else None, _score(confidence), severity,
                        description, reference, first_seen, last_seen,
                    ))  # fmt: skip
                elif row:
                    yield Bad(number, f"{counted(len(row), 'column')} instead of {width}", ",".join(row))
            return
        except csv.Error:
            number += 1
            yield Bad(number, "not CSV", "")


def threatfox(body: IO[bytes], _columns: Mapping[str, str]) -> Entries:
    """ThreatFox's export: an object of id -> list of indicators. https://threatfox.abuse.ch/export/"""
    document = _object(body)
    number = 0
    for identifier, entries in document.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            number += 1
            if not isinstance(entry, dict) or not isinstance(entry.get("ioc_value"), str):
                yield Bad(number, "no ioc_value", str(identifier))
                continue
            kind = _THREATFOX.get(str(entry.get("ioc_type")))
            if kind is None:
                yield Bad(number, "a type nobody here knows", str(entry.get("ioc_type")))
                continue
            yield Record(
                number,
                entry["ioc_value"],
                kind,
                _percent(entry.get("confidence_level")),
                None,
                _joined(entry.get("malware_printable"), entry.get("threat_type")),
                f"https://threatfox.abuse.ch/ioc/{identifier}/",
                entry.get("first_seen_utc"),
                entry.get("last_seen_utc"),
            )


_THREATFOX = {
    "ip:port": "ip_port",
    "domain": "domain",
    "url": "url",
    "md5_hash": "hash",
    "sha1_hash": "hash",
    "sha256_hash": "hash",
}


def feodo(body: IO[bytes], _columns: Mapping[str, str]) -> Entries:
    """Feodo Tracker's list of botnet controllers. https://feodotracker.abuse.ch/blocklist/"""
    for number, entry in enumerate(_array(_document(body), "the list"), 1):
        address, port = entry.get("ip_address"), entry.get("port")
        if not isinstance(address, str):
            yield Bad(number, "no ip_address", "")
            continue
        text = f"{address}:{port}" if isinstance(port, int) else address
        yield Record(
            number,
            text,
            None,
            None,
            "critical" if entry.get("status") == "online" else None,
            _joined(entry.get("malware"), "botnet controller"),
            None,
            entry.get("first_seen"),
            entry.get("last_online"),
        )


def kev(body: IO[bytes], _columns: Mapping[str, str]) -> Entries:
    """CISA's catalogue of known exploited vulnerabilities. https://www.cisa.gov/known-exploited-vulnerabilities-catalog"""
    document = _object(body)
    entries = _array(document.get("vulnerabilities"), "vulnerabilities")
    if isinstance(document.get("count"), int) and document["count"] != len(entries):
        raise Malformed(f"says {document['count']} vulnerabilities and has {len(entries)}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry.get("cveID"), str):
            yield Bad(number, "no cveID", "")
            continue
        ransomware = entry.get("knownRansomwareCampaignUse") == "Known"
        yield Record(
            number,
            entry["cveID"],
            "cve",
            None,
            "critical" if ransomware else "high",
            _joined(entry.get("vendorProject"), entry.get("product"), entry.get("vulnerabilityName")),
            f"https://nvd.nist.gov/vuln/detail/{entry['cveID']}",
            entry.get("dateAdded"),
            None,
        )


def otx(body: IO[bytes], _columns: Mapping[str, str]) -> Entries:
    """A page of OTX's subscribed pulses. https://otx.alienvault.com/api"""
    number = 0
    for pulse in _array(_object(body).get("results"), "results"):
        for entry in _array(pulse.get("indicators"), "indicators"):
            number += 1
            kind = _OTX.get(str(entry.get("type")))
            if kind is None or not isinstance(entry.get("indicator"), str):
                yield Bad(number, "a type nobody here knows", str(entry.get("type")))
                continue
            yield Record(
                number,
                entry["indicator"],
                kind,
                None,
                None,
                _joined(pulse.get("name")),
                f"https://otx.alienvault.com/pulse/{pulse.get('id')}",
                entry.get("created"),
                pulse.get("modified"),
            )


_OTX = {
    "IPv4": "ip",
    "IPv6": "ip",
    "domain": "domain",
    "hostname": "domain",
    "URL": "url",
    "URI": "url",
    "CIDR": "cidr",
    "FileHash-MD5": "hash",
    "FileHash-SHA1": "hash",
    "FileHash-SHA256": "hash",
    "CVE": "cve",
}


_KINDS = {**_THREATFOX, **_OTX}  # what publishers call them in a column


def abuseipdb(body: IO[bytes], _columns: Mapping[str, str]) -> Entries:
    """AbuseIPDB's blacklist. https://docs.abuseipdb.com/#blacklist-endpoint"""
    for number, entry in enumerate(_array(_object(body).get("data"), "data"), 1):
        if not isinstance(entry.get("ipAddress"), str):
            yield Bad(number, "no ipAddress", "")
            continue
        score = _percent(entry.get("abuseConfidenceScore"))
        yield Record(
            number, entry["ipAddress"], "ip", score, None, "reported for abuse", None, None, entry.get("lastReportedAt")
        )


FORMATS: dict[str, Callable[[IO[bytes], Mapping[str, str]], Entries]] = {
    "list": plain_list,
    "csv": table,
    "threatfox": threatfox,
    "feodo": feodo,
    "kev": kev,
    "otx": otx,
    "abuseipdb": abuseipdb,
}


# --- parts


def _lines(body: IO[bytes]) -> Iterator[str]:
    # what is longer is no entry, and is counted as such
    cut = operator.itemgetter(slice(_LONGEST_LINE))
    return map(cut, io.TextIOWrapper(body, encoding="utf-8-sig", errors="replace", newline=""))


def _document(body: IO[bytes]) -> Any:
    try:
        return json.load(body)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None


def _object(body: IO[bytes]) -> dict[str, Any]:
    document = _document(body)
    if not isinstance(document, dict):
        raise Malformed("not a JSON object")
    return document


def _array(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Malformed(f"{name} is not a list")
    return [entry if isinstance(entry, dict) else {} for entry in value]


def _percent(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,3}\s*%?", value):
        value = int(value.strip(" %"))
    return min(100, max(0, value)) if isinstance(value, int) and not isinstance(value, bool) else None


_score = functools.lru_cache(maxsize=1024)(_percent)  # for a table's cells: there are few scores, and many rows


def _joined(*parts: Any) -> str | None:
    return ": ".join(p for p in parts if isinstance(p, str) and p)[:500] or None
