"""Staged transactions: what each service knows of one, and which services an operator's decision goes to.

Comes after `operator.client`, before `cli.verbs.resolve`, which ends a hanging transaction. A service that does not
answer is named with the reason.
"""

from collections.abc import Mapping

from holdfast.config import Settings
from holdfast.core.explain.overview import StageList
from holdfast.core.saga.stage import Standing
from holdfast.errors import HoldfastError
from holdfast.operator.client import get


def standings(urls: Mapping[str, str], tx: str, settings: Settings) -> tuple[dict[str, Standing], dict[str, str]]:
    """(what each service knows of a transaction, why by silent service)."""
    known: dict[str, Standing] = {}
    silent: dict[str, str] = {}
    for name, where in urls.items():
        try:
            found = get(where, "/ops/stages", {"tx": tx}, settings, StageList)
            known[name] = found.standing or Standing(name)
        except HoldfastError as error:
            silent[name] = str(error)
    return known, silent


def whom(known: Mapping[str, Standing]) -> list[str]:
    """The services to tell: the coordinator if it answers and has not decided; else all that hold something; else one
    that knows the decision."""
    undecided = [name for name, found in known.items() if found.undecided]
    held = [name for name, found in known.items() if found.held]
    return undecided or held or [name for name, found in known.items() if found.decided][:1]
