"""One page through Lighthouse: a subprocess with a Chromium of its own, bounded in time, gone afterwards."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.addresses import Forbidden, Reach
from shared.errors import Unavailable
from shared.lighthouse.proxy import connectable, proxy
from shared.manifest import ROOT

CATEGORIES = ("performance", "accessibility", "best-practices", "seo")

_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a container of Cloud Run has no namespaces to give; the container is the sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--proxy-bypass-list=<-loopback>",  # not even this machine is reached past the proxy
)


@dataclass(frozen=True)
class Limits:
    """Seconds a scan may take in all, and bytes its page may load."""

    scan_s: int
    page_bytes: int


@dataclass(frozen=True)
class Tools:
    """The programs a scan needs."""

    lighthouse: str
    chromium: str


@dataclass(frozen=True)
class Scan:
    """What came of a page: scores (0 to 100) and vitals with the trimmed report, or an error."""

    scores: Mapping[str, int | None]
    lcp_ms: float | None
    tbt_ms: float | None
    cls: float | None
    report: Mapping[str, Any] | None
    error: str | None


def tools() -> Tools:
    """What is installed. Raises Unavailable naming what is not."""
    local = ROOT / "images" / "lighthouse" / "node_modules" / ".bin" / "lighthouse"
    lighthouse = shutil.which("lighthouse") or (str(local) if local.exists() else None)
    chromium = next((found for name in _CHROMIUMS if (found := shutil.which(name))), None)
    lacking = [
        name
        for name, found in (("node", shutil.which("node")), ("lighthouse", lighthouse), ("chromium", chromium))
        if not found
    ]
    if lighthouse is None or chromium is None or lacking:
        raise Unavailable(
            f"not installed: {', '.join(lacking)}: the image `lighthouse` has all; on a laptop install Node.js and "
            "Chromium, then `make lighthouse`"
        )
    return Tools(lighthouse, chromium)


def scan(url: str, with_: Tools, limits: Limits, reach: Reach) -> Scan:
    """Scan one page; a dead page is a result with an error. Raises ScannerBroke when Lighthouse itself fails."""
    if objection := _objection(url, reach):  # seconds of a browser's time would say the same
        return failed(objection)
    with tempfile.TemporaryDirectory(prefix="scan-") as folder, proxy(reach, most_bytes=limits.page_bytes) as way:
        report = Path(folder) / "report.json"
        flags = [*_FLAGS, f"--proxy-server=http://127.0.0.1:{way.port}", f"--user-data-dir={folder}/profile"]
        command = [
            "/usr/bin/env",
            f"CHROME_PATH={with_.chromium}",
            with_.lighthouse,
            url,
            "--quiet",
            "--output=json",
            f"--output-path={report}",
            "--no-enable-error-reporting",
            f"--only-categories={','.join(CATEGORIES)}",
            f"--chrome-flags={' '.join(flags)}",
        ]
        if not _ended(command, limits.scan_s):
            return failed(f"the page took longer than {limits.scan_s} seconds")
        if way.spent > limits.page_bytes:
            return failed(f"the page is larger than {limits.page_bytes} bytes")
        try:
            document = json.loads(report.read_bytes())
        except (FileNotFoundError, ValueError):
            raise ScannerBroke from None
    return read(document)


def _objection(url: str, reach: Reach) -> str | None:
    """Why a page cannot be scanned, as far as its address says."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the page's address cannot be read"
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
        return "the page's address is not http or https, or holds a user"
    try:
        connectable(host, port or 443, reach)
    except Forbidden as refused:
        return f"the page's address is {refused.reason}"
    except OSError:
        return "the page's name does not resolve"
    return None


class ScannerBroke(Exception):
    """Lighthouse ended without a report: the scanner's trouble, not the page's."""


def failed(error: str) -> Scan:
    """The result of a page that could not be scanned."""
    return Scan(dict.fromkeys(CATEGORIES), None, None, None, None, error)


def _ended(command: list[str], seconds: int) -> bool:
    """Run to the end; False when that took too long. Nothing of it is left: Chromium has many processes."""
    process = subprocess.Popen(  # noqa: S603 - our own program; the URL is one argument and begins with http
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(ProcessLookupError):  # all of them ended by themselves
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read(document: Mapping[str, Any]) -> Scan:
    """A report's scores and vitals; what Lighthouse could not load is an error in our words."""
    broken = document.get("runtimeError") or {}
    if broken.get("code") not in (None, "NO_ERROR"):
        return failed(f"the page did not load ({str(broken['code'])[:60]})")
    categories, audits = document.get("categories", {}), document.get("audits", {})
    scores = {
        name: None if (score := categories.get(name, {}).get("score")) is None else round(100 * score)
        for name in CATEGORIES
    }
    if all(score is None for score in scores.values()):
        return failed("Lighthouse gave no score")

    def vital(name: str) -> float | None:
        value = audits.get(name, {}).get("numericValue")
        return None if value is None else float(value)

    report = {
        "lighthouse": document.get("lighthouseVersion"),
        "fetched_at": document.get("fetchTime"),
        "scores": scores,
        "vitals": {
            name: vital(name)
            for name in (
                "first-contentful-paint",
                "largest-contentful-paint",
                "total-blocking-time",
                "cumulative-layout-shift",
                "speed-index",
            )
        },
        "below": sorted(
            (
                {"audit": name, "title": one.get("title"), "score": one["score"], "shown": one.get("displayValue")}
                for name, one in audits.items()
                if one.get("score") is not None and one["score"] < 0.9
            ),
            key=lambda row: (row["score"], row["audit"]),
        ),
    }
    return Scan(
        scores,
        vital("largest-contentful-paint"),
        vital("total-blocking-time"),
        vital("cumulative-layout-shift"),
        report,
        None,
    )
