"""Staged commit as values: what a participant holds for a transaction, and which transaction gives way.

A staged command is decided, and its events are held beside the log until the coordinator (a staged saga, see
`core.saga.advance`) tells the decision on the transaction. The stream is locked meanwhile. If two transactions want one
stream, the younger gives way and is tried again with its first age: wait-die, without deadlock and without starvation.
(Rosenkrantz, Stearns and Lewis, "System Level Concurrency Control for Distributed Database Systems", 1978.)
"""

from collections.abc import Iterable

import msgspec

HELD, CONFIRM, CANCEL, DONE = "holdfast.held", "holdfast.confirm", "holdfast.cancel", "holdfast.done"
"""Stored types: a vote with the held event; the decision as told to a participant; the note that it is carried out."""
DIED = "gave_way"
"""The code of a rejection because an older transaction holds the stream."""
AGAIN_FIRST_MS, AGAIN_LAST_MS = 20, 2_000
"""Delays, first and last, before a transaction that gave way is tried again: the delay doubles with each attempt."""


class Vote(msgspec.Struct, frozen=True):
    """A vote of yes: the event that is held for the transaction."""

    type: str
    event: msgspec.Raw


class StageAttempt(msgspec.Struct, frozen=True):
    """The decision on one attempt, as a participant is told it."""

    attempt: int


class Carried(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision that was carried out here: the payload of DONE, and of the row for a decision that did not come from
    the coordinator."""

    stage: str
    commit: bool
    by: str = ""
    """Who made or told the decision, if that was not the coordinator."""


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one service knows about a staged transaction."""

    service: str
    position: int = 0
    """The position of its last record in this service's log; 0 if there is none."""
    held: tuple[str, ...] = ()
    """Stages of the transaction for which this service holds events."""
    decided: tuple[Carried, ...] = ()
    """Decisions that this service made or was told."""
    undecided: tuple[str, ...] = ()
    """Stages that this service has to decide."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """The events of one staged command, and the fields that their records inherit from it."""

    cause: str
    events: tuple[tuple[str, msgspec.Raw], ...]
    hop: int = 0
    debug: bool = False
    traceparent: str = ""


class Hold(msgspec.Struct, frozen=True, omit_defaults=True):
    """The lock of a stream as it is stored: the events that are held for one transaction."""

    stage: str
    """`coordinator:Saga/id#attempt`."""
    at: int
    """When the transaction began, µs since 1970-01-01 UTC: its age, which it keeps over all attempts."""
    since: int
    """When the stream was locked."""
    tx: str
    correlation: str = ""
    parts: tuple[Part, ...] = ()
    beside: bool = False
    """True if it only moves escrow fields: then other transactions may move them at the same time."""

    @property
    def age(self) -> tuple[int, str]:
        """The age of the holder: a smaller value is older."""
        return self.at, self.stage.rpartition("#")[0]


def stage_of(producer: str, stream: str, attempt: int) -> str:
    """The id of one attempt of a staged saga."""
    return f"{producer}:{stream}#{attempt}"


def written(at: int, attempt: int) -> str:
    """A staged command's header: when its transaction began, and which attempt this is."""
    return f"{at}#{attempt}"


def read(producer: str, stream: str, header: str) -> tuple[str, tuple[int, str]]:
    """(stage, age) of a staged command. Raises ValueError on a header that is not one."""
    at, _, attempt = header.partition("#")
    return stage_of(producer, stream, int(attempt)), (int(at), f"{producer}:{stream}")


def attempt_of(stage: str) -> int:
    """The number of the attempt that a stage belongs to."""
    return int(stage.rpartition("#")[2])


def gives_way(age: tuple[int, str], ahead: Iterable[tuple[int, str]]) -> bool:
    """True if it is younger than the holder, or than any transaction that waits before it."""
    return any(age > other for other in ahead)
