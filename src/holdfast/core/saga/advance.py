"""What comes next in a running saga, decided from its state: asked, skipped, undone, completed; staged, committed.

`advance` returns all the progress that follows now, `answered` and `woken` the progress that an answer or a timer leads
to, `cancelled` the progress that a cancel leads to, and `timers` the timers to set. Each piece is folded into the state
as it is decided. Pure. Comes after `core.saga.progress`; `runtime.decide.sagas` records the progress. If a user's step
raises, the exception passes through, and the message that led to the step waits.
"""

from typing import Any

import msgspec

from holdfast.core.declare.message import Rejection, as_commands, message_of
from holdfast.core.declare.saga import ATTEMPTS_MAX, RETRY_DELAY_MS, SagaType, Step
from holdfast.core.saga.progress import (
    Again,
    Answered,
    Asked,
    Begun,
    Cancelled,
    CancelSent,
    CarriedOut,
    Completed,
    Overdue,
    Progress,
    SagaCommitted,
    SagaState,
    Skipped,
    Stuck,
    Told,
    Undoing,
    Undone,
    apply,
)
from holdfast.core.saga.stage import AGAIN_FIRST_MS, AGAIN_LAST_MS, DIED
from holdfast.errors import Rejected


class Timer(msgspec.Struct, frozen=True):
    """A timer to set: `name` is `deadline:STEP`, `retry:VERSION`, `stage:ATTEMPT` or `again:ATTEMPT`."""

    name: str
    delay_ms: int


def advance(saga: SagaType, state: SagaState) -> list[Progress]:
    """All progress that follows now, already folded into the state; empty if the saga waits for an answer."""
    done: list[Progress] = []
    while (progress := _next(saga, state)) is not None:
        apply(saga, state, progress)
        done.append(progress)
    return done


def answered(saga: SagaType, state: SagaState, to: int, answer: Any) -> list[Progress]:
    """The progress that an answer leads to; empty if no answer is awaited (it came before, or the saga has ended).

    An acceptance that comes after an operator closed the saga makes the saga stuck again, because its effect stands.
    """
    if (to not in state.asked and to not in state.told.values()) or to in state.answers:
        return []
    if state.ended and not state.closed:
        return []
    progress = Answered(to, answer)
    apply(saga, state, progress)
    if not state.ended:
        return [progress, *advance(saga, state)]
    asked = state.asked.get(to)
    if asked is None or asked.undoes or isinstance(answer, Rejection):
        return [progress]
    stuck = Stuck(asked.step, f"{asked.step} was accepted after the saga had been closed by hand")
    apply(saga, state, stuck)
    return [progress, stuck]


def woken(saga: SagaType, state: SagaState, name: str) -> list[Progress]:
    """The progress that a timer leads to; empty if the reason for the timer has passed."""
    what, _, rest = name.partition(":")
    progress: Progress | None = None
    if state.ended or state.status == "stuck":
        return []
    if what == "deadline" and rest not in state.overdue:
        progress = Overdue(rest) if _open(state, rest) else None
        state.plan = _given_up(saga, state, rest) if progress else state.plan
    elif what == "retry" and (asked := state.asked.get(int(rest))) is not None:
        current = state.undos.get(asked.undoes) if asked.undoes else state.latest[asked.step].get(asked.index)
        if current == int(rest):
            progress = Asked(asked.step, asked.index, asked.command, asked.attempt + 1, asked.undoes)
    elif what == "stage" and state.status == "running" and state.attempt == int(rest):
        progress = Cancelled(Rejection("deadline", f"not decided within {saga.deadline_seconds:g} s"))
    elif what == "again" and state.again and state.attempt == int(rest):
        progress = Again(state.attempt + 1)
    if progress is None:
        return []
    apply(saga, state, progress)
    return [progress, *advance(saga, state)]


def _open(state: SagaState, step: str) -> list[int]:
    """Commands of a step that have no answer and for which no cancel was sent."""
    versions = state.latest.get(step, {}).values()
    return [version for version in versions if version not in state.answers and version not in state.cancel_sent]


def _given_up(saga: SagaType, state: SagaState, step: str) -> list[Progress]:
    """The progress after a passed deadline: before the pivot the decision to undo, at the pivot a cancel, then
    nothing."""
    number = saga.by_name[step]
    if number > saga.pivot or state.status != "running":
        return []
    off: list[Progress] = [CancelSent(version) for version in _open(state, step)]
    if number == saga.pivot:
        return off
    late = f"{step} had no answer within {saga.steps[number].deadline_seconds:g} s"
    return [Undoing(step, Rejection("deadline", late)), *off]


def cancelled(saga: SagaType, state: SagaState, cause: Rejection) -> list[Progress]:
    """The progress when its caller or an operator cancels a saga: every command without an answer is cancelled, then
    the saga is undone. Empty if it is too late: the pivot was asked, or the saga has ended."""
    if saga.staged:
        return resolved(saga, state, cause)
    if state.ended or state.status != "running" or past_return(saga, state):
        return []
    off = [CancelSent(version) for step in state.latest for version in _open(state, step)]
    first: list[Progress] = [Undoing("", cause), *off]
    for progress in first:
        apply(saga, state, progress)
    return [*first, *advance(saga, state)]


def past_return(saga: SagaType, state: SagaState) -> bool:
    """Whether the pivot was asked or skipped; from then on nothing can be cancelled."""
    if saga.pivot >= len(saga.steps):
        return False
    name = saga.steps[saga.pivot].name
    return name in state.latest or name in state.skipped


def resolved(saga: SagaType, state: SagaState, cause: Rejection) -> list[Progress]:
    """The progress when an operator cancels a staged saga; empty if the saga is already decided."""
    if not saga.staged or state.ended or not (state.status == "running" or state.again):
        return []
    progress = Cancelled(cause)
    apply(saga, state, progress)
    return [progress, *advance(saga, state)]


def timers(saga: SagaType, state: SagaState, progress: list[Progress]) -> list[Timer]:
    """The timers that this progress calls for."""
    wanted: list[Timer] = []
    if saga.staged:
        return _staged_timers(saga, state, progress)
    for item in progress:
        if isinstance(item, Asked) and not item.undoes and not item.attempt and item.index == 0:
            deadline = saga.steps[saga.by_name[item.step]].deadline_seconds
            if deadline:
                wanted.append(Timer(f"deadline:{item.step}", round(deadline * 1000)))
        elif isinstance(item, Answered) and isinstance(item.answer, Rejection) and state.status != "stuck":
            asked = state.asked[item.to]
            if not state.ended and (asked.undoes or saga.by_name[asked.step] > saga.pivot):
                wanted.append(Timer(f"retry:{item.to}", RETRY_DELAY_MS * 2**asked.attempt))
    return wanted


def _staged_timers(saga: SagaType, state: SagaState, progress: list[Progress]) -> list[Timer]:
    wanted: list[Timer] = []
    if any(isinstance(item, Begun | Again) for item in progress):
        wanted.append(Timer(f"stage:{state.attempt}", round(saga.deadline_seconds * 1000)))
    if state.again and state.status == "cancelling" and _carried_out(state):
        delay = min(AGAIN_LAST_MS, AGAIN_FIRST_MS * 2 ** min(state.attempt, 10))
        wanted.append(Timer(f"again:{state.attempt}", delay))
    return wanted


def _next(saga: SagaType, state: SagaState) -> Progress | None:
    if saga.staged:
        return _staged(saga, state)
    if state.plan:
        return state.plan.pop(0)
    if state.status == "running":
        return _forward(saga, state)
    if state.status == "undoing":
        return _backward(saga, state)
    return None


def _staged(saga: SagaType, state: SagaState) -> Progress | None:
    """The next progress of a staged saga: every participant is asked, the saga decides, every participant is told."""
    if state.status == "running":
        for version in (version for versions in state.latest.values() for version in versions.values()):
            if isinstance(no := state.answers.get(version), Rejection):
                state.plan = []
                return Cancelled(no, no.code == DIED)
        found = state.plan.pop(0) if state.plan else _forward(saga, state)
        if isinstance(found, Undoing):
            return Cancelled(found.cause)
        return SagaCommitted(found.answer) if isinstance(found, Completed) else found
    if state.status not in ("committed", "cancelling"):
        return None
    asked = (state.asked[version] for versions in state.latest.values() for version in versions.values())
    for service in sorted({message_of(one.command).contract for one in asked}):
        if service not in state.told:
            return Told(service, state.status == "committed", state.attempt)
    if not _carried_out(state):
        return None
    if mixed := [name for name, version in state.told.items() if isinstance(state.answers[version], Rejection)]:
        return Stuck("", f"mixed: resolved otherwise at {', '.join(mixed)}")
    return None if state.again else CarriedOut()


def _carried_out(state: SagaState) -> bool:
    """Whether every participant has said that the decision is carried out, and answered all that it was asked."""
    asked = (version for versions in state.latest.values() for version in versions.values())
    return all(version in state.answers for version in (*state.told.values(), *asked))


def _forward(saga: SagaType, state: SagaState) -> Progress | None:
    for number in range(state.front, len(saga.steps)):
        step = saga.steps[number]
        state.front = number
        if step.name in state.skipped:
            continue
        if step.name not in state.latest:
            return _evaluate(saga, state, number, step)
        if state.open[step.name]:
            return None
        if step.partial:
            continue
        versions = state.latest[step.name]
        for version in versions.values():
            rejection = state.answers[version]
            if isinstance(rejection, Rejection) and version not in state.waived:
                if number <= saga.pivot:
                    return Undoing(step.name, rejection)
                return _retried(state, version, rejection)
    if saga.answer is None:
        return Completed()
    return Completed(saga.answer.function(state.instance, *_inputs(saga, state, saga.answer.inputs)))


def _evaluate(saga: SagaType, state: SagaState, number: int, step: Step[Any]) -> Progress:
    try:
        if step.when is not None and not step.when(state.instance):
            return Skipped(step.name)
        found = step.function(state.instance, *_inputs(saga, state, step.inputs))
    except Rejected as error:
        if number > saga.pivot:
            raise
        return Undoing(step.name, Rejection(error.code, error.message, error.facts))
    commands = as_commands(found, f"{saga.where}.{step.name}")
    if not commands:
        return Skipped(step.name)
    first, *rest = [Asked(step.name, index, command) for index, command in enumerate(commands)]
    state.plan = list(rest)
    return first


def _backward(saga: SagaType, state: SagaState) -> Progress | None:
    unknown = False
    for step in reversed(saga.steps):
        if state.open.get(step.name):
            if not step.independent:
                return None
            unknown = True
        versions = state.latest.get(step.name, {})
        if step.undo is None:
            continue
        plan: list[Asked] = []
        waits = False
        for index, version in versions.items():
            accepted = state.answers.get(version)
            if accepted is None or isinstance(accepted, Rejection):
                continue
            undo = state.undos.get(version)
            if undo is None:
                commands = as_commands(step.undo(state.instance, accepted), f"{saga.where}.{step.undo.__name__}")
                plan += [Asked(step.name, index, command, undoes=version) for command in commands[:1]]
            elif undo not in state.answers:
                waits = True
            elif isinstance(rejection := state.answers[undo], Rejection) and undo not in state.waived:
                if stuck := _retried(state, undo, rejection):
                    return stuck
                waits = True
        if plan:
            state.plan = list(plan[1:])
            return plan[0]
        if waits and not step.independent:
            return None
        unknown = unknown or waits
    return None if unknown else Undone(state.cause or Rejection("undone"))


def _retried(state: SagaState, version: int, rejection: Rejection) -> Stuck | None:
    asked = state.asked[version]
    if asked.attempt + 1 < ATTEMPTS_MAX:
        return None
    what = "undo of " if asked.undoes else ""
    return Stuck(asked.step, f"{what}{asked.step} was rejected {ATTEMPTS_MAX} times: {rejection.code}", version)


def _inputs(saga: SagaType, state: SagaState, names: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for name in names:
        answers = [state.answers[version] for version in state.latest.get(name, {}).values()]
        group = saga.steps[saga.by_name[name]].group
        found.append(answers if group else (answers[0] if answers else None))
    return found
