"""Nothing that must not be shown is shown."""

import json
import logging
import time
from urllib.parse import quote

import pytest

from shared import logs
from shared.redaction import describe, redact, register


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://keeper:hunter2@10.0.0.3/db",
        "Bearer abc.def-ghi",
        "sk_live_abcdef123456",
        "whsec_abcdef123456",
        "eyJhbGciOiJub25l.eyJzdWIiOiIx.x",
        "ya29.a0AfH6SMBx",
        "AIzaSyA-a0Afa0Afa0Afa0Afa0Afa0Afa0Afa0A",
        "-----BEGIN PRIVATE KEY-----\\nhunter2\\nabcdef\\n-----END PRIVATE KEY-----",
        "jo@example.com",
    ],
)
def test_shapes_of_secrets_and_personal_data_are_masked(secret: str) -> None:
    shown = redact(f"before {secret} after")
    for part in ("hunter2", "abc.def", "abcdef", "eyJ", "a0Af", "jo@"):
        assert part not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_every_secret_that_was_read_is_masked() -> None:
    register("correct horse battery")
    assert redact("the correct horse battery staple") == "the *** staple"


@pytest.mark.parametrize("secret", ['with "quotes" and\nlines', "ümläute ß", "p@ss/wörd+1"])
def test_a_secret_is_masked_however_it_is_written(secret: str) -> None:
    register(secret + "\n")
    written = (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), quote(secret, safe=""))
    for form in written:
        assert form.strip('"') not in redact(f"before {form} after")


def test_a_secret_that_begins_like_another_leaves_nothing_of_it() -> None:
    register("correct horse")
    register("correct horse battery staple")
    assert redact("a correct horse battery staple b") == "a *** b"


def test_a_long_word_takes_no_longer_than_its_length() -> None:
    began = time.process_time()
    redact("x" * 2_000_000)
    assert time.process_time() - began < 5  # it was the square of its length: hours


def test_what_no_database_column_takes_is_left_out() -> None:
    assert redact("a\0b") == "ab"


def test_a_defect_is_described_without_its_message() -> None:
    def fail() -> None:
        raise KeyError("jo@example.com")

    with pytest.raises(KeyError) as caught:
        fail()
    assert "example" not in describe(caught.value)
    assert describe(caught.value).startswith("KeyError at ")
    assert "test_redaction.py" in describe(caught.value)


def test_a_log_line_is_json_with_its_fields_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("stdout", logging.INFO)
    with logs.fields(run_id="r1", **logs.trace_fields("105445aa7843bc8bf206b12000100000/1;o=1", "demo")):
        logs.log.info("kept manual grant", account="a1", address="jo@example.com")
        try:
            raise ValueError("jo@example.com")
        except ValueError as error:
            logs.log.defect("the task has a defect", error)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["severity"] == "INFO"
    assert first["message"] == "kept manual grant"
    assert (first["run_id"], first["account"], first["address"]) == ("r1", "a1", "<e-mail>")
    assert first["logging.googleapis.com/trace"] == "projects/demo/traces/105445aa7843bc8bf206b12000100000"
    assert (second["severity"], second["exception"]) == ("ERROR", "ValueError")
    assert "example" not in json.dumps(second)


def test_a_librarys_warning_is_a_line_like_ours_without_its_errors_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("stdout")
    try:
        raise ValueError("Key (email)=(jo@example.com) already exists")
    except ValueError:
        logging.getLogger("sqlalchemy.pool.impl.QueuePool").exception("terminating postgresql://u:hunter2@h/d")
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["severity"], said["exception"], err) == ("ERROR", "ValueError", "")
    assert "example" not in out
    assert "hunter2" not in out
