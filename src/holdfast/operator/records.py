"""Records: all of them that belong to one id, asked of every service, and their trail as plain values.

Comes after configuration, which says where the services are; before the modules that build and show the trail
(`core.explain.trail`, `cli.verbs.trail`, `cli.verbs.demo`). A service that does not answer is named with the reason,
and the others are asked.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.config import Settings
from holdfast.core.explain.overview import RecordList
from holdfast.core.explain.trail import Item, Trail
from holdfast.core.log.record import Record
from holdfast.errors import HoldfastError, NotFound
from holdfast.operator.client import get


def gather_records(
    urls: Mapping[str, str], id: str, settings: Settings
) -> tuple[dict[str, list[Record]], dict[str, str]]:
    """(records by service, why by silent service) of everything that belongs to an id.

    An id with a slash is a stream; any other is tried as a transaction and as a correlation. Every transaction that is
    found is followed through every service.
    """
    found: dict[str, dict[int, Record]] = {name: {} for name in urls}
    silent: dict[str, str] = {}
    kinds = ["stream"] if "/" in id else ["tx", "correlation"]
    followed: set[tuple[str, str]] = set()
    todo = [(kind, id) for kind in kinds]
    while todo:
        kind, value = todo.pop(0)
        if (kind, value) in followed:
            continue
        followed.add((kind, value))
        for name, where in urls.items():
            if name in silent:
                continue
            try:
                answer = get(where, "/ops/trail", {kind: value}, settings, RecordList)
            except NotFound:
                continue
            except HoldfastError as error:
                silent[name] = str(error)
                continue
            records = [row.record() for row in answer.records]
            found[name].update({record.position: record for record in records})
            todo += [("tx", record.tx) for record in records if ("tx", record.tx) not in followed]
    return {name: list(records.values()) for name, records in found.items() if name not in silent}, silent


def as_value(trail: Trail) -> dict[str, Any]:
    """The trail as plain values."""
    return {
        "transactions": list(trail.transactions),
        "records": trail.counted,
        "asked": list(trail.asked),
        "tree": [_item(item) for item in trail.roots],
        "unfinished": msgspec.to_builtins(trail.unfinished),
    }


def _item(item: Item) -> dict[str, Any]:
    record = item.record
    return {
        "id": item.id,
        "service": item.service,
        "kind": record.kind,
        "type": record.type,
        "stream": record.stream,
        "destination": record.destination,
        "at": record.at,
        "tx": record.tx,
        "correlation": record.correlation,
        "data": msgspec.json.decode(record.data),
        "children": [_item(child) for child in item.children],
    }
