"""`holdfast trail`: everything that one id led to, in every service, as a tree.

Asks each service's `/ops/trail` and merges the answers (`core.explain.trail`). A service that does not answer is named,
and the rest is shown: then the exit code is 1, as it is when something is unfinished.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.cli.options import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.config import Settings
from holdfast.core.explain.overview import RecordList
from holdfast.core.explain.trail import Item, Trail, build
from holdfast.core.explain.tree import render
from holdfast.core.log.record import Record
from holdfast.errors import HoldfastError, NotFound
from holdfast.host.target import load_target
from holdfast.operator.client import get, services_at


def trail(id: str, *, url: Urls = None, target: str = "", config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show what happened under an id, in every service, and what has not happened yet.

    For example:
    `holdfast trail 01jd... --url order=http://127.0.0.1:8000/order --url stock=http://127.0.0.1:8000/stock`

    `holdfast trail my-correlation-id`                          services from holdfast.toml

    `holdfast trail CheckoutSaga/o1 --target shop.services:shop`   a stream; with what its saga does next

    Parameters
    ----------
    id
        A transaction, a correlation id, or a stream (Type/key).
    target
        MODULE:SYSTEM; with it the trail says which steps an open saga has left.
    """
    settings = settings_of(config)
    system = load_target(target) if target else None
    found, silent = ask(services_at(settings, url or []), id, settings)
    result = build(found, {name: service.sagas for name, service in system.services.items()} if system else {})
    if not result.counted and not silent:
        raise NotFound(f"no service knows {id!r}; it takes a transaction, a correlation id, or a stream (Type/key)")
    text = "\n".join([render(result), *(f"! {name}: {why}" for name, why in silent.items())])
    say({**as_value(result), "silent": silent}, as_json=as_json, text=text)
    return 1 if silent or result.unfinished else 0


def ask(urls: Mapping[str, str], id: str, settings: Settings) -> tuple[dict[str, list[Record]], dict[str, str]]:
    """(records by service, why by silent service) of everything that belongs to an id.

    The id is tried as a transaction, then as a correlation, then as a stream; whatever transactions turn up are
    followed through every service.
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
                told = get(where, "/ops/trail", {kind: value}, settings, RecordList)
            except NotFound:
                continue
            except HoldfastError as error:
                silent[name] = str(error)
                continue
            records = [row.record() for row in told.records]
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
