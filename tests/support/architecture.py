"""The picture of docs/architecture.md, drawn from the imports of `src/holdfast`: `make picture` writes it.

A ring is what lies at the top of the package: a folder, or a module that stands there alone. A room is a folder in a
ring, or a module beside such folders; a ring without folders is one room. An arrow leads down to what is imported:
between rooms of one ring, and between rings. One that is said by two others is left out (the transitive reduction).
Rings and rooms are what the tree holds; no list names them. The same tree gives the same bytes.
"""

import ast
import graphlib
import itertools
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from support.pages import DOCS, ROOT

PACKAGE = ROOT / "src" / "holdfast"
PICTURE = DOCS / "architecture.svg"
FACE = "holdfast"
"""What the package face, `__init__.py`, is called in the picture."""

WIDTH = 900
GAP, BESIDE, PADDING = 26, 10, 8
NAME_PX, NOTE_PX, NOTE_LINE_PX = 12, 10, 12
ADVANCE = 0.61
"""How wide a letter of a monospaced font is, as a share of its size."""
ROOM_LETTERS, RING_LETTERS = 18, 40
"""After how many letters the modules of a room, and those of a ring without rooms, begin a new line."""
FROM_PX, TO_PX = 22, 14
"""How far apart, at most, lines leave a box, and come to one."""
SWEEPS = 40
FILLS = ("#eef4fb", "#f1f7ee", "#fbf4e9", "#f6f0fa", "#fdf0ee", "#eef7f6", "#f6f6ea")

Arrows = dict[str, set[str]]


class Point(NamedTuple):
    """A place in the picture, in pixels from its upper left corner."""

    x: float
    y: float


class Laid(NamedTuple):
    """Boxes laid in floors: how large all of it is, the left upper corner of each box, the lines between them."""

    width: float
    height: float
    places: dict[str, Point]
    lines: list[tuple[str, str, list[Point]]]


class Box(NamedTuple):
    """A room, or a ring: its name, the lines of modules below it, and what is inside."""

    name: str
    notes: list[str]
    inner: "Laid | None"
    boxes: "dict[str, Box]"
    width: float
    height: float


# What the tree says.


def modules(package: Path = PACKAGE) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """Parts of each module's dotted name, the package's own left out -> those of the modules it imports."""
    files = {parts_of(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    return {name: set(imported(path.read_text("utf-8"), files)) - {name} for name, path in files.items()}


def parts_of(path: Path) -> tuple[str, ...]:
    """`core/wire/frame.py` -> `core`, `wire`, `frame`; `core/__init__.py` -> `core`; the face -> nothing."""
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(text: str, known: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """What a module imports of the package, under TYPE_CHECKING and inside functions too."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, *parts = name.split(".")
            if top == "holdfast":
                # `from holdfast.core.audit import cut` imports a module, `import Cut` a name of one.
                yield tuple(parts) if tuple(parts) in known else tuple(parts[:-1])


def ring_of(module: tuple[str, ...]) -> str:
    """The ring of a module."""
    return module[0] if module else FACE


def room_of(module: tuple[str, ...]) -> str:
    """The room of a module, in its ring; nothing for what only marks the ring's folder."""
    return module[1] if len(module) > 1 else ""


def between(pairs: Iterable[tuple[str, str]], names: Iterable[str]) -> Arrows:
    """Arrows between names from pairs of importer and imported; a name without arrows is there as well."""
    found: Arrows = {name: set() for name in sorted(names)}
    for one, other in pairs:
        if one != other:
            found[one].add(other)
    return found


# Which arrows are drawn, and which box stands on which floor.


def without_circles(arrows: Arrows) -> tuple[Arrows, set[tuple[str, str]]]:
    """The arrows without those that close a circle, and those: the picture shows them going up, in red."""
    left, taken = {name: set(others) for name, others in arrows.items()}, set[tuple[str, str]]()
    while True:
        try:
            graphlib.TopologicalSorter(left).prepare()
            return left, taken
        except graphlib.CycleError as error:
            # The circle comes as a way from imported to importer; the arrow of the first name in order goes.
            way: list[str] = error.args[1]
            importer, other = min((one, other) for other, one in itertools.pairwise(way))
            left[importer].discard(other)
            taken.add((importer, other))


def reach(arrows: Arrows) -> Arrows:
    """What each name reaches, by one arrow or more."""
    found: Arrows = {}
    for name in graphlib.TopologicalSorter(arrows).static_order():
        found[name] = arrows[name].union(*(found[other] for other in arrows[name]))
    return found


def reduced(arrows: Arrows) -> Arrows:
    """Those arrows that no two others say: the transitive reduction of a graph without circles."""
    reached = reach(arrows)
    return {name: others - set[str]().union(*(reached[other] for other in others)) for name, others in arrows.items()}


def floors_of(arrows: Arrows) -> dict[str, int]:
    """How many arrows the longest way down from each name has; what imports nothing stands just below who needs it."""
    found: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(arrows).static_order():
        found[name] = max((found[other] + 1 for other in arrows[name]), default=0)
    for name, others in arrows.items():
        above = [found[one] for one in arrows if name in arrows[one]]
        if above and not others:
            found[name] = min(above) - 1
    return found


# Where a box stands (Sugiyama's method: floors, bends, an order with few crossings, places).


class Graph(NamedTuple):
    """Floors of names and bends, the lowest first, and what each stands above."""

    floors: list[list[str]]
    below: dict[str, list[str]]


def bend(target: str, floor: int) -> str:
    """The name of the point at which arrows to a lower box pass through a floor; arrows to one box share it."""
    return f"{target}@{floor}"


def graph_of(arrows: Arrows, floors: Mapping[str, int]) -> Graph:
    """Each arrow over several floors parted into arrows over one, by way of bends."""
    rows: list[list[str]] = [[] for _ in range(max(floors.values()) + 1)]
    below: dict[str, list[str]] = {}
    for name in sorted(arrows):
        rows[floors[name]].append(name)
        for other in sorted(arrows[name]):
            above = name
            for floor in range(floors[name] - 1, floors[other], -1):
                point = bend(other, floor)
                if point not in rows[floor]:
                    rows[floor].append(point)
                if point not in below.setdefault(above, []):
                    below[above].append(point)
                above = point
            if other not in below.setdefault(above, []):
                below[above].append(other)
    return Graph(rows, below)


def crossings(graph: Graph, rows: list[list[str]]) -> int:
    """How many pairs of lines cross, if the floors have this order."""
    found = 0
    for low, high in itertools.pairwise(rows):
        at = {name: index for index, name in enumerate(low)}
        ends = [[at[other] for other in graph.below.get(name, [])] for name in high]
        found += sum(x > y for i, left in enumerate(ends) for right in ends[i + 1 :] for x in left for y in right)
    return found


def neighbours(graph: Graph) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
    """What stands above each name, and what below."""
    above: dict[str, list[str]] = defaultdict(list)
    for name, others in graph.below.items():
        for other in others:
            above[other].append(name)
    return above, graph.below


def ordered(graph: Graph) -> list[list[str]]:
    """The floors in the order with the fewest crossings that sweeping up and down finds."""
    above, below = neighbours(graph)
    rows = best = [list(row) for row in graph.floors]
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        upwards = sweep % 2 == 0
        for index in range(len(rows)) if upwards else reversed(range(len(rows))):
            beside = index - 1 if upwards else index + 1
            if 0 <= beside < len(rows):
                at = {name: place for place, name in enumerate(rows[beside])}
                rows[index] = sorted_by_mean(rows[index], below if upwards else above, at)
        if crossings(graph, rows) < crossings(graph, best):
            best = rows
    return best


def sorted_by_mean(row: list[str], joined: Mapping[str, list[str]], at: Mapping[str, int]) -> list[str]:
    """A floor in the order of the mean place of what each name is joined with; who has nothing keeps its place."""

    def mean(name: str) -> float:
        ends = [at[other] for other in joined.get(name, [])]
        return sum(ends) / len(ends) if ends else row.index(name)

    return sorted(row, key=mean)


def spread(wished: list[float], widths: list[float], weights: list[float]) -> list[float]:
    """Centres nearest to those wished at which neighbours do not touch (pool adjacent violators)."""
    shifts = [0.0]
    for left, right in itertools.pairwise(widths):
        shifts.append(shifts[-1] + (left + right) / 2 + BESIDE)
    pools: list[tuple[float, float, int]] = []
    for wish, shift, weight in zip(wished, shifts, weights, strict=True):
        mean, total, count = wish - shift, weight, 1
        while pools and pools[-1][0] > mean:
            before, heavy, many = pools.pop()
            mean, total, count = (before * heavy + mean * total) / (heavy + total), heavy + total, many + count
        pools.append((mean, total, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + shift for mean, shift in zip(means, shifts, strict=True)]


def centres(graph: Graph, rows: list[list[str]], widths: Mapping[str, float]) -> dict[str, float]:
    """Where the middle of each box and bend stands, from left to right."""
    above, below = neighbours(graph)
    at: dict[str, float] = {}
    for row in rows:
        places = spread([0.0] * len(row), [widths.get(name, 0) for name in row], [1.0] * len(row))
        at |= dict(zip(row, places, strict=True))
    for _ in range(SWEEPS):
        for row in [*rows, *reversed(rows)]:
            # What is joined with nothing stands beside its neighbours.
            joined = [[*above.get(name, []), *below.get(name, [])] or row for name in row]
            wished = [sum(at[other] for other in ends) / len(ends) for ends in joined]
            weights = [1.0 if name in widths else 3.0 for name in row]
            places = spread(wished, [widths.get(name, 0) for name in row], weights)
            at |= dict(zip(row, places, strict=True))
    left = min(at[name] - widths.get(name, 0) / 2 for name in at)
    return {name: round(place - left) for name, place in at.items()}


def laid(arrows: Arrows, sizes: Mapping[str, tuple[float, float]]) -> Laid:
    """Boxes of these sizes in floors, and a line for each arrow."""
    floors = floors_of(arrows)
    graph = graph_of(arrows, floors)
    rows = ordered(graph)
    widths = {name: size[0] for name, size in sizes.items()}
    middle = centres(graph, rows, widths)
    heights = [max(sizes[name][1] if name in sizes else 0 for name in row) for row in rows]
    tops = [sum(heights[floor + 1 :]) + GAP * (len(heights) - floor - 1) for floor in range(len(heights))]
    places = {name: Point(middle[name] - widths[name] / 2, tops[floors[name]]) for name in sizes}
    above, below = neighbours(graph)
    lines: list[tuple[str, str, list[Point]]] = []
    for name in sorted(arrows):
        for other in sorted(arrows[name]):
            steps = [name, *(bend(other, floor) for floor in range(floors[name] - 1, floors[other], -1)), other]
            start = beside(middle, name, steps[1], below[name], widths[name], FROM_PX)
            way = [Point(start, places[name].y + sizes[name][1])]
            way.append(Point(start, tops[floors[name]] + heights[floors[name]]))
            for floor, step in zip(range(floors[name] - 1, floors[other], -1), steps[1:-1], strict=True):
                way += [Point(middle[step], tops[floor]), Point(middle[step], tops[floor] + heights[floor])]
            end = beside(middle, other, steps[-2], above[other], widths[other], TO_PX)
            way.append(Point(end, tops[floors[other]]))
            lines.append((name, other, way))
    width = max(places[name].x + widths[name] for name in sizes)
    return Laid(max(width, max(middle.values())), tops[0] + heights[0], places, lines)


def beside(middle: Mapping[str, float], name: str, to: str, ends: list[str], width: float, apart: float) -> float:
    """Where on the edge of a box the line to one of its neighbours meets it: lines meet it in the order of those."""
    ranked = sorted(set(ends), key=lambda end: (middle[end], end))
    return middle[name] + (ranked.index(to) - (len(ranked) - 1) / 2) * min(apart, width / (len(ranked) + 1))


# What is drawn.


def box_of(name: str, inside: Iterable[str], letters: int) -> Box:
    """A box with the names of its modules."""
    notes = textwrap.wrap(" ".join(sorted(inside)), letters, break_long_words=False)
    width = max([len(name) * NAME_PX * ADVANCE, *(len(line) * NOTE_PX * ADVANCE for line in notes)]) + 2 * PADDING
    return Box(name, notes, None, {}, round(width), 26 + NOTE_LINE_PX * len(notes) + (4 if notes else 0))


def ring_box(ring: str, tree: Mapping[tuple[str, ...], set[tuple[str, ...]]]) -> Box:
    """A ring with its rooms and the arrows between them; one without folders holds the names of its modules."""
    own = [module for module in tree if ring_of(module) == ring]
    folders = {module[1] for module in own if len(module) > 2}
    if not folders:
        return box_of(ring, [room_of(module) for module in own if room_of(module)], RING_LETTERS)
    rooms = sorted({room_of(module) for module in own} - {""})
    pairs = [
        (room_of(module), room_of(other))
        for module in own
        for other in tree[module]
        if ring_of(other) == ring and room_of(module) and room_of(other)
    ]
    boxes = {
        room: box_of(room, [module[2] for module in own if len(module) > 2 and module[1] == room], ROOM_LETTERS)
        for room in rooms
    }
    arrows, _ = without_circles(between(pairs, rooms))
    inner = laid(reduced(arrows), {room: (box.width, box.height) for room, box in boxes.items()})
    return Box(ring, [], inner, boxes, inner.width + 2 * PADDING, inner.height + 26 + PADDING)


def path(points: list[Point], attributes: str) -> str:
    """One line with an arrowhead: straight through floors, bent between them."""
    said = f"M{points[0].x:g} {points[0].y:g}"
    for one, other in itertools.pairwise(points):
        if one.x == other.x:
            said += f" V{other.y:g}"
        else:
            half = round((one.y + other.y) / 2)
            said += f" C{one.x:g} {half} {other.x:g} {half} {other.x:g} {other.y:g}"
    return f'<path d="{said}" {attributes}/>'


def drawn_box(box: Box, at: Point, fill: str) -> list[str]:
    """The lines of SVG for a box and all that is inside."""
    middle = at.x + box.width / 2
    found = [
        (
            f'<rect x="{at.x:g}" y="{at.y:g}" width="{box.width:g}" height="{box.height:g}" rx="5" fill="{fill}"'
            ' stroke="#8a94a3"/>'
        )
    ]
    if box.inner is None:
        found.append(f'<text class="name" x="{middle:g}" y="{at.y + 17:g}">{escape(box.name)}</text>')
        for index, line in enumerate(box.notes):
            below = at.y + 31 + NOTE_LINE_PX * index
            found.append(f'<text class="note" x="{middle:g}" y="{below:g}">{escape(line)}</text>')
        return found
    corner = Point(at.x + PADDING, at.y + 26)
    found.append(f'<text class="ring" x="{corner.x:g}" y="{at.y + 18:g}">{escape(box.name)}</text>')
    found += [path([moved(point, corner) for point in way], 'class="arrow"') for _, _, way in box.inner.lines]
    for name, inner in box.boxes.items():
        found += drawn_box(inner, moved(box.inner.places[name], corner), "#ffffff")
    return found


def moved(point: Point, by: Point) -> Point:
    """A point of a box, as a point of what the box stands in."""
    return Point(point.x + by.x, point.y + by.y)


def draw(package: Path = PACKAGE) -> str:
    """The picture as SVG."""
    tree = modules(package)
    rings = sorted({ring_of(module) for module in tree})
    boxes = {ring: ring_box(ring, tree) for ring in rings}
    pairs = [(ring_of(module), ring_of(other)) for module in tree for other in tree[module]]
    arrows, against = without_circles(between(pairs, rings))
    whole = laid(reduced(arrows), {ring: (box.width, box.height) for ring, box in boxes.items()})
    width, corner = max(WIDTH, round(whole.width) + 2 * PADDING), Point(PADDING, PADDING)
    corner = Point(round((width - whole.width) / 2), PADDING)
    height = round(whole.height) + 2 * PADDING
    body = [path([moved(point, corner) for point in way], 'class="arrow"') for _, _, way in whole.lines]
    for index, (ring, box) in enumerate(boxes.items()):
        body += drawn_box(box, moved(whole.places[ring], corner), FILLS[index % len(FILLS)])
    for one, other in sorted(against):
        start, end = (moved(whole.places[name], corner) for name in (one, other))
        ends = [Point(start.x + 20, start.y), Point(end.x + 20, end.y + boxes[other].height)]
        body.append(path(ends, 'class="arrow against"'))
    return "\n".join([HEAD.format(width=width, height=height), *body, "</svg>", ""])


HEAD = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}" width="{{width}}">
<title>holdfast: which room imports which</title>
<style>
text {{{{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1d2733; text-anchor: middle }}}}
.name {{{{ font-size: {NAME_PX}px; font-weight: bold }}}}
.note {{{{ font-size: {NOTE_PX}px; fill: #4a5564 }}}}
.ring {{{{ font-size: {NAME_PX + 2}px; font-weight: bold; text-anchor: start }}}}
.arrow {{{{ fill: none; stroke: #44546a; stroke-width: 1.2; marker-end: url(#head) }}}}
.against {{{{ stroke: #c0392b; stroke-dasharray: 4 3 }}}}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="#44546a"/></marker></defs>
<rect width="100%" height="100%" fill="#ffffff"/>"""


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    print(f"{PICTURE.relative_to(ROOT)} is drawn")
