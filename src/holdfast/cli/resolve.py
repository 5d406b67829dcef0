"""`holdfast resolve`: what becomes of a staged transaction that hangs, said by a person and kept on record.

Asks every service what it knows. Where somebody knows a decision, another one is refused. Where the coordinator
answers, it decides; where it does not, those who hold something do, each after asking all the others. Exit code 1 when
it is refused, or when a service that holds something could not be told.
"""

from typing import Annotated, Any

from cyclopts import Parameter

from holdfast.cli.asking import get, post, services_at
from holdfast.cli.shared import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.config import Settings
from holdfast.errors import ConfigInvalid, HoldfastError, NotFound


def resolve(
    tx: str,
    *,
    by: str,
    why: str,
    commit: Annotated[bool, Parameter(negative="")] = False,
    cancel: Annotated[bool, Parameter(negative="")] = False,
    url: Urls = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Commit or cancel a staged transaction that hangs.

    For example:
    - `holdfast resolve 01KAX3 --cancel --by "on call" --why "desk is down for the day"`

    - `holdfast resolve 01KAX3 --commit --by "on call" --why "the log of desk says so" --json`

    Parameters
    ----------
    tx
        The transaction's id, as `holdfast stages` shows it.
    by
        Who says so.
    why
        For what reason; both are recorded.
    commit
        Let all that is held take effect.
    cancel
        Drop all that is held.
    """
    if commit == cancel:
        raise ConfigInvalid("say either --commit or --cancel")
    settings = settings_of(config)
    services = services_at(settings, url or [])
    known, silent = _standings(services, tx, settings)
    body = {"kind": "resolve", "tx": tx, "decision": "commit" if commit else "cancel", "by": by, "why": why}
    done: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
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


def _standings(
    services: dict[str, str], tx: str, settings: Settings
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    known: dict[str, dict[str, Any]] = {}
    silent: dict[str, str] = {}
    for name, where in services.items():
        try:
            known[name] = get(where, "/ops/stages", {"tx": tx}, settings)["standing"]
        except HoldfastError as error:
            silent[name] = str(error)
    return known, silent


def _whom(known: dict[str, dict[str, Any]]) -> list[str]:
    """The coordinator where it answers and has not decided; else all that hold something; else who knows."""
    undecided = [name for name, found in known.items() if found.get("undecided")]
    held = [name for name, found in known.items() if found.get("held")]
    return undecided or held or [name for name, found in known.items() if found.get("decided")][:1]


def _missing(silent: dict[str, str]) -> str:
    return f"; no answer from {', '.join(silent)}" if silent else ""
