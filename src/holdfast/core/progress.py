"""What happens to one running saga: its progress as values, folded into a state, and the next of it decided.

`advance(saga_type, state)` says what to record next; `apply` folds each of it; both are pure, so a restart that folds
the same records stands at the same point. Comes after `core.saga`; `runtime.sagas` turns progress into records and
back. A user's step that raises is passed on: the message that led to it waits.
"""

from typing import Any

import msgspec

from holdfast.core.message import Rejection
from holdfast.core.saga import ATTEMPTS_MAX, RETRY_DELAY_MS, SagaType, Step
from holdfast.core.view import as_commands
from holdfast.errors import Rejected


class Begun(msgspec.Struct, frozen=True):
    """The saga exists. `message` is what began it; `destination` and `answers` say where its answer goes."""

    message: Any
    shape: str
    destination: str = ""
    answers: str = ""


class Asked(msgspec.Struct, frozen=True):
    """A command was sent: for a step, or (`undoes` > 0) to undo the command of that version."""

    step: str
    index: int
    command: Any
    attempt: int = 0
    undoes: int = 0


class Answered(msgspec.Struct, frozen=True):
    """The command of version `to` was answered, by an event or a Rejection."""

    to: int
    answer: Any


class Skipped(msgspec.Struct, frozen=True):
    """The step asked nothing."""

    step: str


class Undoing(msgspec.Struct, frozen=True):
    """The decision to undo, and why."""

    step: str
    cause: Rejection


class Overdue(msgspec.Struct, frozen=True):
    """The step's deadline passed without an answer: what became of it is unknown."""

    step: str


class Stuck(msgspec.Struct, frozen=True):
    """The saga can neither go on nor be undone by itself."""

    step: str
    cause: str


class Completed(msgspec.Struct, frozen=True):
    """The end, all done; `answer` is the final event where there is one."""

    answer: Any = None


class Undone(msgspec.Struct, frozen=True):
    """The end, everything taken back."""

    cause: Rejection


Progress = Begun | Asked | Answered | Skipped | Undoing | Overdue | Stuck | Completed | Undone


class Timer(msgspec.Struct, frozen=True):
    """A wish to be woken: `name` is `deadline:STEP` or `retry:VERSION`."""

    name: str
    delay_ms: int


class SagaState:
    """One running saga, folded from its records. Mutable; owned by whoever folds."""

    __slots__ = (
        "answers",
        "asked",
        "begun",
        "cause",
        "ended",
        "front",
        "instance",
        "latest",
        "open",
        "overdue",
        "plan",
        "skipped",
        "status",
        "stuck",
        "timers",
        "undos",
        "version",
    )

    def __init__(self) -> None:
        self.version = 0
        self.begun: Begun | None = None
        self.instance: Any = None
        self.status = "running"
        """running, undoing, completed, undone or stuck."""
        self.ended = False
        self.cause: Rejection | None = None
        self.stuck: Stuck | None = None
        self.asked: dict[int, Asked] = {}
        self.answers: dict[int, Any] = {}
        self.latest: dict[str, dict[int, int]] = {}
        """Step -> index in its group -> version of the last command asked."""
        self.open: dict[str, int] = {}
        """Step -> commands of it that have no answer, undos not counted."""
        self.front = 0
        """The first step that is not behind us; while the saga runs forward."""
        self.undos: dict[int, int] = {}
        self.skipped: set[str] = set()
        self.overdue: set[str] = set()
        self.plan: list[Asked] = []
        self.timers: dict[str, str] = {}
        """Timer name -> key of its row, where this process set it."""


def apply(saga: SagaType, state: SagaState, progress: Progress) -> None:
    """Fold one piece of progress into the state; its version is the next one."""
    state.version += 1
    match progress:
        case Asked():
            state.asked[state.version] = progress
            if progress.undoes:
                state.undos[progress.undoes] = state.version
            else:
                state.latest.setdefault(progress.step, {})[progress.index] = state.version
                state.open[progress.step] = state.open.get(progress.step, 0) + 1
        case Answered():
            state.answers[progress.to] = progress.answer
            asked = state.asked[progress.to]
            state.overdue.discard(asked.step)
            if not asked.undoes:
                state.open[asked.step] -= 1
        case Begun():
            state.begun = progress
            state.instance = object.__new__(saga.cls)
            setattr(state.instance, saga.field, progress.message)
        case Skipped():
            state.skipped.add(progress.step)
        case Overdue():
            state.overdue.add(progress.step)
        case Undoing():
            state.status, state.cause = "undoing", progress.cause
        case Stuck():
            state.status, state.stuck = "stuck", progress
        case Completed():
            state.status, state.ended = "completed", True
        case Undone():
            state.status, state.ended = "undone", True


def advance(saga: SagaType, state: SagaState) -> list[Progress]:
    """All that follows now, already folded into the state; empty when the saga waits for an answer."""
    done: list[Progress] = []
    while (progress := _next(saga, state)) is not None:
        apply(saga, state, progress)
        done.append(progress)
    return done


def answered(saga: SagaType, state: SagaState, to: int, answer: Any) -> list[Progress]:
    """What an answer leads to: empty when it is not awaited (answered before, or the saga has ended)."""
    if to not in state.asked or to in state.answers or state.ended:
        return []
    progress = Answered(to, answer)
    apply(saga, state, progress)
    return [progress, *advance(saga, state)]


def woken(saga: SagaType, state: SagaState, name: str) -> list[Progress]:
    """What a timer leads to: empty when what it was set for has passed."""
    what, _, rest = name.partition(":")
    progress: Progress | None = None
    if state.ended or state.status == "stuck":
        return []
    if what == "deadline" and rest not in state.overdue:
        open_ = [v for v in state.latest.get(rest, {}).values() if v not in state.answers]
        progress = Overdue(rest) if open_ else None
    elif what == "retry" and (asked := state.asked.get(int(rest))) is not None:
        current = state.undos.get(asked.undoes) if asked.undoes else state.latest[asked.step].get(asked.index)
        if current == int(rest):
            progress = Asked(asked.step, asked.index, asked.command, asked.attempt + 1, asked.undoes)
    if progress is None:
        return []
    apply(saga, state, progress)
    return [progress, *advance(saga, state)]


def timers(saga: SagaType, state: SagaState, progress: list[Progress]) -> list[Timer]:
    """The timers that this progress calls for."""
    wanted: list[Timer] = []
    for item in progress:
        if isinstance(item, Asked) and not item.undoes and not item.attempt and item.index == 0:
            deadline = saga.steps[saga.by_name[item.step]].deadline_seconds
            if deadline:
                wanted.append(Timer(f"deadline:{item.step}", round(deadline * 1000)))
        elif isinstance(item, Answered) and isinstance(item.answer, Rejection) and state.status != "stuck":
            asked = state.asked[item.to]
            if asked.undoes or saga.by_name[asked.step] > saga.pivot:
                wanted.append(Timer(f"retry:{item.to}", RETRY_DELAY_MS * 2**asked.attempt))
    return wanted


def _next(saga: SagaType, state: SagaState) -> Progress | None:
    if state.plan:
        return state.plan.pop(0)
    if state.status == "running":
        return _forward(saga, state)
    if state.status == "undoing":
        return _backward(saga, state)
    return None


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
            if isinstance(rejection, Rejection):
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
    state.plan = rest
    return first


def _backward(saga: SagaType, state: SagaState) -> Progress | None:
    for step in reversed(saga.steps):
        if state.open.get(step.name):
            return None
        versions = state.latest.get(step.name, {})
        if step.undo is None:
            continue
        plan: list[Asked] = []
        waits = False
        for index, version in versions.items():
            accepted = state.answers[version]
            if isinstance(accepted, Rejection):
                continue
            undo = state.undos.get(version)
            if undo is None:
                commands = as_commands(step.undo(state.instance, accepted), f"{saga.where}.{step.undo.__name__}")
                plan += [Asked(step.name, index, command, undoes=version) for command in commands[:1]]
            elif undo not in state.answers:
                waits = True
            elif isinstance(rejection := state.answers[undo], Rejection):
                if stuck := _retried(state, undo, rejection):
                    return stuck
                waits = True
        if plan:
            state.plan = plan[1:]
            return plan[0]
        if waits:
            return None
    return Undone(state.cause or Rejection("undone"))


def _retried(state: SagaState, version: int, rejection: Rejection) -> Stuck | None:
    asked = state.asked[version]
    if asked.attempt + 1 < ATTEMPTS_MAX:
        return None
    what = "undo of " if asked.undoes else ""
    return Stuck(asked.step, f"{what}{asked.step} was rejected {ATTEMPTS_MAX} times: {rejection.code}")


def _inputs(saga: SagaType, state: SagaState, names: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for name in names:
        answers = [state.answers[version] for version in state.latest.get(name, {}).values()]
        group = saga.steps[saga.by_name[name]].group
        found.append(answers if group else (answers[0] if answers else None))
    return found
