"""What the current models say: forecasts of services, scores of windows. Plain arrays; no torch."""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import text

from shared.context import Context
from shared.models import services, traffic
from shared.models.dataset import Floats, Mask
from shared.models.registry import Loaded

_BATCH = 5000
_BACK_S = 48 * 3600

_FORECAST = text("""
    insert into service_forecast as f
           (service_id, account_id, version, made_at, breach_probability, p50_ms, p90_ms, p95_ms)
    select s.id, s.account_id, :version, :now, n.breach, n.p50, n.p90, n.p95
      from unnest(cast(:services as bigint[]), cast(:breach as float8[]), cast(:p50 as float8[]),
                  cast(:p90 as float8[]), cast(:p95 as float8[])) as n(id, breach, p50, p90, p95)
      join monitored_service s on s.id = n.id
     order by s.id
        on conflict (service_id) do update
       set account_id = excluded.account_id, version = excluded.version, made_at = excluded.made_at,
           breach_probability = excluded.breach_probability, p50_ms = excluded.p50_ms, p90_ms = excluded.p90_ms,
           p95_ms = excluded.p95_ms
     where f.made_at < excluded.made_at""")

_SCORE = text("""
    insert into platform_score
           (window_start, width_s, threat_version, attack_probability, ces_version, ces, made_at)
    select n.start, :width, :threat_version, n.attack, :ces_version, n.ces, :now
      from unnest(cast(:starts as timestamptz[]), cast(:attack as float8[]), cast(:ces as float8[]))
           as n(start, attack, ces)
     order by n.start
        on conflict (window_start, width_s) do update
       set threat_version = excluded.threat_version, attack_probability = excluded.attack_probability,
           ces_version = excluded.ces_version, ces = excluded.ces, made_at = excluded.made_at""")


def forecast(ctx: Context, model: Loaded, days: services.Days, newest: datetime) -> None:
    """Write the next 24 hours of each service whose newest day began at `newest`."""
    unanswered = services.FEATURES.index("latency_day")
    rows = days[(days.start == int(newest.timestamp())) & np.isfinite(days.x[:, :unanswered]).all(axis=1)]
    slow: Mask = np.asarray(np.isfinite(rows.x).all(axis=1))
    breach = model.parts["breach"].predict(np.nan_to_num(rows.x))
    latency = np.exp(model.parts["latency"].predict(np.nan_to_num(rows.x)))
    for first in range(0, len(rows), _BATCH):
        part = slice(first, first + _BATCH)
        quantiles = [
            [float(v) if known else None for v, known in zip(column, slow[part], strict=True)]
            for column in latency[part].T
        ]
        with ctx.begin() as connection:
            connection.execute(
                _FORECAST,
                {
                    "version": model.version,
                    "now": ctx.clock.now(),
                    "services": rows.service[part].tolist(),
                    "breach": breach[part].tolist(),
                    "p50": quantiles[0],
                    "p90": quantiles[1],
                    "p95": quantiles[2],
                },
            )
            ctx.count("forecasts", len(rows.service[part]))


def score(ctx: Context, models: Mapping[str, Loaded | None], windows: traffic.Windows) -> None:
    """Write what the models say of the windows of the last two days; nothing where none is current."""
    threat, ces = models.get("threat"), models.get("ces")
    recent = np.flatnonzero(windows.start >= int(ctx.now.timestamp()) - _BACK_S)
    if (threat is None and ces is None) or not len(recent):
        return
    x, y = traffic.threat_features(windows)[recent], traffic.ces_features(windows)[recent]
    whole = recent[np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)]
    kept = np.isin(recent, whole)
    with ctx.begin() as connection:
        connection.execute(
            _SCORE,
            {
                "width": windows.width_s,
                "threat_version": threat.version if threat else None,
                "ces_version": ces.version if ces else None,
                "starts": [datetime.fromtimestamp(at, UTC) for at in windows.start[whole].tolist()],
                "attack": _said(threat, "threat", x[kept]),
                "ces": _said(ces, "ces", y[kept]),
                "now": ctx.clock.now(),
            },
        )
        ctx.count("scores", len(whole))


def _said(model: Loaded | None, part: str, x: Floats) -> list[float | None]:
    return [None] * len(x) if model is None else [float(v) for v in model.parts[part].predict(x)]
