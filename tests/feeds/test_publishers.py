"""Exports as their publishers write them, comments, quotes, line ends and all: each of their rows is kept, merged or
quarantined with its reason. The addresses are made up; the forms are those of the services' downloads in 2026."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from shared.errors import Outcome
from shared.manifest import FUNCTIONS
from tests.conftest import RunTask
from tests.feeds.servers import Page, publisher

Rows = Callable[..., list[Any]]
FEEDS = {
    f["name"]: {k: v for k, v in f.items() if k not in ("secret", "header", "url")}
    for f in yaml.safe_load((FUNCTIONS / "fetch_threat_intel" / "task.yaml").read_text())["params"]["feeds"]
}
BAR = "#" * 64


def crlf(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


URLHAUS = crlf(
    BAR,
    "# abuse.ch URLhaus Database Dump (CSV - recent URLs only)      #",
    "# Last updated: 2026-06-15 11:52:20 (UTC)                      #",
    "#                                                              #",
    "# Terms Of Use: https://urlhaus.abuse.ch/api/                  #",
    "# For questions please contact urlhaus [at] abuse.ch           #",
    BAR,
    "#",
    "# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter",
    '"3786237","2026-06-15 11:52:20","http://45.61.49.150:58801/i","online","2026-06-15 11:52:20","malware_download",'
    '"32-bit,elf,mips,Mozi","https://urlhaus.abuse.ch/url/3786237/","someone"',
    '"3786236","2026-06-15 11:51:09","https://x089w0f5.files.example.com/?ublib=70c1-a1c4","offline","",'
    '"malware_download","ClearFake","https://urlhaus.abuse.ch/url/3786236/","anonymous"',
    '"3786235","2026-06-15 11:50:00","http://Pagos-Banc0.example.net","online","2026-06-15 11:50:00",'
    '"malware_download","None","https://urlhaus.abuse.ch/url/3786235/","someone"',
    '"3786234","2026-06-15 11:49:00","http://files.example.com/a ""quoted"",b.exe","offline","","malware_download",'
    '"exe","https://urlhaus.abuse.ch/url/3786234/","someone"',
    '"3786233","2026-06-15 11:48:00","http://pagos-banc0.example.net/","offline","","malware_download","None",'
    '"https://urlhaus.abuse.ch/url/3786233/","someone"',
    '"3786232","2026-06-15 11:47:00","http://192.168.1.1:8080/Mozi.m","offline","","malware_download","elf",'
    '"https://urlhaus.abuse.ch/url/3786232/","someone"',
    '"3786231","2026-06-15 11:46:00","https://github.com/","offline","","malware_download","exe",'
    '"https://urlhaus.abuse.ch/url/3786231/","someone"',
    '"3786230","2026-06-15 11:45:00","http://cut.example.com/x"',
)

# Quoted, commented header; a blank after each comma; a last line that counts.
THREATFOX_CSV = crlf(
    BAR,
    "# ThreatFox IOCs: recent additions - CSV format                #",
    "# Last updated: 2026-06-15 11:39:33 UTC                        #",
    BAR,
    "#",
    '# "first_seen_utc","ioc_id","ioc_value","ioc_type","threat_type","fk_malware","malware_alias","malware_printable",'
    '"last_seen_utc","confidence_level","is_compromised","reference","tags","anonymous","reporter"',
    '"2026-06-15 11:39:33", "1891291", "mbond38982.hosting.example.com", "domain", "botnet_cc", "php.shin_webshell",'
    ' "None", "php.shin_webshell", "", "50", "True", "None", "None", "0", "someone"',
    '"2026-06-15 11:34:48", "1891289", "3DD25CBFE76DB155615283F905992030468F3DA9", "sha256_hash", "payload",'
    ' "win.vidar", "None", "Vidar", "", "95", "False", "None", "None", "0", "someone"',
    '"2026-06-15 11:20:00", "1891270", "45.61.49.8:8080", "ip:port", "botnet_cc", "win.gh0st", "Farfli,Gh0st RAT",'
    ' "Gh0st", "2026-06-15 11:25:00", "80", "False", "https://blog.example.org/a,b", "c2,rat", "0", "someone"',
    '"2026-06-15 11:10:00", "1891260", "[2a00:1450::7]:443", "ip:port", "botnet_cc", "win.gh0st", "None", "Gh0st", "",'
    ' "100", "False", "None", "None", "1", "anonymous"',
    '"2026-06-15 11:00:00", "1891250", "10.20.30.40:4444", "ip:port", "botnet_cc", "win.trickbot", "None",'
    ' "TrickBot", "", "80", "False", "None", "None", "0", "someone"',
    '"2026-06-15 10:50:00", "1891240", "someone@example.com", "email", "phishing", "unknown", "None", "Unknown", "",'
    ' "75", "False", "None", "None", "0", "someone"',
    "# Number of entries: 6",
)
THREATFOX_COLUMNS = {
    "text": "ioc_value",
    "kind": "ioc_type",
    "confidence": "confidence_level",
    "description": "malware_printable",
    "reference": "reference",
    "first_seen": "first_seen_utc",
    "last_seen": "last_seen_utc",
}

# The header is no comment.
FEODO_CSV = crlf(
    BAR,
    "# abuse.ch Feodo Tracker Botnet C2 IP Blocklist (CSV)          #",
    "# Last updated: 2026-06-15 11:28:39 UTC                        #",
    BAR,
    "#",
    '"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"',
    '"2022-06-04 21:24:53","45.61.49.246","8080","offline","2026-06-07","Emotet"',
    '"2025-12-30 13:56:31","45.61.50.211","443","online","2026-06-12","QakBot"',
    "# END 2 entries",
)


def kev(entries: int) -> bytes:
    """A catalogue of the real one's size, by its published schema."""
    return json.dumps(
        {
            "title": "CISA Catalog of Known Exploited Vulnerabilities",
            "catalogVersion": "2026.06.14",
            "dateReleased": "2026-06-14T15:00:11.6584Z",
            "count": entries,
            "vulnerabilities": [
                {
                    "cveID": f"CVE-{2002 + n % 24}-{10_000 + n // 2 if n < entries - 1 else 'TBD'}",
                    "vendorProject": "Vendor™",
                    "product": 'Multiple "Products"',
                    "vulnerabilityName": "Vendor Products Use-After-Free Vulnerability",
                    "dateAdded": f"2026-0{1 + n % 5}-1{n % 10}",
                    "shortDescription": "Vendor products contain a use-after-free vulnerability.",
                    "requiredAction": "Apply mitigations per vendor instructions or discontinue use of the product.",
                    "dueDate": "2026-07-01",
                    "knownRansomwareCampaignUse": "Known" if n % 5 == 0 else "Unknown",
                    "notes": "https://vendor.example.com/advisory ; https://nvd.nist.gov/vuln/detail/",
                    "cwes": ["CWE-416"] if n % 3 else [],
                }
                for n in range(entries)
            ],
        },
        indent=4,
        ensure_ascii=False,
    ).encode("utf-8-sig" if entries % 2 else "utf-8")


# The feed, the export, its entries, how many of them say again what another one says, and why the others are refused.
CASES: dict[str, tuple[dict[str, Any], bytes, int, int, list[str]]] = {
    "URLhaus, CSV": (
        FEEDS["urlhaus"],
        URLHAUS,
        8,
        1,
        ["not a public address", "on the allow-list", "3 columns instead of 9"],
    ),
    "ThreatFox, CSV": (
        {"name": "fox", "format": "csv", "confidence": 50, "columns": THREATFOX_COLUMNS},
        THREATFOX_CSV,
        6,
        0,
        ["not a public address", "of a kind nobody here knows"],
    ),
    "Feodo Tracker, CSV": (
        {"name": "feodo", "format": "csv", "confidence": 90, "columns": {"text": "dst_ip", "last_seen": "last_online"}},
        FEODO_CSV,
        2,
        0,
        [],
    ),
    "CISA KEV": (FEEDS["kev"], kev(1404), 1404, 0, ["not a CVE number"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_row_of_an_export_is_kept_merged_or_quarantined(case: str, run_task: RunTask, rows: Rows) -> None:
    feed, body, entries, merged, refused = CASES[case]
    with publisher() as web:
        web.pages["/export"] = Page(body)
        guard = {"shrink_share": 0.5, "shrink_h": 24, "bad_share": 0.5, "refresh_h": 24}
        result = run_task(
            "fetch_threat_intel", params={"feeds": [{**feed, "url": f"{web.url}/export"}], "guard": guard}
        )
    assert (result.outcome, result.error) == (Outcome.OK, None)
    counts = result.counts
    quarantined = rows("select number, reason from groundskeeper.feed_reject order by number")
    assert [r.reason for r in quarantined] == refused
    assert counts["entries"] == entries
    assert counts["accepted"] + len(quarantined) == entries
    kept = rows("select canonical_key, description, sources from threat_intelligence")
    assert len(kept) == counts["added"]
    assert len(kept) + merged + len(quarantined) == entries
    assert {"None", ""}.isdisjoint(r.description for r in kept)
    assert {"None", ""}.isdisjoint(source["reference"] for r in kept for source in r.sources)


def test_what_an_export_says_is_what_the_row_says(run_task: RunTask, rows: Rows) -> None:
    feed, body, *_ = CASES["ThreatFox, CSV"]
    with publisher() as web:
        web.pages["/export"] = Page(body)
        run_task("fetch_threat_intel", params={"feeds": [{**feed, "url": f"{web.url}/export"}], "guard": {
            "shrink_share": 0.5, "shrink_h": 24, "bad_share": 0.5, "refresh_h": 24}})  # fmt: skip
    found = {
        r.canonical_key: (r.confidence, r.description, r.sources[0]["reference"])
        for r in rows("select canonical_key, confidence, description, sources from threat_intelligence")
    }
    assert found == {
        "domain:mbond38982.hosting.example.com": (50, "php.shin_webshell", None),
        "sha1:3dd25cbfe76db155615283f905992030468f3da9": (95, "Vidar", None),
        "ip_port:45.61.49.8:8080": (80, "Gh0st", "https://blog.example.org/a,b"),
        "ip_port:[2a00:1450::7]:443": (100, "Gh0st", None),
    }
