"""The picture of a network as SVG: layers in ranks from top to bottom, blocks folded where there are many."""

from __future__ import annotations

import colorsys
import itertools
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import printable
from onnxslim_learn.report.format import count, plural
from onnxslim_learn.report.network import HUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Node = Mapping[str, Any]

MOST = 60  # boxes: more are folded into blocks
LONGEST, LEAST = 150, 4  # pixels of the widest layer's bar, and of the narrowest
HIGH, BAR, PAD = 46, 12, 9  # pixels of a box, of its bar, and around what it says
BESIDE, BELOW, MARGIN = 22, 30, 20  # pixels between boxes, and around the picture
LETTER = 6.3  # pixels
NAME = 30  # letters of a label
BEND = 10  # pixels of a rank that a line through it takes
STILL = "#98a2ae"
SAID = ("Filled: units that stay; dashed: those that were there.", "What has one colour is cut together; grey stays.")


@dataclass
class Box:
    """What is drawn as one: a layer, a folded block, or (without layers) where a line passes a rank.

    Attributes:
        label: What it is called.
        layers: Places of its layers.
        wide: Pixels.
        rank: From the top.
        x: Of its middle.
    """

    label: str
    layers: list[int]
    wide: float
    rank: int = 0
    x: float = 0.0


def svg(nodes: Sequence[Node], groups: Sequence[Mapping[str, Any]]) -> str:
    """Draw a network.

    Args:
        nodes: Its layers, as :func:`onnxslim_learn.report.network.network` gives them.
        groups: What is cut together: ``name``, and ``prunable`` where it is not.

    Returns:
        A document.
    """
    widest = max((max(node["width"]) for node in nodes if node["width"]), default=1)
    colours = _colours(groups)
    boxes, box_of = _boxes(nodes, widest)
    lines = _ranked(nodes, boxes, box_of)
    rows = _rows(boxes, lines)
    left = min(box.x - box.wide / 2 for row in rows for box in row) - MARGIN
    wide = max(max(box.x + box.wide / 2 for row in rows for box in row) - left + MARGIN, max(map(len, SAID)) * LETTER)
    high = len(rows) * (HIGH + BELOW) - BELOW + 4 * MARGIN
    drawn = [f'<path d="{_path(line)}" fill="none" stroke="#566273" stroke-opacity=".5"/>' for line in lines]
    for box in (box for box in boxes if box.layers):
        drawn += _drawn(box, [nodes[k] for k in box.layers], widest, colours)
    size = f'width="{wide:.0f}" height="{high:.0f}" viewBox="{left:.0f} 0 {wide:.0f} {high:.0f}"'
    said = [_text(left + MARGIN / 2, MARGIN * (k + 1), line, "#566273") for k, line in enumerate(SAID)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    paper = f'<rect x="{left:.0f}" width="{wide:.0f}" height="{high:.0f}" fill="white"/>'
    return "\n".join([head, paper, *said, *drawn, "</svg>"]) + "\n"


# --- what is one box --------------------------------------------------------------------------------------------------


def _boxes(nodes: Sequence[Node], widest: int) -> tuple[list[Box], list[int]]:
    """The boxes in the order of the file, and that of every layer."""
    key = _folding(nodes)
    places: dict[Any, list[int]] = {}
    for place, node in enumerate(nodes):
        places.setdefault(key(place, node), []).append(place)
    boxes, box_of = [], [0] * len(nodes)
    for number, layers in enumerate(places.values()):
        first = nodes[layers[0]]
        if len(layers) == 1:
            label, said = _called(first), _units(first)
        else:
            label, said = _short(key(layers[0], first)), _held([nodes[place] for place in layers])
        bar = _long(max(first["width"]), widest) + 6 if len(layers) == 1 and first["width"] else 0
        boxes.append(Box(label, layers, max(len(label) * LETTER, bar + len(said) * LETTER) + 2 * PAD))
        for place in layers:
            box_of[place] = number
    return boxes, box_of


def _folding(nodes: Sequence[Node]) -> Callable[[int, Node], Any]:
    """What layers of one box have alike: so many words of their module that boxes are few, else their place."""
    words = [str(node["module"]).split(".") if node["module"] else [] for node in nodes]
    for depth in range(max(map(len, words), default=0), 0, -1):

        def key(place: int, node: Node, depth: int = depth) -> Any:
            return ".".join(words[place][:depth]) if len(words[place]) >= depth else place

        alone = len(nodes) <= MOST
        if alone or len({key(place, node) for place, node in enumerate(nodes)}) <= MOST:
            return (lambda place, node: place) if alone else key
    run = -(-len(nodes) // MOST)
    return lambda place, node: f"layers {place // run * run + 1} to {min((place // run + 1) * run, len(nodes))}"


def _called(node: Node) -> str:
    """A layer by its operator and the end of its module."""
    words = str(node["module"]).split(".")
    words = words[:-1] if words[1:] and words[-1].lower() == str(node["op_type"]).lower() else words
    module = ".".join(words[-2:])
    return str(node["name"]) if node["op_type"] == "input" else f"{node['op_type']} {_short(module)}".strip()


def _held(layers: Sequence[Node]) -> str:
    before, after = (sum(node["macs"][side] for node in layers) for side in range(2))
    macs = f"{count(before)} to {count(after)}" if before != after else count(before)
    return f"{plural(len(layers), 'layer')}, {macs} MACs"


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _units(node: Node) -> str:
    width = node["width"]
    return "" if not width else str(width[0]) if width[0] == width[1] else f"{width[0]} → {width[1]}"


# --- where it lies ----------------------------------------------------------------------------------------------------


def _ranked(nodes: Sequence[Node], boxes: list[Box], box_of: Sequence[int]) -> list[list[Box]]:
    """Every line as the boxes that it leads through, from the one it leaves; ranks are set."""
    edges = ((box_of[source], box_of[place]) for place, node in enumerate(nodes) for source in node["inputs"])
    pairs = dict.fromkeys(edges)
    forward = sorted((min(pair), max(pair)) for pair in pairs if pair[0] != pair[1])
    for source, target in sorted(forward, key=lambda pair: pair[1]):
        boxes[target].rank = max(boxes[target].rank, boxes[source].rank + 1)
    lines = []
    for source, target in dict.fromkeys(forward):
        first, last = boxes[source], boxes[target]
        between = [Box("", [], BEND, rank) for rank in range(first.rank + 1, last.rank)]
        boxes += between
        lines.append([first, *between, last])
    return lines


def _rows(boxes: Sequence[Box], lines: Sequence[Sequence[Box]]) -> list[list[Box]]:
    """Boxes by rank, each row in the order of what its boxes follow."""
    rows: list[list[Box]] = [[] for _ in range(max(box.rank for box in boxes) + 1)]
    for box in boxes:
        rows[box.rank].append(box)
    above: dict[int, list[Box]] = {}
    for line in lines:
        for source, target in itertools.pairwise(line):
            above.setdefault(id(target), []).append(source)

    for row in rows:
        wishes = {id(box): _middle(above.get(id(box), ())) for box in row}
        row.sort(key=lambda box: wishes[id(box)])
        x = 0.0
        for box in row:
            box.x, x = x + box.wide / 2, x + box.wide + BESIDE
        moved = sum((wishes[id(box)] - box.x) * box.wide**2 for box in row) / sum(box.wide**2 for box in row)
        for box in row:
            box.x += moved
    return rows


def _middle(boxes: Sequence[Box]) -> float:
    """The middle of some boxes, wide ones counting for more: lines that pass bend, layers stand below each other."""
    return sum(box.x * box.wide**2 for box in boxes) / sum(box.wide**2 for box in boxes) if boxes else 0.0


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _top(box: Box) -> float:
    return 3 * MARGIN + box.rank * (HIGH + BELOW)


def _path(line: Sequence[Box]) -> str:
    """A line from the foot of a box to the head of another, past those between."""
    points = [(line[0].x, _top(line[0]) + HIGH)]
    for box in line[1:-1]:
        points += [(box.x, _top(box)), (box.x, _top(box) + HIGH)]
    points.append((line[-1].x, _top(line[-1])))
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _drawn(box: Box, layers: Sequence[Node], widest: int, colours: Mapping[str, str]) -> Iterator[str]:
    """A box with its label, and its bar or what it holds."""
    left, top, node = box.x - box.wide / 2, _top(box), layers[0]
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{box.wide:.1f}" height="{HIGH}" rx="5"'
    yield f'<rect {frame} fill="{"#f6f7f9" if len(layers) > 1 else "white"}" stroke="#98a2ae"/>'
    yield _text(left + PAD, top + 18, box.label)
    if len(layers) > 1:
        yield _text(left + PAD, top + 36, _held(layers), "#566273")
    elif node["width"]:
        before, after = (_long(width, widest) for width in node["width"])
        bar = f'x="{left + PAD:.1f}" y="{top + 26:.1f}" height="{BAR}" rx="2"'
        colour = colours.get(str(node["group"]), STILL)
        yield f'<rect {bar} width="{after:.1f}" fill="{colour}"/>'
        if before != after:
            yield f'<rect {bar} width="{before:.1f}" fill="none" stroke="{colour}" stroke-dasharray="3 2"/>'
        yield _text(left + PAD + max(before, after) + 6, top + 36, _units(node), "#566273")


def _long(units: int, widest: int) -> float:
    return float(max(LEAST, LONGEST * (units / widest) ** 0.5)) if units else 0.0


def _text(x: float, y: float, said: str, colour: str = "#1c2430") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{escape(printable(said))}</text>'


def _colours(groups: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Group -> its colour, as in pages."""
    colours = {}
    for number, group in enumerate(groups):
        if group.get("prunable", True):
            light = 0.52 - 0.09 * (number // len(HUES) % 3)
            parts = colorsys.hls_to_rgb(HUES[number % len(HUES)] / 360, light, 0.48)
            colours[group["name"]] = "#" + "".join(f"{round(255 * part):02x}" for part in parts)
    return colours
