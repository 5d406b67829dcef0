"""`holdfast resolve`: end what hangs, by an operator's decision that is recorded.

A message or a saga is resolved where it is, as by any repair (`cli.verbs.repairs`). For a staged transaction every
service is asked what it knows: if one knows a decision, another decision is refused; if the coordinator answers, it
decides; if it does not, the services that hold something decide, each after asking all the others. Exit code 1 when it
is refused, or when a service that holds something could not be told.
"""

from typing import Any

import msgspec

from holdfast.cli.options import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.cli.verbs.repairs import Data, DryRun, Flag, Judged, carry_out, data_of, locate
from holdfast.config import Settings
from holdfast.core.explain.overview import StageList
from holdfast.core.saga.stage import Standing
from holdfast.errors import ConfigInvalid, HoldfastError, NotFound
from holdfast.operator.client import get, post, services_at


def resolve(
    tx: str,
    *,
    by: str,
    why: str,
    commit: Flag = False,
    cancel: Flag = False,
    done: Flag = False,
    refused: Flag = False,
    undone: Flag = False,
    data: Data = "",
    dry_run: DryRun = False,
    invariants: Judged = "",
    url: Urls = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """End what hangs: a staged transaction, a stuck saga, an effect whose outcome nobody knows.

    For example:
    - `holdfast resolve 01KAX3 --cancel --by "on call" --why "desk is down for the day"`

    - `holdfast resolve 01KAX3 --commit --by "on call" --why "the log of desk says so" --json`

    - `holdfast resolve order@17 --done --data '{"order_id": "o1"}' --by me --why "the bank says so"`

    - `holdfast resolve CheckoutSaga/01jd... --undone --by me --why "refunded by hand"`

    Parameters
    ----------
    tx
        The transaction's id, as `holdfast stages` shows it; or a message (service@position); or a saga (Type/id).
    by
        Who says so.
    why
        For what reason; both are recorded.
    commit
        Let all that is held take effect.
    cancel
        Drop all that is held.
    done
        The effect has happened, with --data as its event; or the saga is done.
    refused
        The effect has not happened, and will not.
    undone
        The saga is undone, as far as it need be.
    data
        Of an effect that is done: its event, as JSON or @FILE.
    """
    said = {"commit": commit, "cancel": cancel, "done": done, "refused": refused, "undone": undone}
    chosen = [name for name, given in said.items() if given]
    if len(chosen) != 1:
        raise ConfigInvalid(f"say one of {', '.join(f'--{name}' for name in said)}")
    settings = settings_of(config)
    services = services_at(settings, url or [])
    if not (commit or cancel):
        body: dict[str, Any] = {"kind": "resolve", "decision": chosen[0], "by": by, "why": why}
        body |= {"data": data_of(data)} if data else {}
        return carry_out(settings, services, locate(settings, services, tx), body, dry_run, as_json, {}, invariants)
    return _staged(settings, services, tx, by, why, commit=commit, dry_run=dry_run, as_json=as_json)


def _staged(
    settings: Settings,
    services: dict[str, str],
    tx: str,
    by: str,
    why: str,
    *,
    commit: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Commit or cancel a staged transaction, at whom that takes; or say who would be told."""
    known, silent = _standings(services, tx, settings)
    body = {"kind": "resolve", "tx": tx, "decision": "commit" if commit else "cancel", "by": by, "why": why}
    done: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    if dry_run:
        whom = _whom(known)
        text = "\n".join(f"{name} would be told to {body['decision']} it" for name in whom) or "nobody knows it"
        value = {"whom": whom, "standing": msgspec.to_builtins(known), "silent": silent}
        say(value, as_json=as_json, text=text)
        return 0 if whom else 1
    for name in _whom(known):
        try:
            done.append(post(services[name], "/ops/repairs", body, settings))
        except HoldfastError as error:
            refused[name] = str(error)
            break  # whoever refuses knows something that the others must not be told against
    if not done and not refused:
        raise NotFound(f"no service that answers knows a staged transaction {tx}" + _missing(silent))
    lines = [f"{one['service']}  {'committed' if one['commit'] else 'cancelled'}  ({one['how']})" for one in done]
    lines += [f"! {name}: {text}" for name, text in {**refused, **silent}.items()]
    say({"resolved": done, "refused": refused, "silent": silent}, as_json=as_json, text="\n".join(lines))
    return 1 if refused else 0


def _standings(services: dict[str, str], tx: str, settings: Settings) -> tuple[dict[str, Standing], dict[str, str]]:
    """(what each service knows of a transaction, why by silent service)."""
    known: dict[str, Standing] = {}
    silent: dict[str, str] = {}
    for name, where in services.items():
        try:
            found = get(where, "/ops/stages", {"tx": tx}, settings, StageList)
            known[name] = found.standing or Standing(name)
        except HoldfastError as error:
            silent[name] = str(error)
    return known, silent


def _whom(known: dict[str, Standing]) -> list[str]:
    """The coordinator where it answers and has not decided; else all that hold something; else who knows."""
    undecided = [name for name, found in known.items() if found.undecided]
    held = [name for name, found in known.items() if found.held]
    return undecided or held or [name for name, found in known.items() if found.decided][:1]


def _missing(silent: dict[str, str]) -> str:
    return f"; no answer from {', '.join(silent)}" if silent else ""
