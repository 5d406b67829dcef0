"""How `holdfast stuck`, `parked` and `unsettled` show a list: each item, what can be done about it, and the causes.

Comes after `operator.lists`, which asks the services; before the three verbs. The exit code is 0 if nothing is listed,
1 if something is, or if a service does not answer.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.cli.options import Access, say
from holdfast.core.explain.overview import ListedSaga, ListedWaiting
from holdfast.core.explain.story import ago
from holdfast.operator.lists import Listed, gather_items


def show(what: str, query: Mapping[str, Any], service: str, access: Access, *, as_json: bool) -> int:
    """Ask for a list, show it, and return the exit code."""
    settings = access.settings()
    found = gather_items(access.services(settings), settings, what, query, service)
    lines: list[str] = []
    for item in found.items:
        text = _saga(item) if isinstance(item, ListedSaga) else _message(item)
        lines.append(f"{ago(item.counted_from, item.now):>7}  {_owner(item)}  {text}")
        lines += [f"    holdfast {action.typed}  {action.does}" for action in item.actions]
    lines += [f"{count:6}  {cause or 'waits'}" for cause, count in found.totals.items()]
    lines += [f"! {name}: {why}" for name, why in found.silent.items()]
    say(msgspec.to_builtins(found), as_json=as_json, text="\n".join(lines) or f"nothing is {what}")
    return 1 if found.items or found.silent else 0


def _owner(item: Listed) -> str:
    return f"{item.service} ({item.owner})" if item.owner else item.service


def _saga(saga: ListedSaga) -> str:
    waits = ", ".join(step.what for step in saga.waits)
    cause = saga.stuck or saga.cause
    text = f"{saga.id}  {saga.status}"
    return text + (f": {cause}" if cause else "") + (f"; waits for {waits}" if waits and not saga.stuck else "")


def _message(message: ListedWaiting) -> str:
    how = f"unknown: {message.error}" if message.unknown and message.parked else message.error
    how = how or (f"behind {message.behind}" if message.behind else "waits")
    where = f" in {message.where} [{message.fingerprint}]" if message.where else ""
    return f"{message.message}  {message.type} on {message.stream}  {how}{where}"
