"""Small charts as SVG, drawn here: bars of counts, bars in two kinds by week, and one bar in parts.

Colours come from the stylesheet by class, so that dark, light and forced colours work; there is no inline style. A
title and a description say what is drawn, and the page has a table with the same numbers beside it. Whatever text goes
in is escaped. Source: SVG 2; WAI-ARIA (role img).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 640
_LABEL, _COUNT, _BAR, _GAP = 220, 64, 22, 8
_HIGH, _FOOT, _LEFT = 160, 26, 40
_LABELLED: Final = 80  # how wide a day is, written out
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and its numbers. rows: what the table beside it shows; heads: of its columns."""

    svg: Markup
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.rows)


def bars(title: str, about: str, rows: Sequence[tuple[str, int, str]], heads: tuple[str, str] = ("", "")) -> Chart:
    """One bar a row: (label, count, class of its colour or "")."""
    most = max((count for _, count, _ in rows), default=0) or 1
    room = WIDTH - _LABEL - _COUNT
    parts = []
    for place, (label, count, kind) in enumerate(rows):
        y = place * (_BAR + _GAP)
        width = round(count / most * room, 1)
        shown = label if len(label) <= 30 else label[:29] + "…"
        parts += [
            _text(shown, 0, y + 16),
            f'<rect class="bar {escape(kind)}" x="{_LABEL}" y="{y}" width="{width}" height="{_BAR}" rx="3"/>',
            _text(str(count), _LABEL + width + 8, y + 16),
        ]
    high = max(len(rows) * (_BAR + _GAP), 1)
    table = tuple((label, str(count)) for label, count, _ in rows)
    return Chart(_svg(title, about, high, parts), heads, table)


def columns(
    title: str, about: str, rows: Sequence[tuple[str, int, int]], heads: tuple[str, str, str], kinds: tuple[str, str]
) -> Chart:
    """Two columns a row, side by side: (label, first, second)."""
    most = max((max(one, other) for _, one, other in rows), default=0) or 1
    step = (WIDTH - _LEFT) / max(len(rows), 1)
    wide = round(min(step * 0.38, 24), 1)
    parts = [
        f'<line class="axis" x1="{_LEFT}" y1="{_HIGH}" x2="{WIDTH}" y2="{_HIGH}"/>',
        _text(str(most), 0, 12),
        _text("0", 0, _HIGH),
    ]
    every = max(1, len(rows) // 6)
    for place, (label, one, other) in enumerate(rows):
        x = round(_LEFT + place * step + step * 0.1, 1)
        for number, (count, kind) in enumerate(((one, kinds[0]), (other, kinds[1]))):
            high = round(count / most * (_HIGH - 12), 1)
            at, top = round(x + number * (wide + 1), 1), round(_HIGH - high, 1)
            parts.append(f'<rect class="bar {escape(kind)}" x="{at}" y="{top}" width="{wide}" height="{high}"/>')
        if place % every == 0 and x + _LABELLED <= WIDTH:
            parts.append(_text(label, x, _HIGH + 18))
    table = tuple((label, str(one), str(other)) for label, one, other in rows)
    return Chart(_svg(title, about, _HIGH + _FOOT, parts), heads, table)


def parted(title: str, about: str, rows: Sequence[tuple[str, int, str]], heads: tuple[str, str] = ("", "")) -> Chart:
    """One bar in parts: (label, count, class of its colour)."""
    total = sum(count for _, count, _ in rows) or 1
    parts, x = [f'<rect class="bar rest" x="0" y="0" width="{WIDTH}" height="28" rx="4"/>'], 0.0
    for _, count, kind in rows:
        width = count / total * WIDTH
        if count:
            parts.append(
                f'<rect class="bar {escape(kind)}" x="{round(x, 1)}" y="0" width="{round(width, 1)}" height="28"/>'
            )
        x += width
    return Chart(_svg(title, about, 28, parts), heads, tuple((label, str(count)) for label, count, _ in rows))


def _text(text: str, x: float, y: float) -> str:
    return f'<text x="{round(x, 1)}" y="{round(y, 1)}">{escape(text)}</text>'


def _svg(title: str, about: str, high: float, parts: Iterable[str]) -> Markup:
    name = f"chart-{next(_numbers)}"
    inside = "".join(parts)
    return Markup(  # noqa: S704 (every text in it went through escape)
        f'<svg class="chart" role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {WIDTH} {high}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(about)}</desc>{inside}</svg>'
    )
