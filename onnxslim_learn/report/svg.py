"""A chart of points as SVG: axes with ticks, a name at each point, and a line through the best."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.report.blocks import Point, Scatter

# Pixels: the frame, and what is left of it, above, to the right and below.
WIDE, HIGH, LEFT, TOP, RIGHT, BELOW = 640, 320, 80, 24, 110, 52
NEAR = (60, 11)  # points nearer than this share a name
LETTER = 7  # of a name, about
TICKS = 5
BEST, OTHER = "#2f6fab", "#e08a2e"  # told apart by the colour-blind, too


def draw(chart: Scatter) -> str:
    """The chart, without its title."""
    top = [max((one[k] for one in ((p.x, p.y) for p in chart.points)), default=0.0) for k in range(2)]
    steps = [step(most) for most in top]
    ends = [max(math.ceil(most / one - 1e-9), 1) * one for most, one in zip(top, steps, strict=True)]
    placed = [
        replace(p, x=LEFT + WIDE * p.x / ends[0], y=TOP + HIGH * (1 - p.y / ends[1]))
        for p in sorted(chart.points, key=lambda p: (p.x, -p.y))
    ]
    best = [p for p in placed if p.best]
    parts = [f'<path d="M{LEFT} {TOP}v{HIGH}h{WIDE}" fill="none" stroke="currentColor" opacity=".4"/>']
    parts += _ticks(chart, steps, ends)
    if len(best) > 1:
        path = "L".join(f"{p.x:.1f} {p.y:.1f}" for p in best)
        parts.append(f'<path d="M{path}" fill="none" stroke="{BEST}" stroke-width="1.5" opacity=".6"/>')
    parts += [_mark(p) for p in placed] + [_name(names, p) for names, p in _named(placed)]
    box = f"{LEFT + WIDE + RIGHT} {TOP + HIGH + BELOW}"
    size = 'width="{}" height="{}"'.format(*box.split())
    about = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box}" {size} role="img"'
    drawn = "\n".join(parts)
    return f'<svg {about} aria-label="{escape(chart.title)}">\n{drawn}\n</svg>'


def step(most: float) -> float:
    """A round distance of ticks, of which at most so many are needed: 1, 2 or 5 times a power of ten."""
    if not most > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most / TICKS))
    return next(power * k for k in (1, 2, 5, 10) if power * k * TICKS >= most * (1 - 1e-9))


def _ticks(chart: Scatter, steps: Sequence[float], ends: Sequence[float]) -> list[str]:
    """Numbers along both axes, and what they are."""
    parts, floor = [], TOP + HIGH
    for k in range(round(ends[0] / steps[0]) + 1):
        x = LEFT + WIDE * k * steps[0] / ends[0]
        parts.append(f'<path d="M{x:.1f} {floor}v5" stroke="currentColor" opacity=".4"/>')
        text = chart.forms[0].format(k * steps[0])
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{escape(text)}</text>')
    for k in range(round(ends[1] / steps[1]) + 1):
        y = floor - HIGH * k * steps[1] / ends[1]
        parts.append(f'<path d="M{LEFT - 5} {y:.1f}h5" stroke="currentColor" opacity=".4"/>')
        text = chart.forms[1].format(k * steps[1])
        parts.append(f'<text x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    across, up = map(escape, chart.axes)
    parts.append(f'<text x="{LEFT + WIDE / 2}" y="{floor + 40}" text-anchor="middle">{across}</text>')
    turned = f'transform="rotate(-90 16 {TOP + HIGH / 2})"'
    parts.append(f'<text x="16" y="{TOP + HIGH / 2}" text-anchor="middle" {turned}>{up}</text>')
    return parts


def _mark(point: Point) -> str:
    """Full where it is one of the best, else a ring."""
    colour = BEST if point.best else OTHER
    inside = colour if point.best else "none"
    circle = f'<circle cx="{point.x:.1f}" cy="{point.y:.1f}" r="5" fill="{inside}" stroke="{colour}" stroke-width="2"/>'
    return f"<g><title>{escape(f'{point.name}: {point.text}')}</title>{circle}</g>"


def _named(points: Sequence[Point]) -> list[tuple[str, Point]]:
    """Names and where they stand: one for points that lie together."""
    labels: list[tuple[str, Point]] = []
    for point in points:
        last = labels[-1][1] if labels else None
        if last is not None and abs(point.x - last.x) < NEAR[0] and abs(point.y - last.y) < NEAR[1]:
            labels[-1] = f"{labels[-1][0]}, {point.name}", point
        else:
            labels.append((point.name, point))
    return labels


def _name(text: str, point: Point) -> str:
    """A name above and to the right of a point, or to the left where there is no room."""
    fits = point.x + 8 + LETTER * len(text) < LEFT + WIDE + RIGHT
    side, anchor = (8, "start") if fits else (-8, "end")
    return f'<text x="{point.x + side:.1f}" y="{point.y - 8:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
