"""What comes next in a saga: which of its declared steps, or which undos, are still to be asked, in order.

How far a saga has come is known from its state, where it runs, and from its records, wherever somebody reads them;
each of the two is reduced to the same small value, and what comes next is told from that. Comes after
`core.saga.progress`; before what shows a saga: `runtime.ops.why` and `core.explain.trail`. Pure; a payload that cannot
be read says nothing.
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
"""What a saga's own record says of it -> the status that it has from then on."""
_SETTLED = {"committed": "completed"}
"""The status of a staged saga -> the one that it has once every participant has carried out the decision."""


class Reached(msgspec.Struct, frozen=True):
    """How far a saga has come, as far as what comes next depends on it."""

    status: str
    """`running`, `undoing`, `stuck`, `committed`, `cancelling`, `completed` or `undone`."""
    behind: frozenset[str]
    """Steps that were asked, or had nothing to ask, in the attempt that counts."""
    accepted: frozenset[str]
    """Steps with a command that was accepted, and that nobody was asked to undo."""


def upcoming(saga: SagaType, reached: Reached) -> tuple[str, ...]:
    """The declared steps that are still to come, in order; empty when a person, or only an answer, is waited for."""
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
    """How far a saga has come, by its state."""
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
    """How far a saga has come, by the records of its stream in log order, masked or not."""
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
