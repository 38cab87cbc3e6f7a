"""What looks for leaks finds them: planted in the output, the log, a program's words, a `.log` file and the rows."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shared.database import Database
from shared.manifest import ROOT
from tests import leaks

ADDRESS = "planted@example.com"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"mail to {ADDRESS}", "an e-mail address"),
        ("postgresql://app:pass-word@db/app", "a password in a URL"),
        ("authorization: Bearer abcdefghijklmnop", "a bearer token"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "a JSON web token"),
        ("key sk_live_abcdef", "a key of Stripe's"),
        ("whsec_abcdef", "a key of Stripe's"),
        ("AIza" + "x" * 35, "a key of Google's"),
        ("-----BEGIN PRIVATE KEY-----", "a private key"),
        ("SCRAM-SHA-256$4096:c2FsdA==$a:b", "a SCRAM verifier"),
        ("xx the planted value xx", "a secret's value"),
    ],
)
def test_each_shape_is_told_by_its_kind(text: str, kind: str) -> None:
    assert list(leaks.kinds(text, {"the planted value"})) == [kind]


def test_what_is_masked_and_what_names_a_machine_is_no_leak() -> None:
    masked = "postgresql://***:***@db/app Bearer *** <e-mail> task@project.iam.gserviceaccount.com image@sha256:abc"
    assert list(leaks.kinds(masked, {"the planted value"})) == []


def test_a_row_is_told_by_its_column_and_an_operators_name_is_let_be(database_url: str, db: Database) -> None:
    assert leaks.stored(database_url, {"100%_planted"}) == set()
    with db.transaction() as connection:
        connection.exec_driver_sql(
            "insert into groundskeeper.operator_audit (at, actor, action, subject, why, details) values"
            f" (now(), '{ADDRESS}', 'run', 'x', 'a 100%_planted value', '{{\"whom\": [\"{ADDRESS}\"]}}')"
        )
    assert leaks.stored(database_url, {"100%_planted"}) == {
        "groundskeeper.operator_audit.why: a secret's value",
        "groundskeeper.operator_audit.details.whom: an e-mail address",
    }
    with db.transaction() as connection:
        connection.exec_driver_sql("truncate groundskeeper.operator_audit")


PLANTED = f'''
    import logging, subprocess, sys

    def test_clean(): print("nothing")

    def test_prints(): print("{ADDRESS}")

    def test_reads_itself(capsys):
        print("{ADDRESS}")
        assert capsys.readouterr().out

    def test_runs_a_program():
        subprocess.run([sys.executable, "-c", "print('{ADDRESS}')"], capture_output=True, check=True)

    def test_leaves_a_log(tmp_path): (tmp_path / "a.log").write_text("{ADDRESS}")

    def test_tells_its_own_secret(tmp_path):
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets/1").write_text("nothing like a secret")
        print("nothing like a secret")
'''


def test_every_test_that_lets_something_out_fails_and_the_value_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(textwrap.dedent(PLANTED))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.leaks", "-p", "no:cacheprovider", "-rN", "-c", "/dev/null",
         tmp_path],
        cwd=ROOT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    said = done.stdout
    assert "6 passed, 5 errors" in said
    assert said.count("an e-mail address") == 4
    assert said.count("a secret's value") == 1
    assert ADDRESS not in said
    assert "test_clean let out" not in said
