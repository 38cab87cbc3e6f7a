"""Temporary instances: made as Google publishes it, deleted whatever happens, never beside production.

sqladmin.json is cut from Google's discovery document of Cloud SQL's API.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest
import requests

from shared.backup.fingerprint import Surroundings
from shared.backup.temporary import LABEL, Instances, Place
from shared.errors import Refused, Retry, Stopped, Unavailable

_DOCUMENT = json.loads(Path(__file__).with_name("sqladmin.json").read_text())
_PLACE = Place("acme-drills", "europe-west3", "projects/acme/global/networks/plane", "db-custom-4-16384")
_AROUND = Surroundings("app", 180006, "UTF8", 50 << 30, ("app",), ("plpgsql",))


def _schema(name: str) -> dict[str, Any]:
    """The published schema as JSON Schema: no other names, 64-bit numbers as text."""
    text = json.dumps(_DOCUMENT["schemas"]).replace('"$ref": "', '"$ref": "#/$defs/')
    definitions = json.loads(text)
    for definition in definitions.values():
        definition["additionalProperties"] = False
    return {"$ref": f"#/$defs/{name}", "$defs": definitions}


class _CloudSql:
    """Instances in memory; each request and answer held to the published document."""

    def __init__(self) -> None:
        self.instances: dict[str, dict[str, Any]] = {}
        self.pending = 2  # looks an operation takes
        self.refused = self.broken = False
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                status, body = 500, {}
                for name, method in _DOCUMENT["methods"].items():
                    found = _match(method["path"], urlsplit(self.path).path)
                    if method["httpMethod"] == self.command and found is not None:
                        sent = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
                        if "request" in method:
                            jsonschema.validate(sent, _schema(method["request"]))
                        query = parse_qs(urlsplit(self.path).query)
                        status, body = cloud.do(name, found, sent, query)
                        if status == 200:
                            jsonschema.validate(body, _schema(method["response"]))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names of http.server

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def do(self, method: str, names: dict[str, str], sent: Any, query: Any) -> tuple[int, dict[str, Any]]:
        """One call, as Cloud SQL would take it."""
        assert names["project"] == _PLACE.project
        if self.refused:
            return 403, {}
        name = names.get("instance", "")
        if name and name not in self.instances:
            return 404, {}
        match method:
            case "instances.insert":
                self.instances[sent["name"]] = {
                    **{k: v for k, v in sent.items() if k != "rootPassword"},
                    "ipAddresses": [{"type": "PRIVATE", "ipAddress": "10.0.0.9"}],
                    "serverCaCert": {"cert": "-----BEGIN CERTIFICATE-----"},
                }
                return 200, {"name": "op", "status": "PENDING", "targetId": sent["name"]}
            case "instances.get":
                return 200, self.instances[name]
            case "instances.list":
                (wanted,) = query["filter"]
                assert wanted.startswith(f"settings.userLabels.{LABEL}:")
                return 200, {"items": list(self.instances.values())} if self.instances else {}
            case "instances.delete":
                if self.pending:
                    self.pending -= 1
                    return 409, {}
                del self.instances[name]
                return 200, {"name": "gone", "status": "PENDING"}
            case _:
                self.pending -= 1
                failed = {"error": {"errors": [{"code": "OUT_OF_CAPACITY"}]}} if self.broken else {}
                return 200, {"name": "op", "status": "RUNNING" if self.pending else "DONE", **failed}


def _match(pattern: str, path: str) -> dict[str, str] | None:
    wanted, found = pattern.split("/"), path.strip("/").split("/")
    if len(wanted) != len(found) or any(w != f for w, f in zip(wanted, found, strict=True) if w[0] != "{"):
        return None
    return {w.strip("{}"): f for w, f in zip(wanted, found, strict=True) if w[0] == "{"}


@pytest.fixture
def cloud() -> Iterator[_CloudSql]:
    made = _CloudSql()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def _instances(cloud: _CloudSql, plane: str = "acme", check: Any = lambda: None) -> Instances:
    return Instances(_PLACE, plane, session=requests.Session(), api=cloud.url, check=check, sleep=lambda _: None)


def test_an_instance_is_private_and_unprotected_and_gone_with_its_block(cloud: _CloudSql) -> None:
    with _instances(cloud).made("keeper-drill-1", _AROUND) as (address, authority, password):
        made = cloud.instances["keeper-drill-1"]
        assert (address, authority) == ("10.0.0.9", "-----BEGIN CERTIFICATE-----")
        assert len(password) > 30
        assert (made["databaseVersion"], made["settings"]["dataDiskSizeGb"]) == ("POSTGRES_18", "100")
        assert made["settings"]["ipConfiguration"]["ipv4Enabled"] is False
        assert made["settings"]["deletionProtectionEnabled"] is False
    assert cloud.instances == {}


def test_an_instance_is_deleted_when_its_drill_fails(cloud: _CloudSql) -> None:
    with pytest.raises(Refused), _instances(cloud).made("keeper-drill-1", _AROUND):
        raise Refused("the backup restores to something else")
    assert cloud.instances == {}


def test_an_instance_is_deleted_when_the_run_is_stopped_while_it_is_made(cloud: _CloudSql) -> None:
    def stop() -> None:
        raise Stopped("deadline")

    with pytest.raises(Stopped), _instances(cloud, check=stop).made("keeper-drill-1", _AROUND):
        raise AssertionError
    assert cloud.instances == {}


def test_an_instance_that_could_not_be_made_is_deleted_and_tried_again_later(cloud: _CloudSql) -> None:
    cloud.broken = True
    with pytest.raises(Retry, match="OUT_OF_CAPACITY"), _instances(cloud).made("keeper-drill-1", _AROUND):
        raise AssertionError
    assert cloud.instances == {}


def test_what_a_killed_drill_left_is_deleted_by_the_next_and_anothers_is_not(cloud: _CloudSql) -> None:
    for name, plane in (("keeper-drill-1", "acme"), ("keeper-drill-2", "another-plane"), ("app", "")):
        cloud.instances[name] = {"name": name, "settings": {"userLabels": {LABEL: plane} if plane else {}}}
    assert _instances(cloud).sweep() == ["keeper-drill-1"]
    assert set(cloud.instances) == {"keeper-drill-2", "app"}
    assert _instances(cloud).sweep() == []


def test_no_instance_is_made_beside_production(cloud: _CloudSql) -> None:
    with pytest.raises(Refused, match="beside production"):
        _instances(cloud, plane=_PLACE.project)


def test_without_the_right_to_make_instances_it_is_unavailable_in_words(cloud: _CloudSql) -> None:
    cloud.refused = True
    with pytest.raises(Unavailable, match=r"roles/cloudsql\.admin"):
        _instances(cloud).sweep()
