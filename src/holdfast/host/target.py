"""Targets: from `MODULE:NAME` on the command line to a declared system, its contracts compared with their pins.

Comes before anything runs. Fails, in one sentence, with `ConfigInvalid` (no such module or name) or `Misuse` (a
declaration that cannot work, a message whose schema is not the pinned one any more).
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any, cast

from holdfast.core.declare.message import Contract
from holdfast.core.declare.service import Service
from holdfast.core.system import System
from holdfast.errors import ConfigInvalid, HoldfastError, Misuse


def load_target(target: str, *, pins: bool = True) -> System:
    """The system (or the one service, as a system) that `MODULE:NAME` names; checked whole.

    The working folder is searched first, as by `python -m`. Raises ConfigInvalid, Misuse.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise ConfigInvalid(f"{target!r} is no target: write MODULE:NAME, such as shop.services:shop")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except HoldfastError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigInvalid(f"cannot import {module_name!r}: there is no module {error.name!r} here") from None
    except Exception as error:
        raise ConfigInvalid(f"cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if isinstance(found, Service):
        found = System([found], name=found.name)
    if not isinstance(found, System):
        there = [key for key, value in vars(module).items() if isinstance(value, Service | System)]
        raise ConfigInvalid(f"{module_name} has no system or service {name!r}; there are: {', '.join(there) or 'none'}")
    for service in found.services.values():
        service.check()
    if pins:
        check_pins(found)
    return found


def check_pins(system: System) -> int:
    """Compare every contract that has a pin file with it; the number compared. Raises Misuse naming the message."""
    pinned = [service.contract for service in system.services.values() if service.contract.pin is not None]
    for contract in pinned:
        check_pin(contract)
    return len(pinned)


def check_pin(contract: Contract) -> None:
    """Refuse a contract whose schema of a stored name differs from its pin file. Raises Misuse."""
    path = cast(Path, contract.pin)
    advice = "give the changed message a new version with an upcast, or run `holdfast contract MODULE:SYSTEM --write`"
    try:
        pins: Any = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Misuse(
            f"contract {contract.name!r}: cannot read its pin file {path}: {error.strerror}; {advice}"
        ) from None
    except ValueError as error:
        raise Misuse(f"contract {contract.name!r}: its pin file {path} is not JSON: {error}") from None
    if not isinstance(pins, dict):
        raise Misuse(f"contract {contract.name!r}: its pin file {path} is not a JSON object")
    now = cast(dict[str, Any], json.loads(json.dumps(contract.schemas())))
    for stored, pin in cast(dict[str, Any], pins).items():
        if stored in now and now[stored] != pin:
            raise Misuse(f"{stored}: its schema is not the pinned one ({path.name}); {advice}")
        if stored not in now and contract.find(stored) is None:
            raise Misuse(f"{stored} is pinned ({path.name}), but no message of the contract can read it; {advice}")


def write_pin(contract: Contract) -> Path:
    """Write the contract's pin file as it is now; older versions that are still read stay in it."""
    if contract.pin is None:
        raise ConfigInvalid(f"contract {contract.name!r} has no pin: write Contract({contract.name!r}, pin=Path(...))")
    kept: dict[str, Any] = {}
    if contract.pin.exists():
        kept = {name: pin for name, pin in json.loads(contract.pin.read_text("utf-8")).items() if contract.find(name)}
    text = json.dumps({**kept, **contract.schemas()}, indent=2, sort_keys=True)
    contract.pin.write_text(text + "\n", "utf-8")
    return contract.pin


def shutdown_order(system: System) -> list[str]:
    """Service names, those that send commands before those that answer them, so that each drains before its peers."""
    calls = {
        name: {peer for saga in service.sagas.values() for peer in saga.contracts} - {name}
        for name, service in system.services.items()
    }
    return sorted(calls, key=lambda name: (-len(calls[name]), name))
