"""ping_services: probes against blackbox_exporter, the whole task on 10,000 services, and rows by COPY.

Rates are per second of processor time of the process that probes: the targets, written in Python and doing half of
every handshake, are slower than both probers, and on 1 vCPU the processor is what there is. Every part runs on one
core of its own: the prober or its peer on the first, the targets (and the peer's driver) on the second. Half of the
targets are TLS, 5 % are dead; every guard is on, with loopback allowed. What only the benchmark needs is imported
where it is needed, so that the memory of the child that runs the task is the task's.
"""

import asyncio
import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pycurl
from sqlalchemy import text

from bench.measure import Ratio, Series, alternate, report
from shared.addresses import Reach
from shared.clock import SystemClock
from shared.copying import copy
from shared.manifest import FUNCTIONS, ROOT
from shared.settings import read
from shared.telemetry.prober import Prober
from shared.telemetry.probes import Limits, Manners, Probe, Verdict
from shared.telemetry.resolver import Resolver
from shared.telemetry.targets import parse

_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
_RACE = 2000  # targets of the race with the peer
_SERVICES = 10_000
_ROWS = 200_000
_LIMITS = Limits(dns_s=3, connect_s=3, tls_s=3, first_byte_s=5, total_s=10, body_bytes=65536, redirects=5)
_AT_ONCE = 200
_MANNERS = Manners(at_once=_AT_ONCE, per_host=_AT_ONCE, per_address=_AT_ONCE)  # one address stands for all hosts
_MODULES = """
modules:
  http:
    prober: http
    timeout: 5s
    http: {preferred_ip_protocol: ip4, follow_redirects: true, tls_config: {ca_file: %s}}
"""


def _on_core(number: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {number})


# --- the targets, in a process of their own


class _Answer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        self.transport.close()


async def _serve(plain: int, secure: int, certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    await loop.create_server(_Answer, "127.0.0.1", plain, backlog=4096)
    await loop.create_server(_Answer, "127.0.0.1", secure, backlog=4096, ssl=context)
    print("ready", flush=True)
    await asyncio.Event().wait()


class Targets:
    """Ports that answer, one that does not, and the authority that vouches for the second."""

    def __init__(self, folder: Path) -> None:
        from tests.telemetry.servers import Authority, free_port

        authority = Authority(folder)
        self.ca_file = str(authority.file)
        authority.context("127.0.0.1")
        self.certificate = str(next(f for f in folder.glob("*.pem") if f != authority.file))
        self.plain, self.secure, self.dead = free_port(), free_port(), free_port()

    def urls(self, count: int, *, tls: bool = True) -> list[str]:
        """`count` URLs: half TLS (or none), every twentieth dead."""
        found = []
        for number in range(count):
            port = self.dead if number % 20 == 7 else self.secure if tls and number % 2 else self.plain
            found.append(f"{'https' if port == self.secure else 'http'}://127.0.0.1:{port}/{number}")
        return found


@contextmanager
def _process(*arguments: str, core: int, ready: str, **options: Any) -> Iterator[int]:
    with tempfile.NamedTemporaryFile("w+") as said:  # not a pipe: nobody reads on, and a full one would stop it
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            stdout=said,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: _on_core(core),
            **options,
        )
        try:
            while ready not in Path(said.name).read_text():
                if process.poll() is not None:
                    raise RuntimeError(f"{arguments[0]} ended before it was ready: {Path(said.name).read_text()}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait(10)


# --- the race


def _ours(ca_file: str, urls: list[str]) -> dict[str, float]:
    """Probes a second, in this very process (a child of the benchmark)."""
    clock, reach = SystemClock(), Reach.of(allow=["127.0.0.1/32"])
    with (
        Resolver(reach, timeout_s=3) as resolver,
        Prober(
            limits=_LIMITS, manners=_MANNERS, reach=reach, resolver=resolver, clock=clock, ca_file=ca_file
        ) as prober,
    ):
        probes = [Probe(number, parse("http", url)) for number, url in enumerate(urls)]
        began = time.process_time()
        found = list(prober.probe(probes, until=clock.monotonic() + 300))
        seconds = time.process_time() - began
    up = sum(f.verdict is Verdict.UP for f in found)
    assert up == len(urls) - sum(n % 20 == 7 for n in range(len(urls))), up
    return {"rate": len(urls) / seconds}


def _child(order: str, **values: Any) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.pinger", order],
        input=json.dumps(values),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: _on_core(0),
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peer(pid: int, port: int, urls: list[str]) -> float:
    """Probes a second of blackbox_exporter's time, asked over connections that are kept, as many at once as we do."""
    _on_core(1)
    multi, idle = pycurl.CurlMulti(), []
    for _ in range(_AT_ONCE):
        handle = pycurl.Curl()
        handle.setopt(pycurl.WRITEFUNCTION, len)
        idle.append(handle)
    waiting = iter(urls)
    began = _spent(pid)
    left = len(urls)
    while left:
        while idle and (url := next(waiting, None)) is not None:
            handle = idle.pop()
            handle.setopt(pycurl.URL, f"http://127.0.0.1:{port}/probe?module=http&target={url}")
            multi.add_handle(handle)
        multi.perform()
        more = 1
        while more:
            more, well, failed = multi.info_read()
            for handle in [*well, *(f[0] for f in failed)]:
                multi.remove_handle(handle)
                idle.append(handle)
                left -= 1
        multi.select(0.01)
    return len(urls) / (_spent(pid) - began)


def _spent(pid: int) -> float:
    """Seconds of processor time a process has used, threads and kernel included."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _race(stack: ExitStack, targets: Targets, folder: Path) -> tuple[list[Series], dict[str, Ratio]]:
    from tests.telemetry.servers import free_port

    binary = shutil.which("prometheus-blackbox-exporter") or shutil.which("blackbox_exporter")
    pid = port = 0
    if binary:
        port, modules = free_port(), folder / "modules.yml"
        modules.write_text(_MODULES % targets.ca_file)
        listen = [f"--config.file={modules}", f"--web.listen-address=127.0.0.1:{port}"]
        environment = {**os.environ, "GOMAXPROCS": "1"}
        pid = stack.enter_context(_process(binary, *listen, core=0, ready="Listening", env=environment))
    series, ratios = [], {}
    for what, urls in (("plain", targets.urls(_RACE, tls=False)), ("half TLS", targets.urls(_RACE))):
        ways: dict[str, Callable[[], float]] = {
            f"prober, {what}": lambda u=urls: _child("ours", ca_file=targets.ca_file, urls=u)["rate"]
        }
        if binary:
            ways[f"blackbox_exporter, {what}"] = lambda u=urls: _peer(pid, port, u)
        found = list(alternate(ways, unit="probes/s of processor", rounds=_ROUNDS).values())
        series += found
        if binary:
            ratio = Ratio(found[0].median / found[1].median, 3.0, least=True)
            ratios[f"prober to blackbox_exporter, {what}"] = ratio
    return series, ratios


def _ports(targets: Targets) -> list[int]:
    return [targets.plain, targets.secure, targets.dead]


# --- the whole task


def _platform(url: str, urls: list[str]) -> None:
    from shared.database import Database
    from shared.migrations import run as migrations
    from shared.platform.partitions import create_ahead

    database = Database(read({"DATABASE_URL": url}), "bench")
    for branch in ("groundskeeper", "platform"):
        migrations.upgrade(database.engine, branch)
    now = datetime.now(UTC)
    migrations.stamp_environment(database.engine, "demo-groundskeeper", False, now)
    with database.transaction() as connection:
        create_ahead(connection, now, 1)
        connection.execute(
            text("""insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
                    select 'a' || n, 'f' || n, 'a' || n || '@example.com', :now, :now
                      from generate_series(0, 999) n"""),
            {"now": now},
        )
        connection.execute(
            text("""insert into monitored_service (account_id, name, kind, url, created_at)
                    select 'a' || mod(n, 1000), 's' || n, 'http', url, :now
                      from unnest(cast(:urls as text[])) with ordinality as t(url, n)"""),
            {"now": now, "urls": urls},
        )
    database.close()


def _task(url: str, folder: str, ports: list[int], ca_file: str) -> dict[str, float]:
    """One round of the real task in this process: seconds, and the peak of memory."""
    import certifi

    from shared.call import Call
    from shared.task import load

    declared = FUNCTIONS / "ping_services"
    copied = Path(folder) / "ping_services"
    shutil.copytree(declared, copied, dirs_exist_ok=True)
    lines = (copied / "task.yaml").read_text().splitlines()
    changes = {
        "canaries": f'["http://127.0.0.1:{ports[0]}/"]',
        "allow_networks": '["127.0.0.1/32"]',
        # The machine may be shared: what is measured is the work, so the round may take the time it takes.
        "round_s": "600",
        "run": "{kind: function, memory_mb: 512, cpu: 1, timeout_s: 1500}",
        "manners": f"{{at_once: {_AT_ONCE}, per_host: {_AT_ONCE}, per_address: {_AT_ONCE}}}",
    }
    for number, line in enumerate(lines):
        key = line.strip().partition(":")[0]
        if key in changes:
            lines[number] = f"{line[: line.index(key)]}{key}: {changes[key]}"
    (copied / "task.yaml").write_text("\n".join(lines) + "\n")
    certifi.where = lambda: ca_file
    runner = load(copied).runner(read({"DATABASE_URL": url, "KEEPER_MODE": "enforce"}), SystemClock())
    began, spent = time.perf_counter(), time.process_time()
    result = runner.execute(Call(trigger="every", run_key=str(uuid.uuid4()), actor="bench"))
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    runner.close()
    assert result.outcome.value == "ok", result.error
    assert result.counts["stored"] == _SERVICES, result.counts
    return {"seconds": seconds, "spent": spent, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


# --- rows


def _rows(url: str, psql: str, file: Path) -> tuple[list[Series], dict[str, Ratio]]:
    from shared.database import Database

    database = Database(read({"DATABASE_URL": url}), "bench")
    columns = "last_tested, id, account_id, service_id, url, status_code, response_time, is_active"
    at = datetime.now(UTC).isoformat()

    def lines() -> Iterator[str]:
        for number in range(_ROWS):
            key = uuid.UUID(int=number + 1)
            yield f"{at}\t{key}\ta{number % 1000}\t{number}\thttp://127.0.0.1/{number}\t200\t12.5\tt\n"

    file.write_text("".join(lines()))

    def emptied() -> None:
        with database.transaction() as connection:
            connection.execute(text("truncate endpoints"))

    def ours() -> float:
        emptied()
        began = time.perf_counter()
        with file.open() as source, database.transaction() as connection:
            copy(connection, "endpoints", columns, source)
        return _ROWS / (time.perf_counter() - began)

    def theirs() -> float:
        emptied()
        began = time.perf_counter()
        command = f"\\copy endpoints ({columns}) from '{file}'"
        subprocess.run([psql, "-q", "-d", url.replace("+pg8000", ""), "-c", command], check=True)
        return _ROWS / (time.perf_counter() - began)

    found = list(
        alternate({"rows by copy": ours, "rows by psql \\copy": theirs}, unit="rows/s", rounds=_ROUNDS).values()
    )
    database.close()
    return found, {"copy to psql \\copy": Ratio(found[0].median / found[1].median, 0.6, least=True)}


def run() -> dict[str, Any]:
    """The three parts, with what is missing left out by name."""
    from shared.laptop.postgres import Postgres

    series: list[Series] = []
    ratios: dict[str, Ratio] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = Targets(folder)
        arguments = ["bench.pinger", "serve", json.dumps({"ports": _ports(targets), "file": targets.certificate})]
        stack.enter_context(_process(sys.executable, "-m", *arguments, core=1, ready="ready"))
        found, goals = _race(stack, targets, folder)
        series += found
        ratios |= goals
        server = stack.enter_context(Postgres.temporary())
        url = server.create_database("bench")
        _platform(url, targets.urls(_SERVICES))
        values = {"url": url, "folder": str(folder), "ports": _ports(targets), "ca_file": targets.ca_file}
        rounds = [_child("task", **values) for _ in range(_ROUNDS)]
        series.append(Series("one round over 10,000 services", "s", tuple(r["seconds"] for r in rounds)))
        series.append(Series("its processor time", "s", tuple(r["spent"] for r in rounds)))
        series.append(Series("its peak of memory", "MB", tuple(r["mb"] for r in rounds)))
        ratios["processor time of a round to its slot of 30 s"] = Ratio(series[-2].median / 30, 1.0)
        ratios["memory to 80 MB"] = Ratio(series[-1].median / 80, 1.0)
        psql = shutil.which("psql")
        if psql:
            found, goals = _rows(url, psql, folder / "rows")
            series += found
            ratios |= goals
    return report("pinger", series, ratios)


def _answer_order() -> None:
    order = sys.argv[1]
    values = json.loads(sys.argv[2] if order == "serve" else sys.stdin.read())
    if order == "serve":
        asyncio.run(_serve(*values["ports"][:2], values["file"]))
    elif order == "ours":
        print(json.dumps(_ours(**values)))
    else:
        print(json.dumps(_task(**values)))


if __name__ == "__main__":
    _answer_order()
