"""What comes next in a saga: the declared steps or undos that are still to be asked, in order.

The progress of a saga is known from its state in the service that runs it, and from its records everywhere else. Both
are reduced to the same small value, which gives the steps that come next. Comes after `core.saga.progress`, before the
modules that show a saga: `runtime.ops.why` and `core.explain.trail`. Pure; a payload that cannot be read is ignored.
"""

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.declare.message import Rejection
from holdfast.core.declare.saga import SagaType
from holdfast.core.log.record import ANSWERED, CANCEL_COMMAND, REJECTED, SAGA, Record, body_of
from holdfast.core.saga.progress import SagaState
from holdfast.core.saga.stage import CANCEL, CONFIRM

_STATUSES = {
    "again": "running",
    "undoing": "undoing",
    "committed": "committed",
    "cancelled": "cancelling",
    "completed": "completed",
    "undone": "undone",
}
"""Name of a saga's own record -> the status of the saga from then on."""
_SETTLED = {"committed": "completed"}
"""The status of a staged saga -> its status once every participant has carried out the decision."""


class Reached(msgspec.Struct, frozen=True):
    """The part of a saga's progress that decides what comes next."""

    status: str
    """`running`, `undoing`, `stuck`, `committed`, `cancelling`, `completed` or `undone`."""
    behind: frozenset[str]
    """Steps that were asked or skipped in the current attempt."""
    accepted: frozenset[str]
    """Steps with an accepted command whose undo was not asked."""


def upcoming(saga: SagaType, reached: Reached) -> tuple[str, ...]:
    """The declared steps that are still to come, in order; empty if the saga waits for an operator or only for an
    answer."""
    if reached.status == "undoing":
        left = [step for step in reversed(saga.steps) if step.undo and step.name in reached.accepted]
        return tuple(f"undo of {step.name}" for step in left)
    if reached.status != "running":
        return ()
    ahead = [step for step in saga.steps if step.name not in reached.behind]
    names = [f"{step.name} (the pivot)" if step.pivot else step.name for step in ahead]
    names += ["commit"] if saga.staged else []
    names += [f"answer {saga.answer.function.__name__}"] if saga.answer else []
    return tuple(names)


def reached_by_state(state: SagaState) -> Reached:
    """The progress of a saga from its state."""
    accepted = (
        asked.step
        for version, asked in state.asked.items()
        if not asked.undoes
        and version not in state.undos
        and version in state.answers
        and not isinstance(state.answers[version], Rejection)
    )
    return Reached(state.status, frozenset((*state.latest, *state.skipped)), frozenset(accepted))


def reached_by_records(records: Sequence[Record], *, staged: bool) -> Reached:
    """The progress of a saga from the records of its stream in log order, masked or not."""
    behind: set[str] = set()
    commands: dict[int, str] = {}
    undone: set[int] = set()
    answered: set[int] = set()
    for record in records:
        step = record.headers.step
        if record.kind == "command" and record.type not in (CANCEL_COMMAND, CONFIRM, CANCEL):
            if record.headers.undoes:
                undone.add(record.headers.undoes)
            else:
                commands[record.version] = step
                behind.add(step)
        elif record.type == ANSWERED:
            answered |= _accepted_by(record)
        elif record.type == SAGA + "skipped":
            behind.add(step)
        elif record.type == SAGA + "again":
            behind.clear()
    accepted = (step for version, step in commands.items() if version in answered and version not in undone)
    return Reached(_status_by(records, staged=staged), frozenset(behind), frozenset(accepted))


def _status_by(records: Iterable[Record], *, staged: bool) -> str:
    """The status that a saga has after these records."""
    status = resumes = "running"
    for record in records:
        name = record.type.removeprefix(SAGA) if record.kind == "saga" else ""
        if record.kind == "event":
            status = "committed" if staged else "completed"
        elif record.kind == "answer":
            status = "cancelling" if staged else "undone"
        elif record.kind == "repair" and status == "stuck":
            status = resumes
        elif name == "stuck":
            resumes = status
            status = "stuck"
        elif name == "settled":
            status = _SETTLED.get(status, "undone")
        elif name in _STATUSES:
            status = _STATUSES[name]
    return status


def _accepted_by(record: Record) -> set[int]:
    """The version of the command that this record says was accepted, if it says so."""
    body = body_of(record)
    to = body.get("to")
    return {to} if isinstance(to, int) and body.get("type") != REJECTED else set()
