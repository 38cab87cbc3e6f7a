"""No feature knows what came after it, and nobody's data alone make what is published."""

import numpy as np
import pytest

from shared.models import backtest, traffic
from shared.models.baselines import BREACH, CES, THREAT
from shared.models.dataset import Floats
from shared.models.measures import measures
from shared.models.services import Days, breach
from shared.models.traffic import NAMES, Windows
from tests.conftest import NOW

DAY, HOUR = 86_400, 3600
END = int(NOW.timestamp())
ACCOUNTS = 40


def hours(n: int, *, without: int | None = None, seed: int = 4) -> Windows:
    """Windows made of forty accounts' requests, some with far more of them; attacks meet the large ones most."""
    rng = np.random.default_rng(seed)
    size = rng.dirichlet(np.full(ACCOUNTS, 2.0))
    attack = rng.random(n) < 0.08
    kind = rng.random(n) < 0.5
    requests = rng.poisson(600 * size * (1 + 2 * attack[:, None] * rng.random((n, ACCOUNTS))))
    hostile = attack[:, None] * rng.beta(2, 4, (n, ACCOUNTS))
    suspicious = rng.binomial(requests, np.clip(0.01 + 0.6 * hostile, 0, 1))
    bots = rng.binomial(requests, np.clip(0.04 + hostile * np.where(kind, 0.9, 0.1)[:, None], 0, 1))
    failed = rng.binomial(requests, np.clip(0.01 + hostile * np.where(kind, 0.0, 0.5)[:, None], 0, 1))
    met = rng.binomial(suspicious, 0.7)
    kept = np.arange(ACCOUNTS) != without
    total = {name: c[:, kept].sum(axis=1).astype(np.float64) for name, c in locals().items() if name in _COUNTS}
    columns = dict.fromkeys(NAMES, np.zeros(n)) | {
        "requests": total["requests"],
        "failure_ratio": total["failed"] / total["requests"],
        "suspicious_ratio": total["suspicious"] / total["requests"],
        "bot_ratio": total["bots"] / total["requests"],
        "rate_limited": total["met"],
        "rate_change": np.concatenate(([np.nan], total["requests"][1:] / total["requests"][:-1])),
        "attack": attack.astype(np.float64),
    }
    return Windows(END - HOUR * np.arange(n, 0, -1), HOUR, columns)


_COUNTS = ("requests", "suspicious", "bots", "failed", "met")


def services(*, days: int = 60, seed: int = 9) -> tuple[Floats, Floats]:
    """Rows as they are read, and the account of each: fifty services that miss their target in bouts."""
    rng = np.random.default_rng(seed)
    rows, accounts = [], []
    for service in range(50):
        down = 0.0
        for n in range(days):
            down = max(0.0, down - 0.3) if rng.random() > 0.04 else rng.uniform(0.2, 1)
            slow = np.exp(4 + 0.4 * down + 0.1 * rng.normal())
            answered = slow if rng.random() > 0.03 and n > service % 7 else np.nan
            accounts.append(service % ACCOUNTS)
            weight = 0.5 if service % ACCOUNTS < 10 else 1.0
            rows.append(
                (service, END - END % DAY - DAY * (days - n), 1 - 0.1 * down, 0.1 * down, answered, 99.9, weight)
            )
    return np.array(rows), np.array(accounts)


def test_no_feature_of_a_window_knows_what_came_after_it() -> None:
    whole = hours(400)
    for cut in (1, 30, 200, 399):
        before = Windows(whole.start[:cut], HOUR, {name: whole[name][:cut] for name in NAMES})
        assert np.array_equal(traffic.threat_features(before), traffic.threat_features(whole)[:cut])
        assert np.array_equal(traffic.ces_features(before), traffic.ces_features(whole)[:cut])


def test_no_feature_of_a_service_knows_what_came_after_it() -> None:
    table, _ = services()
    whole = Days.of(table)
    for days in (1, 5, 30, 59):
        rows = table[:, 1] < table[:, 1].min() + DAY * days
        before = Days.of(table[rows])
        for name in ("x", "missed_week_ago", "latency_week_ago"):
            assert np.array_equal(getattr(before, name), getattr(whole, name)[rows], equal_nan=True)
    assert np.isnan(whole.x).any(), "a service that has not answered yet has no latency, not the one to come"


@pytest.mark.full
def test_leaving_any_one_account_out_hardly_changes_what_is_published_of_services() -> None:
    """docs/models.md: the loss by less than a tenth of it, the area under the curve by less than 0.03."""
    table, account = services()

    def published(rows: Floats) -> tuple[float, float]:
        data = breach(Days.together([Days.of(rows)]))
        tested = backtest.run(data, BREACH, None)
        return tested.loss, measures("probability", tested)["auc"]

    loss, area = published(table)
    for left_out in range(ACCOUNTS):
        less, less_area = published(table[account != left_out])
        assert abs(less - loss) < 0.1 * loss, left_out
        assert abs(less_area - area) < 0.03, left_out


@pytest.mark.full
def test_leaving_any_one_account_out_hardly_changes_what_is_published_of_traffic() -> None:
    """docs/models.md: the loss of threat by less than 0.02, of ces by less than one point."""

    def published(without: int | None) -> tuple[float, float]:
        w = hours(1500, without=without)
        threat, ces = traffic.threat(w, now=END), traffic.ces(w, now=END)
        return backtest.run(threat, THREAT, None).loss, backtest.run(ces, CES, None).loss

    whole = published(None)
    changes = [np.abs(np.subtract(published(n), whole)) for n in range(0, ACCOUNTS, 4)]
    assert (np.max(changes, axis=0) < (0.02, 1.0)).all()
