"""What the fault explorer says of a schedule that breaks a system: a test to paste, and the trail of what went wrong.

Comes after a run was judged; its reader comes next. It never raises: a system that no module offers by name is written
as `...`, for the developer to fill in.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.core.audit.invariant import Violation
from holdfast.core.explain.trail import build
from holdfast.core.explain.tree import render
from holdfast.core.log.record import parse_record_id

if TYPE_CHECKING:
    from holdfast.testing.simulation.system import VirtualSystem

TRANSACTIONS_TOLD_MAX = 2


def as_test(
    system: Any,
    scenario: Callable[..., Any],
    schedule: msgspec.Struct,
    wrong: str,
    *,
    invariants: Sequence[Any] = (),
    stuck: bool = False,
) -> str:
    """The source of a test that plays a schedule."""
    imports = {"from holdfast.testing import Fault, Schedule, replay"}
    where, shown = _name_of(system)
    imports.add(f"from {where} import {shown}")
    name = scenario.__qualname__.rpartition(".")[2]
    called = "scenario" if name.startswith("test") else name  # else a runner would take it for one more test
    imports.add(f"from {scenario.__module__} import {name}" + (f" as {called}" if called != name else ""))
    more = [one.__qualname__.rpartition(".")[2] for one in invariants]
    imports.update(f"from {one.__module__} import {name}" for one, name in zip(invariants, more, strict=True))
    lines = [f"        {fault!r}," for fault in getattr(schedule, "faults", ())]
    faults = "(\n" + "\n".join(lines) + "\n    )" if lines else "()"
    how = "".join(f", {field}={getattr(schedule, field)!r}" for field in ("seed", "jitter") if getattr(schedule, field))
    options = (f", invariants=[{', '.join(more)}]" if more else "") + (", stuck=True" if stuck else "")
    says = wrong.splitlines()[0][:100].replace("\\", "/").replace('"', "'")
    return "\n".join(
        (
            *sorted(imports),
            "",
            "",
            f"def test_{name.removeprefix('test_')}_found() -> None:",
            f'    """{says}"""',
            f"    faults = {faults}",
            f"    replay({shown}, {called}, Schedule(faults{how}){options})",
        )
    )


def _name_of(system: Any) -> tuple[str, str]:
    """(module, name) under which a system, or the function that makes it, can be imported."""
    if inspect.isfunction(system):
        return system.__module__, system.__qualname__.rpartition(".")[2]
    for name, module in list(sys.modules.items()):
        for found, value in list(getattr(module, "__dict__", {}).items()) if name != "__main__" else ():
            if value is system and not found.startswith("_"):
                return name, found
    return "...", "system"


def told(system: "VirtualSystem", violations: Sequence[Violation]) -> str:
    """The trails of the transactions that violations name, as text."""
    logs = {name: system.log(name) for name in system.stores}
    by_id = {(name, record.position): record for name, log in logs.items() for record in log}
    named: dict[str, None] = {}
    for violation in violations:
        ids = [parse_record_id(text) for text in violation.records]
        found = [by_id[one].tx for one in ids if one in by_id]
        named.update(dict.fromkeys([violation.tx] if violation.tx else reversed(found)))
    if not named:  # it does not settle: the last transaction that anything happened in
        last = max((record for log in logs.values() for record in log), key=lambda one: one.at, default=None)
        named = {last.tx: None} if last is not None else {}
    sagas = {name: service.sagas for name, service in system.services.items()}
    trails: list[str] = []
    for tx in list(named)[:TRANSACTIONS_TOLD_MAX]:
        mine = {name: [record for record in log if record.tx == tx] for name, log in logs.items()}
        trails.append(render(build(mine, sagas)))
    return "\n\n".join(trails)
