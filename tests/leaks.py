"""Over everything the tests print, log and store: no secret, no key, no e-mail address. What is found fails its test.

Heard: what is captured of a test and of the programs it runs, the `.log` files it leaves, and every line the product
logs, as it would be written. Stored: the schema groundskeeper and what the tasks write into the platform's, just
before the test's database goes. Looked for: the values in the test's own secret store and keyring, every value the
product read as a secret, and whatever has the shape of one. A leak is told by its place and kind, never by its value.
"""

import logging
import re
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any

import click.testing
import pg8000.native
import pytest
from sqlalchemy import make_url

from shared import logs, redaction
from shared.schema_rooms import metadata

# Of their own making, so that what shared/redaction.py does not know is not unknown here too.
SHAPES = {
    "an e-mail address": re.compile(
        r"[\w.%+-]{1,64}@(?!sha256|[\w.-]+\.gserviceaccount\.com)(?:[\w-]+\.)+[A-Za-z]{2,}\b"
    ),
    "a password in a URL": re.compile(r"://[^\s/:@\"]*:(?!\*\*\*@)[^\s/@\"]+@"),
    "a bearer token": re.compile(r"(?i)\bbearer\s+[\w.~+/-]{12,}"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\."),
    "a key of Stripe's": re.compile(r"\b(?:sk|rk)_(?:live|test)_\w+|\bwhsec_\w{6,}"),
    "a key of Google's": re.compile(r"\bya29\.[\w.-]+|\bAIza[\w-]{30,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a SCRAM verifier": re.compile(r"SCRAM-SHA-256\$\d+:"),
}
_MAYBE = r"@|://|earer|eyJ|[rs]k_|whsec|ya29|AIza|PRIVATE|SCRAM"  # one of the shapes has nothing without one of these
# Operators go by their verified e-mail: these columns and fields are there to name them.
_OPERATORS = frozenset(
    ("actor", "approved_by", "decided_by", "paused_by", "placed_by", "released_by", "requested_by", "user")
)
TABLES = (
    *(f"groundskeeper.{table.name}" for table in metadata.sorted_tables),
    *("data_encryption_key", "integration_credential", "outbox_event", "threat_intelligence"),
)
_SHORTEST = 8  # shorter values are words

_said: list[tuple[str, str]] = []  # of the test that runs: place, text
_found: set[str] = set()  # of the test that runs, in words


def kinds(text: str, planted: Collection[str]) -> Iterator[str]:
    """What of `planted` and the shapes stands in `text`."""
    if any(value in text for value in planted):
        yield "a secret's value"
    yield from (kind for kind, shape in SHAPES.items() if shape.search(text))


def heard(place: str, text: object) -> None:
    """Have `text`, said at `place`, looked through when the test ends."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if isinstance(text, str) and text:
        _said.append((place, text))


def stored(url: str, planted: Collection[str]) -> set[str]:
    """What of `planted` and the shapes stands in the rows of the database at `url`: table and column, kind."""
    at = make_url(url)
    with closing(
        pg8000.native.Connection(
            at.username or "", host=at.host or "", port=at.port or 0, database=at.database, password=at.password
        )
    ) as connection:
        there = connection.run(
            "select t from unnest(cast(:all as text[])) t where to_regclass(t) is not null", all=list(TABLES)
        )
        rows = connection.run(
            " union all ".join(
                f"select '{table}', to_jsonb(t) from {table} t"
                " where cast(t as text) ~ :maybe"
                " or exists (select from unnest(cast(:planted as text[])) v where strpos(cast(t as text), v) > 0)"
                for (table,) in there or []
            ),
            maybe=_MAYBE,
            planted=list(planted),
        )
    return {
        f"{place}: {kind}"
        for table, row in rows or []
        for place, name, value in _values(table, row)
        for kind in kinds(value, planted)
        if not (kind == "an e-mail address" and name in _OPERATORS)
    }


def _values(place: str, value: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text within `value`: where, under which name, what."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _values(f"{place}.{key}", inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(place, inner, name)
    elif isinstance(value, str):
        yield place, name, value


def note(leaks: set[str]) -> None:
    """Have the test that runs fail for `leaks` when it ends."""
    _found.update(leaks)


def planted_in(folder: Path) -> set[str]:
    """The values of the secret store and the keyring that a test's fixtures have put in `folder`."""
    files = (file for name in ("secrets", "keyring") for file in (folder / name).rglob("*") if file.is_file())
    values = {file.read_text(errors="replace").strip() for file in files} | redaction.registered()
    return {value for value in values if len(value) >= _SHORTEST}


# --- listening


class _Listener(logging.Handler):
    """Every line the product logs, as it would be written."""

    def emit(self, record: logging.LogRecord) -> None:
        heard("log", self.format(record))


@pytest.fixture(autouse=True, scope="session")
def _listening() -> Iterator[None]:
    """Overhear what a test reads itself, so that it is not among what is captured of it."""
    with pytest.MonkeyPatch.context() as patch:
        _overhear(patch, pytest.CaptureFixture, "readouterr", lambda _, said: (said.out, said.err))
        _overhear(patch, subprocess.Popen, "communicate", lambda program, said: said if _ours(program) else ())
        _overhear(patch, click.testing.CliRunner, "invoke", lambda _, result: (result.output,))
        listener = _Listener()
        listener.setFormatter(logs.JSON_LINES)
        logging.getLogger().addHandler(listener)
        yield
        logging.getLogger().removeHandler(listener)


def _ours(program: "subprocess.Popen[Any]") -> bool:
    """Whether a program says what the product says: Terraform's plans, say, show all that a test configured."""
    first = program.args if isinstance(program.args, str) else next(iter(program.args), "")  # type: ignore[arg-type]
    return Path(str(first)).name.startswith(("python", "keeper"))


def _overhear(
    patch: pytest.MonkeyPatch, owner: type, name: str, texts: Callable[[Any, Any], tuple[object, ...]]
) -> None:
    plain = getattr(owner, name)

    @wraps(plain)
    def overheard(*given: Any, **named: Any) -> Any:
        said = plain(*given, **named)
        for text in texts(given[0], said):
            heard("output", text)
        return said

    patch.setattr(owner, name, overheard)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    _said.clear()
    _found.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report: pytest.TestReport = yield
    if call.when == "teardown" and report.passed and (leaks := _leaks(item, report)):
        report.outcome = "failed"
        report.sections = []  # they would show the value
        report.longrepr = f"{item.nodeid} let out what nobody may see:\n" + "\n".join(sorted(leaks))
    return report


def _leaks(item: pytest.Item, report: pytest.TestReport) -> set[str]:
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if folder is not None:
        for file in (*folder.glob("*.log"), *folder.glob("*/log/*.log")):
            if file.is_file():  # and no pipe of a test's
                heard(file.name, file.read_bytes())
    for place, text in report.sections:
        if not place.startswith("Captured log"):  # pytest's own lines, with tracebacks that the product's leave out
            heard(place, text)
    planted = planted_in(folder or Path("nowhere"))
    return _found | {f"{place}: {kind}" for place, text in _said for kind in kinds(text, planted)}
