"""A model's card: what it is, what it was tried against, what it cannot do, with plots drawn as SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _EDGE = 640, 260, 44
_COLOURS = ("#0b6e4f", "#c8553d", "#588b8b", "#8f6593", "#d4a017", "#5b5f97")

_ABOUT = {
    "sla": (
        "Per service, the probability of missing its target in the next 24 hours, and quantiles of that day's average "
        "response time. Learned from daily rollups; each account has the same say.",
        "It knows what a service has done, not what somebody is about to deploy. A service with no history is judged "
        "like the average one.",
    ),
    "threat": (
        "The probability that an hour of platform-wide traffic is an attack. Learned from windows with at least k "
        "accounts in them; no account, address, URL or user is in it.",
        "It learns what was labelled: operators' words, incidents, indicators. An attack that nobody noticed is "
        "labelled as none, and one that looks like everyday traffic is not seen.",
    ),
    "ces": (
        "The Countermeasure Effectiveness Score of the next 24 hours, 0 to 100, from platform-wide windows.",
        "The score is a formula of ours (docs/models.md) and no law of nature: it says how much of what looked "
        "suspicious was limited or blocked, not how much harm was done.",
    ),
}
_BEATEN = (
    "Loss is how far off the forecasts were: less is better. *Beaten* means that the whole interval is below zero; "
    "where it is not, less loss may be luck. An origin is a day from which only what was known until then was used."
)
_SAID = (
    "Each dot is a group of forecasts, the larger the more of them. On the dashed line what was said is what came; "
    "below it the model said too much, above it too little."
)


def card(
    model: str,
    seen: Mapping[str, str],
    *,
    rows: Mapping[str, int],
    metrics: Mapping[str, Mapping[str, Any]],
    compared: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> str:
    """The card as Markdown with SVG in it."""
    what, limits = _ABOUT[model]
    lines = [f"# {model}", "", what, "", f"**{seen['decision'].capitalize()}**: {seen['reason']}.", ""]
    lines += [
        f"- {name.replace('_', ' ')}: {value}" for name, value in seen.items() if name not in ("decision", "reason")
    ]
    for part, numbers in metrics.items():
        lines += ["", f"## {part}", "", f"{rows[part]} rows, {len(numbers['by_origin'])} origins.", ""]
        lines += _table(numbers, compared[part])
        lines += ["", _BEATEN, "", _bars(numbers["by_origin"], f"Loss at each origin: {part}"), ""]
        lines += [_calibration(numbers["calibration"], f"Said and seen: {part}"), "", _SAID, ""]
        lines += [
            f"- {name.replace('_', ' ')}: {value:.4g}"
            for name, value in sorted(numbers.items())
            if isinstance(value, int | float) and name != "loss"
        ]
    lines += ["", "## What it cannot do", "", limits, ""]
    return "\n".join(lines)


def _table(numbers: Mapping[str, Any], compared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| against | loss | difference (95 % interval) | beaten |", "|---|---|---|---|"]
    lines.append(f"| this model | {numbers['loss']:.4f} | | |")
    for name, c in compared.items():
        span = f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]"
        label = name if name == c["what"] else f"{name}: {c['what']}"
        lines.append(f"| {label} | {c['loss']:.4f} | {span} | {'yes' if c['beaten'] else 'no'} |")
    return lines


def _bars(by_origin: Sequence[Mapping[str, float]], title: str) -> str:
    names = list(by_origin[0])
    most = max(max(one.values()) for one in by_origin) or 1.0
    inner, height = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE
    step = inner / len(by_origin)
    width = step * 0.8 / len(names)
    shapes = []
    for n, one in enumerate(by_origin):
        for m, name in enumerate(names):
            tall = height * one.get(name, 0.0) / most
            x, y = _EDGE + n * step + m * width, _HEIGHT - _EDGE - tall
            shapes.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * 0.9:.1f}" height="{tall:.1f}" fill="{_colour(m)}"/>'
            )
        shapes.append(_text(_EDGE + n * step + step * 0.4, _HEIGHT - _EDGE + 16, f"origin {n + 1}", "middle"))
    shapes += _legend(names)
    shapes += [_text(_EDGE - 6, _EDGE, f"{most:.3g}", "end"), _text(_EDGE - 6, _HEIGHT - _EDGE, "0", "end")]
    return _svg(shapes, title)


def _calibration(rows: Sequence[Sequence[float]], title: str) -> str:
    most = max(max(row[0], row[1]) for row in rows) or 1.0
    least = min(min(row[0], row[1]) for row in rows)
    if least < most / 2:  # of a narrow range far from zero there would be nothing to see
        least = min(0.0, least)
    if least == most:
        least = most - 1.0
    inner, height = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE

    def at(x: float, y: float) -> tuple[float, float]:
        span = most - least
        return _EDGE + inner * (x - least) / span, _HEIGHT - _EDGE - height * (y - least) / span

    (x0, y0), (x1, y1) = at(least, least), at(most, most)
    shapes = [f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#999" stroke-dasharray="4 4"/>']
    for said, seen, share in rows:
        x, y = at(said, seen)
        shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 9 * share**0.5:.1f}" fill="{_colour(0)}" opacity="0.7"/>'
        )
    shapes += [
        _text(_EDGE + inner / 2, _HEIGHT - 10, "said", "middle"),
        _text(_EDGE - 6, _HEIGHT / 2, "seen", "end"),
        _text(_EDGE, _HEIGHT - _EDGE + 16, f"{least:.3g}", "middle"),
        _text(_EDGE + inner, _HEIGHT - _EDGE + 16, f"{most:.3g}", "middle"),
        _text(_EDGE - 6, _EDGE, f"{most:.3g}", "end"),
        _text(_EDGE - 6, _HEIGHT - _EDGE, f"{least:.3g}", "end"),
    ]
    return _svg(shapes, title)


def _legend(names: Sequence[str]) -> list[str]:
    shapes, x = [], float(_EDGE)
    for n, name in enumerate(names):
        shapes.append(f'<rect x="{x:.1f}" y="{_HEIGHT - 18}" width="10" height="10" fill="{_colour(n)}"/>')
        shapes.append(_text(x + 14, _HEIGHT - 9, name, "start"))
        x += 26 + 6.3 * len(name)
    return shapes


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}">{escape(words)}</text>'


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _svg(shapes: Sequence[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" font-family="sans-serif"><title>{escape(title)}</title>'
    )
    axis = f'<path d="M{_EDGE} {_EDGE}V{_HEIGHT - _EDGE}H{_WIDTH - _EDGE}" fill="none" stroke="#333"/>'
    return head + _text(_EDGE, 20, title, "start") + axis + "".join(shapes) + "</svg>"
