"""What has happened to one running saga: its progress as values, folded into a state.

Comes after `core.declare.saga`, before `core.saga.advance`, which decides what comes next; `runtime.decide.sagas` turns
progress into records and back. `apply` is pure and cannot fail: a restart that folds the same records stands at the
same point.
"""

from typing import Any

import msgspec

from holdfast.core.declare.message import Rejection
from holdfast.core.declare.saga import SagaType


class Begun(msgspec.Struct, frozen=True):
    """The saga exists. `message` began it; `destination` and `answers` say where its answer goes."""

    message: Any
    shape: str
    destination: str = ""
    answers: str = ""
    at: int = 0
    """Of a staged saga: when it began, in microseconds since 1970-01-01 UTC. With its stream this gives its age."""


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
    """The step sent no command."""

    step: str


class Undoing(msgspec.Struct, frozen=True):
    """The decision to undo, and why."""

    step: str
    cause: Rejection


class Overdue(msgspec.Struct, frozen=True):
    """The step's deadline passed without an answer, so its outcome is unknown."""

    step: str


class CancelSent(msgspec.Struct, frozen=True):
    """A cancel was sent for the command of version `to`, which has no answer yet."""

    to: int


class Stuck(msgspec.Struct, frozen=True):
    """The saga can neither go on nor be undone by itself. `to`: the command that was rejected too often."""

    step: str
    cause: str
    to: int = 0


class Repaired(msgspec.Struct, frozen=True):
    """An operator's repair of the saga: `retry` or `skip` the command it is stuck at, `undo` the saga, or close it by
    hand as `done` or `undone`."""

    verb: str
    by: str
    why: str


class Completed(msgspec.Struct, frozen=True):
    """The saga has ended and all is done; `answer` is the final event, if there is one."""

    answer: Any = None


class Undone(msgspec.Struct, frozen=True):
    """The saga has ended and everything is taken back."""

    cause: Rejection


class SagaCommitted(msgspec.Struct, frozen=True):
    """The commit point of a staged saga: all participants have voted yes. `answer` is the final event, if there is
    one."""

    answer: Any = None


class Cancelled(msgspec.Struct, frozen=True):
    """The decision against a staged saga. `again`: the saga gave way to an older transaction and is tried again."""

    cause: Rejection
    again: bool = False


class Told(msgspec.Struct, frozen=True):
    """A participant of a staged saga was told the decision."""

    service: str
    commit: bool
    attempt: int


class Again(msgspec.Struct, frozen=True):
    """Another attempt of a staged saga begins."""

    attempt: int


class CarriedOut(msgspec.Struct, frozen=True):
    """The end of a staged saga: every participant has carried out the decision."""


Progress = (
    Begun
    | Asked
    | Answered
    | Skipped
    | Undoing
    | Overdue
    | Stuck
    | Completed
    | Undone
    | SagaCommitted
    | Cancelled
    | Told
    | Again
    | CarriedOut
    | CancelSent
    | Repaired
)


class SagaState:
    """One running saga, folded from its records. Mutable; the caller that folds it owns it."""

    __slots__ = (
        "again", "answers", "asked", "attempt", "begun", "cancel_sent", "cause", "closed", "concluded", "ended",
        "front", "instance", "latest", "open", "overdue", "plan", "resumes", "skipped", "status", "stuck", "timers",
        "told", "undos", "version", "waived",
    )  # fmt: skip

    def __init__(self) -> None:
        self.version = 0
        self.begun: Begun | None = None
        self.instance: Any = None
        self.status = "running"
        """running, undoing, completed, undone or stuck; of a staged saga also committed and cancelling."""
        self.ended = False
        self.cause: Rejection | None = None
        self.stuck: Stuck | None = None
        self.asked: dict[int, Asked] = {}
        self.answers: dict[int, Any] = {}
        self.latest: dict[str, dict[int, int]] = {}
        """Step -> index in its group -> version of the last command asked."""
        self.open: dict[str, int] = {}
        """Step -> number of its commands without an answer, not counting undos."""
        self.front = 0
        """The first step that is not finished, while the saga runs forward."""
        self.undos: dict[int, int] = {}
        self.skipped: set[str] = set()
        self.overdue: set[str] = set()
        self.cancel_sent: set[int] = set()
        """Versions of commands for which a cancel was sent."""
        self.waived: set[int] = set()
        """Versions of rejected commands that an operator has told the saga to skip."""
        self.resumes = ""
        """The status that it had when it got stuck."""
        self.closed = False
        """True after an operator has closed the saga: an acceptance that comes later makes it stuck again."""
        self.concluded = False
        """True once the saga's caller has an answer."""
        self.plan: list[Progress] = []
        self.attempt = 0
        """Of a staged saga: participant -> version of the decision it was told in this attempt."""
        self.told: dict[str, int] = {}
        self.again = False
        self.timers: dict[str, str] = {}
        """Timer name -> key of its row, for timers that this process set."""


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
            if (asked := state.asked.get(progress.to)) is not None:
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
            state.resumes = state.status
            state.status, state.stuck, state.ended = "stuck", progress, False
        case Completed():
            state.status, state.ended, state.concluded = "completed", True, True
        case Undone():
            state.status, state.ended, state.concluded = "undone", True, True
        case CancelSent():
            state.cancel_sent.add(progress.to)
        case Repaired():
            _repaired(state, progress)
        case SagaCommitted():
            state.status, state.concluded = "committed", True
        case Cancelled():
            state.status, state.cause, state.again = "cancelling", progress.cause, progress.again
            state.concluded = state.concluded or not progress.again
        case Told():
            state.told[progress.service] = state.version
        case Again():
            state.attempt, state.status, state.cause, state.again = progress.attempt, "running", None, False
            state.latest, state.open, state.told, state.skipped, state.front = {}, {}, {}, set(), 0
            state.plan = []
        case CarriedOut():
            state.status, state.ended = ("completed" if state.status == "committed" else "undone"), True


def _repaired(state: SagaState, repaired: Repaired) -> None:
    if repaired.verb == "skip" and state.stuck is not None:
        state.waived.add(state.stuck.to)
    if state.status == "stuck":
        state.status, state.stuck = state.resumes, None
    if repaired.verb in ("done", "undone"):
        state.closed = True
        if state.concluded:
            state.status, state.ended = ("completed" if repaired.verb == "done" else "undone"), True
