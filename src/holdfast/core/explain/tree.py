"""A trail as text: the causal tree, one record per line, for people and for the test that a fault explorer prints.

Comes after `core.explain.trail`; before the command line and the testing kit. It never raises: bytes that are not
text are shown as well as possible.
"""

import re
from datetime import UTC, datetime

from holdfast.core.explain.trail import Item, Trail

DATA_CHARACTERS_MAX = 90


def render(trail: Trail) -> str:
    """The tree as text: time since the first record, id, what it is, on which stream, its payload."""
    if not trail.counted:
        return "nothing is known of it"
    first = min(item.record.at for item in trail.roots)
    begun = datetime.fromtimestamp(first / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    many = "transaction" if len(trail.transactions) == 1 else "transactions"
    lines = [f"{many} {', '.join(trail.transactions)}  ({trail.counted} records, from {begun})"]
    todo: list[tuple[Item, str, str]] = [(item, "", "") for item in reversed(trail.roots)]
    while todo:
        item, before, indent = todo.pop()
        lines.append(before + describe(item, first))
        children = [
            (child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
            for child, last in ((child, number == len(item.children) - 1) for number, child in enumerate(item.children))
        ]
        todo.extend(reversed(children))
    if trail.unfinished:
        lines.append("unfinished:")
    for open_ in trail.unfinished:
        lines.append(f"  {open_.what} {open_.id}: {open_.why}")
        if open_.next:
            lines.append(f"    next: {', '.join(open_.next)}")
    return "\n".join(lines if trail.unfinished else [*lines, "settled: nothing is left to happen, as far as was asked"])


def describe(item: Item, first: int) -> str:
    """One record on one line."""
    record = item.record
    to = f" -> {record.destination}" if record.destination else ""
    data = record.data.decode("utf-8", "replace")
    data = data if len(data) <= DATA_CHARACTERS_MAX else data[: DATA_CHARACTERS_MAX - 1] + "…"
    where = f"  {record.stream}" if record.stream else ""
    type_ = re.sub(r"^holdfast\.", "", record.type)
    return f"+{(record.at - first) / 1000:.1f} ms  {item.id}  {record.kind} {type_}{to}{where}  {data}"
