"""`holdfast retry`, `skip`, `undo`: a person's word on messages that wait and on sagas, one by one or in bulk.

Each target is looked for in every service and repaired where it is, on record, with who and why; `--dry-run` shows the
plan and changes nothing. A run that breaks off is said again: what is repaired answers `already`, or is not listed any
more. Exit code 0 when all is applied or was so already, 1 when something is refused or a service does not answer.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from holdfast.cli.options import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.cli.verbs.lists import OfCause, OfFingerprint, OfService, OfType, Older, items_of
from holdfast.config import Settings
from holdfast.core.explain.overview import ListedSaga, ListedWaiting, LogPage, RecordList, WaitingList
from holdfast.core.log.record import parse_record_id
from holdfast.errors import ConfigInvalid, HoldfastError
from holdfast.host.target import load_target
from holdfast.operator.client import get, post, services_at
from holdfast.operator.judge import Repairs, lines_of

Flag = Annotated[bool, Parameter(negative="")]
By = Annotated[str, Parameter(name="--by", help="Who says so.")]
Why = Annotated[str, Parameter(name="--why", help="For what reason. Both are recorded.")]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="", help="Say what it would do, and do nothing.")]
OfStream = Annotated[str, Parameter(name="--stream", help="Only what waits on this stream.")]
Data = Annotated[str, Parameter(name="--data", help="JSON, or @FILE.")]
Judged = Annotated[
    str,
    Parameter(name="--invariants", help="MODULE:SYSTEM whose invariants are judged, before in a dry run, and after."),
]

Target = tuple[str, str, str]
"""Service, message or saga, and the stream that a message waits on."""
NOBODY: Mapping[str, str] = {}


def retry(
    *targets: str, by: By, why: Why, parked: Flag = False, stuck: Flag = False, data: Data = "",
    service: OfService = "", stream: OfStream = "", cause: OfCause = "", type: OfType = "",
    fingerprint: OfFingerprint = "", older: Older = 0, dry_run: DryRun = False,
    invariants: Judged = "", url: Urls = None, config: ConfigFile = None, as_json: AsJson = False,
) -> int:  # fmt: skip
    """Try parked messages again, or what stuck sagas were refused.

    For example:
    - `holdfast retry order@17 --by "on call" --why "release 12 mends it"`

    - `holdfast retry --parked --cause KeyError --by "on call" --why "release 12 mends it" --dry-run`

    - `holdfast retry order@17 --data '{"sku": "tea", "order_id": "o1", "quantity": 2}' --by me --why "a typo"`

    Parameters
    ----------
    targets
        Messages (service@position) or sagas (Type/id).
    parked
        All parked messages that the filters leave.
    stuck
        All stuck sagas that the filters leave.
    data
        The payload to try in the place of the old one; of one message.
    """
    filters = {"stream": stream, "cause": cause, "type": type, "fingerprint": fingerprint, "older": older}
    settings = settings_of(config)
    urls = services_at(settings, url or [])
    found, silent = _targets(settings, urls, targets, {"parked": parked, "stuck": stuck}, filters, service)
    extra: dict[str, Any] = {}
    if data:
        if len(targets) != 1 or parked or stuck:
            raise ConfigInvalid("--data changes one message: name it, and no other")
        extra["data"] = data_of(data)
    return carry_out(
        settings, urls, found, {"kind": "retry", "by": by, "why": why, **extra}, dry_run, as_json, silent, invariants
    )


def skip(
    *targets: str, by: By, why: Why, parked: Flag = False, stuck: Flag = False, service: OfService = "",
    stream: OfStream = "", cause: OfCause = "", type: OfType = "", fingerprint: OfFingerprint = "", older: Older = 0,
    dry_run: DryRun = False, invariants: Judged = "", url: Urls = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """Answer messages that wait with a no, or pass over what stuck sagas were refused.

    For example: `holdfast skip order@17 --by "on call" --why "the order is a test"`

    Parameters
    ----------
    targets
        Messages (service@position) or sagas (Type/id).
    parked
        All parked messages that the filters leave.
    stuck
        All stuck sagas that the filters leave.
    """
    filters = {"stream": stream, "cause": cause, "type": type, "fingerprint": fingerprint, "older": older}
    settings = settings_of(config)
    urls = services_at(settings, url or [])
    found, silent = _targets(settings, urls, targets, {"parked": parked, "stuck": stuck}, filters, service)
    if targets and len(found) > len(targets):
        places = ", ".join(f"{where} ({on})" for where, _, on in found)
        raise ConfigInvalid(f"that waits at more than one place: {places}; say which: --service, --stream")
    return carry_out(
        settings, urls, found, {"kind": "skip", "by": by, "why": why}, dry_run, as_json, silent, invariants
    )


def undo(
    *targets: str, by: By, why: Why, unsettled: Flag = False, service: OfService = "", cause: OfCause = "",
    older: Older = 0, dry_run: DryRun = False, invariants: Judged = "", url: Urls = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """Undo running sagas that are not past their point of no return.

    For example: `holdfast undo CheckoutSaga/01jd... --by "on call" --why "the customer called" --dry-run`

    Parameters
    ----------
    targets
        Sagas (Type/id).
    unsettled
        All that have not ended, as far as the filters leave them.
    """
    settings = settings_of(config)
    urls = services_at(settings, url or [])
    filters = {"cause": cause, "older": older}
    found, silent = _targets(settings, urls, targets, {"unsettled": unsettled}, filters, service)
    return carry_out(
        settings, urls, found, {"kind": "undo", "by": by, "why": why}, dry_run, as_json, silent, invariants
    )


def data_of(text: str) -> Any:
    """The value of a `--data` flag. Raises ConfigInvalid."""
    try:
        return json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"--data: {error}") from None


def _targets(
    settings: Settings, urls: Mapping[str, str], targets: Sequence[str], lists: Mapping[str, bool],
    filters: Mapping[str, Any], service: str,
) -> tuple[list[Target], dict[str, str]]:  # fmt: skip
    """All that is to be repaired; why, by silent service. Raises ConfigInvalid, HoldfastError where one is nowhere."""
    chosen = [name for name, wanted in lists.items() if wanted]
    if bool(targets) == bool(chosen):
        raise ConfigInvalid(f"name targets, or say {' or '.join(f'--{name}' for name in lists)}: one of the two")
    if service and service not in urls:
        raise ConfigInvalid(f"--service {service!r}: there are {', '.join(urls)}")
    there = {service: urls[service]} if service else urls
    found = [one for target in targets for one in locate(settings, there, target, filters.get("stream", ""))]
    silent: dict[str, str] = {}
    for name in chosen:
        items, _, away = items_of(settings, urls, name, filters, service)
        found += [_target(one) for one in items]
        silent |= away
    for who, reason in silent.items():
        print(f"! {who}: {reason}", file=sys.stderr)
    return found, silent


def _target(one: ListedSaga | ListedWaiting) -> Target:
    """What a list names, as something to repair."""
    return one.service, one.target, one.stream if isinstance(one, ListedWaiting) else ""


def locate(settings: Settings, urls: Mapping[str, str], target: str, stream: str = "") -> list[Target]:
    """Where a target is: an event waits at each consumer that fails at it. Raises HoldfastError."""
    silent: dict[str, str] = {}
    found: list[Target] = []
    for name, where in urls.items():
        try:
            if "/" in target:
                if get(where, "/ops/trail", {"stream": target, "limit": 1}, settings, RecordList).records:
                    found.append((name, target, ""))
            else:
                query = {"message": target, "stream": stream, "all": 1}
                waiting = get(where, "/ops/parked", query, settings, WaitingList)
                found += [(name, target, message.stream) for message in waiting.items]
        except HoldfastError as error:
            silent[name] = str(error)
    if found:
        return found
    if not silent and (receiver := _receiver(settings, urls, target)):
        return [(receiver, target, "")]
    more = f"; no answer from {', '.join(silent)}" if silent else ""
    raise HoldfastError(f"no service has {target[:200]} waiting, nor a saga of that name{more}")


def _receiver(settings: Settings, urls: Mapping[str, str], target: str) -> str:
    """The service that a message was sent to, by its record: where it does not wait, it has been decided there."""
    parsed = parse_record_id(target)
    if parsed is None or parsed[0] not in urls or parsed[1] < 1:
        return ""
    query = {"after": parsed[1] - 1, "limit": 1}
    records = get(urls[parsed[0]], "/ops/log", query, settings, LogPage).records
    to = records[0].destination if records and records[0].id == target else ""
    return to if to in urls else ""


def carry_out(
    settings: Settings, urls: Mapping[str, str], found: Sequence[Target], body: Mapping[str, Any],
    dry_run: bool, as_json: bool, silent: Mapping[str, str] = NOBODY, invariants: str = "",
) -> int:  # fmt: skip
    """Repair one after the other, saying what became of each; a refusal does not stop the rest. The exit code is 1
    too where a service did not say what there is to repair."""
    results: list[dict[str, Any]] = []
    judge = judge_of(settings, urls, invariants)
    for number, (service, target, stream) in enumerate(found, 1):
        try:
            asked = {**body, "target": target, "dry_run": dry_run, **({"stream": stream} if stream else {})}
            result = dict(post(urls[service], "/ops/repairs", asked, settings))
            if dry_run and result.get("answer"):
                result["then"] = _then(settings, urls, result["answer"])
            if dry_run and judge is not None:
                result["invariants"] = judge.foretold(result, body)
        except HoldfastError as error:
            result = {"service": service, "target": target, "how": "refused", "note": str(error)}
        results.append(result)
        if not as_json:
            print(_shown(result, f"{number}/{len(found)}"), flush=True)
    if judge is not None and not dry_run:
        judge.checked(results)
        for result in results if not as_json else ():
            for text in lines_of(result.get("invariants", {}), done=True):
                print(f"{result['target']}  {text}", flush=True)
    refused = [one for one in results if one["how"] == "refused"]
    text = f"{len(results) - len(refused)} of {len(results)}" + (" planned" if dry_run else " repaired")
    say({"results": results, "refused": len(refused), "silent": silent}, as_json=as_json, text=text)
    return 1 if refused or silent else 0


def judge_of(settings: Settings, urls: Mapping[str, str], target: str) -> Repairs | None:
    """Who judges repairs, where invariants are named by a flag or by the configuration. Raises ConfigInvalid."""
    target = target or settings.invariants
    return Repairs(load_target(target, pins=False), urls, settings) if target else None


def _then(settings: Settings, urls: Mapping[str, str], answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the service that would get the answer would do with it; why that cannot be told."""
    service = answer["service"]
    if service not in urls:
        return {"service": service, "does": [f"{service} is not among the services asked"]}
    try:
        return post(urls[service], "/ops/plans", answer, settings)
    except HoldfastError as error:
        return {"service": service, "does": [str(error)]}


def _shown(result: Mapping[str, Any], number: str) -> str:
    note = f": {result['note']}" if result.get("note") else ""
    lines = [f"{number}  {result['service']}  {result['target']}  {result['how']}{note}"]
    lines += [f"    {text}" for text in result.get("does", ())]
    lines += [f"    then {result['then']['service']}: {text}" for text in result.get("then", {}).get("does", ())]
    lines += [f"    {text}" for text in lines_of(result.get("invariants", {}), done=False)]
    return "\n".join(lines)
