"""Gathering: asking every service what it knows of an id, and of the transactions that turn up.

Comes before whatever shows it (`cli.why`). A service that does not answer is named with the reason; the rest is shown.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.cli.asking import get
from holdfast.cli.trail import rows, to_record
from holdfast.config import Settings
from holdfast.core.explain.story import Part
from holdfast.errors import HoldfastError


def gather(urls: Mapping[str, str], id: str, settings: Settings) -> tuple[list[Part], dict[str, str], int]:
    """(what each service knows, why by silent service, the latest of their clocks in µs) of an id.

    Each service is asked what the id names there; then, of the transactions that it did not name itself, what it knows.
    """
    parts: dict[str, Part] = {}
    silent: dict[str, str] = {}
    now = 0
    for name, where in urls.items():
        try:
            parts[name], told = _part(get(where, "/ops/why", {"id": id}, settings))
            now = max(now, told)
        except HoldfastError as error:
            silent[name] = str(error)
    asked = {name: set(part.transactions) for name, part in parts.items()}
    todo = list(dict.fromkeys(tx for part in parts.values() for tx in part.transactions))
    while todo:
        tx = todo.pop(0)
        for name, part in parts.items():
            if tx in asked[name] or name in silent:
                continue
            asked[name].add(tx)
            try:
                more, _ = _part(get(urls[name], "/ops/why", {"tx": tx}, settings))
            except HoldfastError as error:
                silent[name] = str(error)
                continue
            _merge(part, more)
    return list(parts.values()), silent, now


def _part(answer: Any) -> tuple[Part, int]:
    body: dict[str, Any] = dict(answer)
    records = [to_record(row) for row in rows(body)]
    known = {name: body[name] for name in Part.__struct_fields__ if name in body and name != "records"}
    return msgspec.structs.replace(msgspec.convert(known, Part), records=records), int(body.get("now", 0))


def _merge(part: Part, more: Part) -> None:
    have = {record.position for record in part.records}
    part.records += [record for record in more.records if record.position not in have]
    part.sagas += [saga for saga in more.sagas if saga["id"] not in {one["id"] for one in part.sagas}]
    part.waiting += [one for one in more.waiting if one["message"] not in {old["message"] for old in part.waiting}]
    part.held += [one for one in more.held if one not in part.held]
    part.complete = part.complete and more.complete
