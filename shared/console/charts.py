"""Inline SVG: a trend of durations, and a day's runs. Presentation attributes only, since the page allows no inline
style; colours are classes, so that light and dark are one picture."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup, escape

from shared.console.ledger import PARTS

_WIDTH, _HEIGHT = 96, 24
_PART, _ROW, _NAMES, _HOURS = 5, 14, 140, 14


def sparkline(seconds: Sequence[float], label: str) -> Markup:
    """The durations, oldest first, as a line; nothing for fewer than two."""
    if len(seconds) < 2:
        return Markup()
    top = max(seconds) or 1.0
    step = _WIDTH / (len(seconds) - 1)
    points = " ".join(f"{i * step:.1f},{_HEIGHT - 2 - s / top * (_HEIGHT - 4):.1f}" for i, s in enumerate(seconds))
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">'
        '<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    ).format(w=_WIDTH, h=_HEIGHT, label=label, points=points)


def timeline(tasks: Iterable[str], day: Mapping[str, Mapping[int, tuple[str, int]]]) -> Markup:
    """A row a task, a mark where it ran. The table below it says the same in words.

    Names stand at the right, beside the newest marks: where a narrow screen shows only that end, it shows both.
    """
    names = [name for name in tasks if name in day]
    width, height = PARTS * _PART + _NAMES, len(names) * _ROW
    hours = Markup().join(
        Markup(
            '<line x1="{x}" x2="{x}" y1="0" y2="{h}" class="hour"/>'
            '<text x="{x}" y="{y}" text-anchor="{anchor}">{ago}</text>'
        ).format(
            x=(24 - ago) * PARTS * _PART // 24,
            h=height,
            y=height + _HOURS - 4,
            anchor="start" if ago == 24 else "middle",
            ago=f"{ago} h ago" if ago else "now",
        )
        for ago in range(24, -1, -3)
    )
    rows = Markup().join(_row(i, name, day[name]) for i, name in enumerate(names))
    return Markup(
        '<svg class="timeline" viewBox="0 0 {w} {h}" role="img"'
        ' aria-label="Runs of the last 24 hours, a row a task">{hours}{rows}</svg>'
    ).format(w=width, h=height + _HOURS, hours=hours, rows=rows)


def _row(number: int, name: str, parts: Mapping[int, tuple[str, int]]) -> Markup:
    """Neighbouring parts of one outcome are one mark: what ticks each minute is a bar, not a thousand."""
    marks: list[tuple[int, int, str, int]] = []
    for part in sorted(parts):
        outcome, runs = parts[part]
        if marks and marks[-1][1] == part and marks[-1][2] == outcome:
            start, _, _, sum_of = marks.pop()
            marks.append((start, part + 1, outcome, sum_of + runs))
        else:
            marks.append((part, part + 1, outcome, runs))
    label = Markup('<text x="{x}" y="{y}">{name}</text>').format(
        x=PARTS * _PART + 6, y=number * _ROW + _ROW - 4, name=name
    )
    return label + Markup().join(
        Markup(
            '<rect x="{x}" y="{y}" width="{w}" height="{h}" class="o-{o}"><title>{name}: {runs} {o}</title></rect>'
        ).format(
            x=start * _PART,
            y=number * _ROW + 2,
            w=(end - start) * _PART,
            h=_ROW - 4,
            o=escape(o),
            name=name,
            runs=runs,
        )
        for start, end, o, runs in marks
    )
