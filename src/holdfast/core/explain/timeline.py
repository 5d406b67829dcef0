"""A timeline as SVG: one lane per service, a mark for each record, an arrow from each message to what it led to.

It is drawn from the records alone; long pauses are cut, and the picture shows the cut. The same records give the same
picture. Comes after `core.explain.trail`. Pure; it cannot fail on any trail.
"""

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from holdfast.core.explain.story import sentence
from holdfast.core.explain.trail import Item, Trail, walk

LANE, LEFT, TOP, WIDTH_MIN, STEP_MIN = 64, 150, 56, 640, 14
COLOURS = {
    "event": "#2a7f3f",
    "command": "#2457a6",
    "answer": "#b3261e",
    "saga": "#6b6f76",
    "effect": "#a15c00",
    "repair": "#7b3fa0",
}
HEAD = (
    '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 L8,4 L0,8 z" fill="#888"/></marker></defs>'
    "<style>text { font-family: sans-serif }</style>"
)
PAUSE_US = 2_000_000
"""A longer pause between two marks is drawn as a cut."""


def draw(trail: Trail, owners: Mapping[str, str]) -> str:
    """The timeline of a trail. `owners`: service -> team."""
    items = _flat(trail)
    lanes = {name: number for number, name in enumerate(dict.fromkeys([*(one.service for one in items), *owners]))}
    xs, cuts = _places(items)
    width = max(WIDTH_MIN, LEFT + 60 + round(max(xs.values(), default=0)))
    height = TOP + LANE * max(1, len(lanes)) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-size="12">',
        HEAD,
        f"<title>{escape(', '.join(trail.transactions) or 'nothing is known of it')}</title>",
    ]
    out += _legend()
    for name, number in lanes.items():
        y = _y(number)
        owner = owners.get(name, "")
        out.append(f'<line class="lane" x1="{LEFT}" y1="{y}" x2="{width - 20}" y2="{y}" stroke="#ddd"/>')
        out.append(f'<text x="10" y="{y}">{escape(name)}</text>')
        out += [f'<text x="10" y="{y + 15}" fill="#888" font-size="10">{escape(owner)}</text>'] if owner else []
    for x, seconds in cuts:
        at = LEFT + x
        out.append(
            f'<line class="cut" x1="{at:.1f}" y1="{TOP - 12}" x2="{at:.1f}" y2="{height - 26}" stroke="#ccc"'
            ' stroke-dasharray="2 3"/>'
        )
        out.append(
            f'<text x="{at:.1f}" y="{height - 12}" text-anchor="middle" fill="#888">{seconds:.0f} s later</text>'
        )
    out += _arrows(trail, items, lanes, xs)
    out += [_mark(item, lanes, xs) for item in items]
    return "\n".join([*out, "</svg>", ""])


def _flat(trail: Trail) -> list[Item]:
    """Every record by time."""
    items = (item for item, _ in walk(trail))
    return sorted(items, key=lambda item: (item.record.at, item.service, item.record.position))


def _places(items: list[Item]) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """The x of each record, and (x, seconds) of the cut pauses: in order of time, without overlap."""
    xs: dict[str, float] = {}
    cuts: list[tuple[float, float]] = []
    x, before = 20.0, items[0].record.at if items else 0
    for item in items:
        gap = item.record.at - before
        if gap > PAUSE_US:
            cuts.append((x + 30, gap / 1e6))
            x += 60
        else:
            x += max(STEP_MIN, min(60.0, gap / 1000))
        xs[item.id], before = x, item.record.at
    return xs, cuts


def _y(lane: int) -> int:
    return TOP + LANE * lane + LANE // 2


def _arrows(trail: Trail, items: list[Item], lanes: Mapping[str, int], xs: Mapping[str, float]) -> list[str]:
    found: list[str] = []
    for item in items:
        found += [
            _arrow("arrow", xs[item.id], lanes[item.service], xs[child.id], lanes[child.service], "")
            for child in item.children
            if child.service != item.service
        ]
    at = {item.id: item for item in items}
    for one in trail.unfinished:
        if one.id in at and one.service in lanes and one.service != at[one.id].service:
            lane, x = lanes[at[one.id].service], xs[one.id]
            found.append(_arrow("open", x, lane, x + 40, lanes[one.service], ' stroke-dasharray="4 3"'))
    return found


def _arrow(kind: str, x1: float, lane1: int, x2: float, lane2: int, dashes: str) -> str:
    down = 6 if lane2 > lane1 else -6
    return (
        f'<line class="{kind}" x1="{LEFT + x1:.1f}" y1="{_y(lane1) + down}" x2="{LEFT + x2:.1f}"'
        f' y2="{_y(lane2) - down}" stroke="#888"{dashes} marker-end="url(#to)"/>'
    )


def _mark(item: Item, lanes: Mapping[str, int], xs: Mapping[str, float]) -> str:
    record, x, y = item.record, LEFT + xs[item.id], _y(lanes[item.service])
    colour = COLOURS.get(record.kind, "#000")
    text = escape(f"{item.id} {record.kind} {record.type}\n{sentence(item.service, record)}")
    which = f"class={quoteattr(record.kind)} id={quoteattr(item.id)}"
    if record.kind in ("command", "effect"):
        shape = f'<rect {which} x="{x - 5:.1f}" y="{y - 5}" width="10" height="10" fill="{colour}">'
        return f"{shape}<title>{text}</title></rect>"
    size = 3 if record.kind == "saga" else 5
    return f'<circle {which} cx="{x:.1f}" cy="{y}" r="{size}" fill="{colour}"><title>{text}</title></circle>'


def _legend() -> list[str]:
    found: list[str] = []
    for number, (kind, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 80
        found.append(
            f'<rect x="{x}" y="14" width="8" height="8" fill="{colour}"/><text x="{x + 12}" y="22">{kind}</text>'
        )
    return found
