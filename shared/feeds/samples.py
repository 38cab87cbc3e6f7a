"""Small made-up copies in each publisher's documented format, for a laptop without keys or network.

All addresses are for documentation (RFC 5737, 3849) and all names reserved (RFC 2606): none can block anybody.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

from shared.feeds.fetch import Copy, FeedFailed

_KEV = {
    "title": "CISA Catalog of Known Exploited Vulnerabilities",
    "catalogVersion": "2026.06.14",
    "dateReleased": "2026-06-14T15:00:00.000Z",
    "count": 3,
    "vulnerabilities": [
        {
            "cveID": cve,
            "vendorProject": vendor,
            "product": product,
            "vulnerabilityName": name,
            "dateAdded": added,
            "shortDescription": "A sample.",
            "requiredAction": "Apply mitigations per vendor instructions.",
            "dueDate": "2026-07-01",
            "knownRansomwareCampaignUse": ransomware,
            "notes": "",
            "cwes": ["CWE-502"],
        }
        for cve, vendor, product, name, added, ransomware in (
            ("CVE-2021-44228", "Apache", "Log4j2", "Remote Code Execution Vulnerability", "2021-12-10", "Known"),
            ("CVE-2014-0160", "OpenSSL", "OpenSSL", "Information Disclosure Vulnerability", "2022-05-04", "Unknown"),
            ("CVE-2023-34362", "Progress", "MOVEit Transfer", "SQL Injection Vulnerability", "2023-06-02", "Known"),
        )
    ],
}

_THREATFOX = {
    str(1_000_000 + n): [
        {
            "ioc_value": value,
            "ioc_type": kind,
            "threat_type": "botnet_cc",
            "malware": "win.sample",
            "malware_alias": None,
            "malware_printable": "Sample",
            "first_seen_utc": "2026-06-14 10:00:00",
            "last_seen_utc": None,
            "confidence_level": confidence,
            "is_compromised": False,
            "reference": None,
            "tags": "sample",
            "anonymous": "0",
            "reporter": "nobody",
        }
    ]
    for n, (value, kind, confidence) in enumerate(
        (
            ("192.0.2.10:443", "ip:port", 100),
            ("control.malware.example", "domain", 75),
            ("http://dropper.example/a.bin", "url", 50),
            ("d41d8cd98f00b204e9800998ecf8427e", "md5_hash", 50),
            ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256_hash", 90),
            ("10.0.0.1:8080", "ip:port", 100),  # private: refused
        )
    )
}

_URLHAUS = """\
################################################################
# abuse.ch URLhaus Database Dump (CSV - recent URLs only)      #
# Last updated: 2026-06-15 11:00:00 (UTC)                      #
################################################################
#
# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter
"3000001","2026-06-15 10:58:00","http://198.51.100.7:8080/bin.sh","online","2026-06-15 10:58:00","malware_download",\
"elf,mirai","https://urlhaus.abuse.ch/url/3000001/","nobody"
"3000002","2026-06-15 10:40:00","hxxps://Files.Malware.example/x,y.exe","offline","2026-06-15 10:41:00",\
"malware_download","exe","https://urlhaus.abuse.ch/url/3000002/","nobody"
"3000004","2026-06-15 10:20:00","http://dropper.example/b.bin","offline","","malware_download","",\
"https://urlhaus.abuse.ch/url/3000004/","nobody"
"3000003","2026-06-15 10:30:00","not a url","offline","","malware_download","","https://urlhaus.abuse.ch/url/3000003/","nobody"
"""

_FEODO = [
    {
        "ip_address": address,
        "port": port,
        "status": status,
        "hostname": None,
        "as_number": 64496,
        "as_name": "EXAMPLE",
        "country": "ZZ",
        "first_seen": "2026-05-01 08:00:00",
        "last_online": "2026-06-14",
        "malware": "Sample",
    }
    for address, port, status in (("203.0.113.5", 443, "online"), ("203.0.113.6", 8443, "offline"))
]

_OTX = {
    "results": [
        {
            "id": "0123456789abcdef01234567",
            "name": "A sample pulse",
            "description": "",
            "author_name": "nobody",
            "modified": "2026-06-14T09:00:00.000000",
            "created": "2026-06-13T09:00:00.000000",
            "tags": [],
            "TLP": "white",
            "indicators": [
                {"id": 1, "indicator": "2001:db8::bad", "type": "IPv6", "created": "2026-06-13T09:00:00"},
                {"id": 2, "indicator": "phish[.]example", "type": "domain", "created": "2026-06-13T09:00:00"},
                {"id": 3, "indicator": "192.0.2.0/24", "type": "CIDR", "created": "2026-06-13T09:00:00"},
                {"id": 4, "indicator": "CVE-2021-44228", "type": "CVE", "created": "2026-06-13T09:00:00"},
                {"id": 5, "indicator": "Sample\\Mutex", "type": "Mutex", "created": "2026-06-13T09:00:00"},
            ],
        }
    ],
    "count": 1,
    "next": None,
    "previous": None,
}

_ABUSEIPDB = {
    "meta": {"generatedAt": "2026-06-15T11:00:00+00:00"},
    "data": [
        {
            "ipAddress": address,
            "countryCode": "ZZ",
            "abuseConfidenceScore": score,
            "lastReportedAt": "2026-06-15T10:59:00+00:00",
        }
        for address, score in (("198.51.100.7", 100), ("198.51.100.8", 92), ("2001:db8::5", 95))
    ],
}

SAMPLES: dict[str, str] = {
    "kev": json.dumps(_KEV),
    "threatfox": json.dumps(_THREATFOX),
    "urlhaus": _URLHAUS,
    "feodo": json.dumps(_FEODO),
    "otx": json.dumps(_OTX),
    "abuseipdb": json.dumps(_ABUSEIPDB),
}


@contextmanager
def sample(feed: str) -> Iterator[Copy]:
    """The shipped copy of `feed`. Raises FeedFailed for a feed that has none."""
    if feed not in SAMPLES:
        raise FeedFailed(f"has no shipped sample: there are {', '.join(sorted(SAMPLES))}")
    data = SAMPLES[feed].encode()
    yield Copy(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())
