"""`holdfast stuck`, `parked`, `unsettled`: what does not go on by itself, in every service, the oldest first.

Asks each service's list under `/ops` and puts them together, with what a person can do about each and how many there
are by cause. Exit code 0 when nothing is listed, 1 when something is, or when a service does not answer.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from holdfast.cli.options import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.config import Settings
from holdfast.core.explain.overview import ListedSaga, ListedWaiting, SagaList, WaitingList
from holdfast.core.explain.story import ago
from holdfast.errors import ConfigInvalid, HoldfastError
from holdfast.operator.client import pages, services_at

Listed = ListedSaga | ListedWaiting
KINDS: Mapping[str, type[SagaList] | type[WaitingList]] = {
    "stuck": SagaList,
    "unsettled": SagaList,
    "parked": WaitingList,
}
"""List under `/ops` -> what it answers."""
OfService = Annotated[str, Parameter(name="--service", help="Only of this service.")]
OfCause = Annotated[str, Parameter(name="--cause", help="Only where the cause holds this text.")]
OfType = Annotated[str, Parameter(name="--type", help="Only messages of this stored type.")]
OfFingerprint = Annotated[str, Parameter(name="--fingerprint", help="Only failures with this fingerprint.")]
Older = Annotated[int, Parameter(name="--older", help="Only what is older than so many seconds.")]


def stuck(
    *,
    service: OfService = "",
    cause: OfCause = "",
    older: Older = 0,
    url: Urls = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """List the sagas that can neither go on nor be undone by themselves.

    For example: `holdfast stuck --cause refund --older 3600`
    """
    return _list("stuck", {"cause": cause, "older": older}, service, url, config, as_json=as_json)


def parked(
    *,
    service: OfService = "",
    cause: OfCause = "",
    type: OfType = "",
    fingerprint: OfFingerprint = "",
    older: Older = 0,
    all: Annotated[bool, Parameter(negative="")] = False,
    url: Urls = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """List the messages that have failed too often and wait for a person.

    For example:
    - `holdfast parked --service stock`

    - `holdfast parked --fingerprint 5f0c9b1e22aa --json`

    Parameters
    ----------
    all
        Also what is still tried again, or waits behind another.
    """
    query = {"cause": cause, "type": type, "fingerprint": fingerprint, "older": older, "all": int(all)}
    return _list("parked", query, service, url, config, as_json=as_json)


def unsettled(
    *,
    service: OfService = "",
    cause: OfCause = "",
    older: Older = 0,
    url: Urls = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """List the sagas that have not ended, and what each waits for.

    For example: `holdfast unsettled --older 60`
    """
    return _list("unsettled", {"cause": cause, "older": older}, service, url, config, as_json=as_json)


def items_of(
    settings: Settings, urls: Mapping[str, str], what: str, query: Mapping[str, Any], service: str
) -> tuple[list[Listed], dict[str, int], dict[str, str]]:
    """(items, how many by cause, why by silent service) of a list, of one service or all, the oldest first."""
    if service and service not in urls:
        raise ConfigInvalid(f"--service {service!r}: there are {', '.join(urls)}")
    items: list[Listed] = []
    totals = Counter[str]()
    silent: dict[str, str] = {}
    asked = {name: value for name, value in query.items() if value}
    for name, where in urls.items():
        if service not in ("", name):
            continue
        try:
            for page in pages(where, f"/ops/{what}", asked, settings, KINDS[what]):
                items += page.items
                totals.update(page.totals)
        except HoldfastError as error:
            silent[name] = str(error)
    return sorted(items, key=lambda one: one.counted_from), dict(totals.most_common()), silent


def _list(what: str, query: Mapping[str, Any], service: str, url: Urls, config: ConfigFile, *, as_json: bool) -> int:
    settings = settings_of(config)
    items, totals, silent = items_of(settings, services_at(settings, url or []), what, query, service)
    lines: list[str] = []
    for one in items:
        told = _saga(one) if isinstance(one, ListedSaga) else _message(one)
        lines.append(f"{ago(one.counted_from, one.now):>7}  {_owner(one)}  {told}")
        lines += [f"    holdfast {action.typed}  {action.does}" for action in one.actions]
    lines += [f"{count:6}  {cause or 'waits'}" for cause, count in totals.items()]
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    value = {"items": msgspec.to_builtins(items), "totals": totals, "silent": silent}
    say(value, as_json=as_json, text="\n".join(lines) or f"nothing is {what}")
    return 1 if items or silent else 0


def _owner(one: Listed) -> str:
    return f"{one.service} ({one.owner})" if one.owner else one.service


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
