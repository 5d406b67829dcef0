"""`holdfast stuck`, `parked`, `unsettled`: what does not go on by itself, in every service, the oldest first.

Asks each service's list under `/ops` and puts them together, with what a person can do about each and how many there
are by cause. Exit code 0 when nothing is listed, 1 when something is, or when a service does not answer.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from holdfast.cli.asking import get, services_at
from holdfast.cli.shared import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.config import Settings
from holdfast.core.explain.story import ago
from holdfast.errors import ConfigInvalid, HoldfastError

OfService = Annotated[str, Parameter(name="--service", help="Only of this service.")]
OfCause = Annotated[str, Parameter(name="--cause", help="Only where the cause holds this text.")]
OfType = Annotated[str, Parameter(name="--type", help="Only messages of this stored type.")]
OfFingerprint = Annotated[str, Parameter(name="--fingerprint", help="Only failures with this fingerprint.")]
Older = Annotated[int, Parameter(name="--older", help="Only what is older than so many seconds.")]


def stuck(
    *, service: OfService = "", cause: OfCause = "", older: Older = 0, url: Urls = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """List the sagas that can neither go on nor be undone by themselves.

    For example: `holdfast stuck --cause refund --older 3600`
    """
    return _list("stuck", {"cause": cause, "older": older}, service, url, config, as_json=as_json)


def parked(
    *, service: OfService = "", cause: OfCause = "", type: OfType = "", fingerprint: OfFingerprint = "",
    older: Older = 0, all: Annotated[bool, Parameter(negative="")] = False, url: Urls = None,
    config: ConfigFile = None, as_json: AsJson = False,
) -> int:  # fmt: skip
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
    *, service: OfService = "", cause: OfCause = "", older: Older = 0, url: Urls = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """List the sagas that have not ended, and what each waits for.

    For example: `holdfast unsettled --older 60`
    """
    return _list("unsettled", {"cause": cause, "older": older}, service, url, config, as_json=as_json)


def items_of(
    settings: Settings, urls: Mapping[str, str], what: str, query: Mapping[str, Any], service: str
) -> tuple[list[dict[str, Any]], dict[str, int], dict[str, str]]:
    """(items, how many by cause, why by silent service) of a list, of one service or all, the oldest first."""
    if service and service not in urls:
        raise ConfigInvalid(f"--service {service!r}: there are {', '.join(urls)}")
    items: list[dict[str, Any]] = []
    totals = Counter[str]()
    silent: dict[str, str] = {}
    asked = {name: value for name, value in query.items() if value}
    for name, where in urls.items():
        after: Any = ""
        while after is not None and service in ("", name):
            try:
                page = get(where, f"/ops/{what}", {**asked, "after": after}, settings)
            except HoldfastError as error:
                silent[name] = str(error)
                break
            items += page["items"]
            totals.update(page["totals"])
            after = page["next"]
    return sorted(items, key=lambda one: one.get("begun", one["since"])), dict(totals.most_common()), silent


def _list(what: str, query: Mapping[str, Any], service: str, url: Urls, config: ConfigFile, *, as_json: bool) -> int:
    settings = settings_of(config)
    items, totals, silent = items_of(settings, services_at(settings, url or []), what, query, service)
    lines: list[str] = []
    for one in items:
        lines.append(_saga(one) if "id" in one else _message(one))
        lines += [f"    holdfast {_typed(act)}  {act['does']}" for act in one["actions"]]
    lines += [f"{count:6}  {cause or 'waits'}" for cause, count in totals.items()]
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    value = {"items": items, "totals": totals, "silent": silent}
    say(value, as_json=as_json, text="\n".join(lines) or f"nothing is {what}")
    return 1 if items or silent else 0


def _typed(act: Mapping[str, Any]) -> str:
    """A repair as it is typed."""
    return " ".join(filter(None, (act["verb"], act["target"], act.get("flags", ""))))


def _owner(one: Mapping[str, Any]) -> str:
    return f"{one['service']} ({one['owner']})" if one["owner"] else str(one["service"])


def _saga(one: Mapping[str, Any]) -> str:
    waits = ", ".join(f"{'undo of ' if w['undo'] else ''}{w['step']} of {w['service']}" for w in one["waits"])
    cause = one["stuck"] or one["cause"]
    text = f"{_age(one)}  {_owner(one)}  {one['id']}  {one['status']}"
    return text + (f": {cause}" if cause else "") + (f"; waits for {waits}" if waits and not one["stuck"] else "")


def _message(one: Mapping[str, Any]) -> str:
    how = f"unknown: {one['error']}" if one["unknown"] and one["parked"] else one["error"]
    how = how or (f"behind {one['behind']}" if one["behind"] else "waits")
    where = f" in {one['where']} [{one['fingerprint']}]" if one["where"] else ""
    return f"{_age(one)}  {_owner(one)}  {one['message']}  {one['type']} on {one['stream']}  {how}{where}"


def _age(one: Mapping[str, Any]) -> str:
    return f"{ago(one.get('begun', one['since']), one['now']):>7}"
