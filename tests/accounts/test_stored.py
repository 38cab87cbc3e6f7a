"""Which objects are an account's: by its own prefix, and by the names its rows give."""

import pytest

from shared.accounts.stored import below, prefix


@pytest.mark.parametrize(
    ("report", "name"),
    [
        ("lighthouse/1.json", "lighthouse/1.json"),
        ("gs://b/telemetry/lighthouse/1.json", "lighthouse/1.json"),
        ("gs://b/telemetry-2/lighthouse/1.json", None),
        ("gs://another/lighthouse/1.json", None),
        ("lighthouse/../../1.json", None),
        ("lighthouse//1.json", None),
        ("/etc/passwd", None),
        ("", None),
    ],
)
def test_a_rows_report_is_looked_for_in_its_bucket_only(report: str, name: str | None) -> None:
    assert below("gs://b/telemetry", report) == name


def test_no_accounts_prefix_begins_anothers() -> None:
    ids = ["a", "ab", "a/b", "a%2Fb", "..", "a b", "A"]
    prefixes = [prefix(account) for account in ids]
    assert len(set(prefixes)) == len(ids)
    assert not [(p, q) for p in prefixes for q in prefixes if p != q and q.startswith(p)]
    assert all(p.count("/") == 2 for p in prefixes)
