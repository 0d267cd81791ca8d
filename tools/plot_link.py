"""Draws docs/link-efficiency.svg: how much of a line the data phase uses over the bit error rate, against theory.

Theory: a frame of L bytes of segment and h of overhead arrives whole with (1 - p)^(8 (L + h)), so a link that repeats
exactly what is lost uses L / (L + h) of that; near L = sqrt(h / 8p) that is most. h is the link's own, L goes from its
shortest segment to its longest. Measured: pushes on the virtual line, by seeds, so the same code draws the same file.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "docs" / "link-efficiency.svg"
RATES = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
BAUDS = (115_200, 921_600)
LATENCY = 0.002
SIZE = 256 << 10
SEEDS = 8
INKS = ("#1f5fa8", "#b3541e")
WIDTH, HEIGHT = 720, 452
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 52, 56
DECADES = (-7, -3)  # of the horizontal axis
LEAST = 0.4  # of the vertical axis


@dataclass(frozen=True)
class Point:
    """Pushes at one bit error rate: mean, least and most of the line that they used, to three places."""

    rate: float
    mean: float
    least: float
    most: float


def theory(rate: float) -> float:
    """The most that any segment size of the link can reach."""
    from devguard.link.parameters import LinkParameters

    link = LinkParameters()
    best = math.sqrt(link.overhead / (8 * rate))
    size = min(max(best, link.segment_min), link.segment_max)
    return size / (size + link.overhead) * (1 - rate) ** (8 * (size + link.overhead))


def theory_words() -> str:
    """What the curve is."""
    from devguard.link.parameters import LinkParameters

    link = LinkParameters()
    return f"best segment of {link.segment_min} to {link.segment_max} bytes, {link.overhead} of overhead each"


def share(case: tuple[int, float, int, int]) -> float:
    """One push: (baud, bit error rate, seed, bytes of image)."""
    from devguard.bench.impair import Damage
    from devguard.bench.link_run import Trial, run_virtual
    from devguard.bench.way import Shape
    from devguard.device.models import load_model

    baud, rate, seed, size = case
    shape = Shape(baud, LATENCY, damage=Damage(ber=rate))
    return run_virtual(Trial(load_model("insulin-pump"), size, shape, seed)).line_efficiency


def measured(rates: Sequence[float], size: int, seeds: int, jobs: int | None = None) -> list[list[Point]]:
    """For each speed, a point at each rate; in so many processes, by default as many as there are processors."""
    cases = [(baud, rate, seed, size) for baud in BAUDS for rate in rates for seed in range(1, seeds + 1)]
    if jobs == 1:
        found = iter(list(map(share, cases)))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            found = iter(list(pool.map(share, cases)))
    groups = [[(rate, [next(found) for _ in range(seeds)]) for rate in rates] for _ in BAUDS]
    return [[point(rate, some) for rate, some in line] for line in groups]


def point(rate: float, shares: Sequence[float]) -> Point:
    """What pushes have used, put together."""
    return Point(rate, round(statistics.mean(shares), 3), round(min(shares), 3), round(max(shares), 3))


# the drawing


def across(rate: float) -> float:
    """Where a bit error rate stands."""
    first, last = DECADES
    return LEFT + (math.log10(rate) - first) / (last - first) * (WIDTH - LEFT - RIGHT)


def up(value: float) -> float:
    """Where a share of the line stands."""
    return TOP + (1 - value) / (1 - LEAST) * (HEIGHT - TOP - BOTTOM)


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, ink: str, width: float = 1.0) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{ink}" stroke-width="{width:g}"/>'


def path(points: Iterable[tuple[float, float]], ink: str, more: str = "") -> str:
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{steps}" fill="none" stroke="{ink}" stroke-width="1.8"{more}/>'


def axes() -> list[str]:
    """Grid, numbers and names of both axes."""
    found = []
    for tenth in range(round(LEAST * 10), 11):
        y = up(tenth / 10)
        found += [line(LEFT, y, WIDTH - RIGHT, y, "#dddddd"), text(LEFT - 8, y + 4, f"{tenth / 10:.1f}", "end")]
    for decade in range(DECADES[0], DECADES[1] + 1):
        x = across(10.0**decade)
        power = f'10<tspan dy="-5" font-size="9">{decade}</tspan>'
        found += [line(x, TOP, x, HEIGHT - BOTTOM, "#dddddd"), text(x, HEIGHT - BOTTOM + 20, power)]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    found.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "bit error rate"))
    found.append(text(18, middle, "share of the line", more=f' transform="rotate(-90 18 {middle:.1f})"'))
    return found


def curve(baud: int, points: Sequence[Point], ink: str, shift: float) -> list[str]:
    """The means of one speed, each with a bar from its worst seed to its best."""
    found = [path([(across(one.rate) + shift, up(one.mean)) for one in points], ink)]
    for one in points:
        x = across(one.rate) + shift
        tip = f"<title>{baud} baud, {one.rate:g}: {one.mean:.3f} ({one.least:.3f} to {one.most:.3f})</title>"
        found.append(line(x, up(one.least), x, up(one.most), ink))
        found.append(mark(x, up(one.mean), ink, tip))
    return found


def mark(x: float, y: float, ink: str, tip: str = "") -> str:
    """A point; each ink has its own shape, for those who see no colours."""
    if ink == INKS[0]:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{ink}">{tip}</circle>'
    return f'<rect x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4" fill="{ink}">{tip}</rect>'


def legend(entries: Iterable[tuple[str, str, str]]) -> list[str]:
    """What each line is: (words, ink, dashes)."""
    found = [f'<rect x="{LEFT + 8}" y="{HEIGHT - BOTTOM - 74}" width="412" height="64" fill="#ffffff"/>']
    for row, (words, ink, dashes) in enumerate(entries):
        y = HEIGHT - BOTTOM - 60 + 18 * row
        found.append(path([(LEFT + 14, y), (LEFT + 44, y)], ink, dashes))
        found += [] if dashes else [mark(LEFT + 29, y, ink)]
        found.append(text(LEFT + 52, y + 4, words, "start"))
    return found


def draw(lines: Sequence[Sequence[Point]], size: int, seeds: int) -> str:
    """The whole file."""
    steps = [10 ** (DECADES[0] + index / 40) for index in range((DECADES[1] - DECADES[0]) * 40 + 1)]
    dashes = ' stroke-dasharray="6 4"'
    best = [(across(rate), up(theory(rate))) for rate in steps if theory(rate) >= LEAST]
    title = f"Line efficiency of {size // 1024} KiB, sealed, {LATENCY * 1000:g} ms one way"
    below = f"points: mean of {seeds} seeds; bars: from the worst of them to the best"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12" fill="#222222" role="img">',
        "<title>devguard: line efficiency over bit error rate</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(WIDTH / 2, 20, title, more=' font-size="14"'),
        text(WIDTH / 2, 37, below, more=' fill="#555555"'),
        *axes(),
        path(best, "#555555", dashes),
    ]
    for index, (baud, points, ink) in enumerate(zip(BAUDS, lines, INKS, strict=True)):
        parts += curve(baud, points, ink, 4.0 * index - 2.0)
    named = [(f"{baud} baud", ink, "") for baud, ink in zip(BAUDS, INKS, strict=True)]
    parts += legend([(f"theory, {theory_words()}", "#555555", dashes), *named])
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description="draw the link's efficiency over the bit error rate")
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of image")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="pushes for each point")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each processor)")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    lines = measured(RATES, arguments.size, arguments.seeds, arguments.jobs)
    arguments.out.write_text(draw(lines, arguments.size, arguments.seeds), encoding="utf-8")
    for baud, points in zip(BAUDS, lines, strict=True):
        for one in points:
            print(f"{baud:7} {one.rate:7.0e}  {one.mean:.3f}  theory {theory(one.rate):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
