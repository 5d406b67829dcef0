"""Staged commit as values: what a participant holds for a transaction, and who gives way to whom.

A staged command is decided, and its events are held beside the log until the coordinator (a staged saga, see
`core.saga.advance`) says what became of the transaction. The stream is locked meanwhile. Where two meet, the younger
gives way and is tried again with its first age: wait-die, so that nobody waits in a circle and nobody starves.
(Rosenkrantz, Stearns and Lewis, "System Level Concurrency Control for Distributed Database Systems", 1978.)
"""

from collections.abc import Iterable

import msgspec

HELD, CONFIRM, CANCEL, DONE = "holdfast.held", "holdfast.confirm", "holdfast.cancel", "holdfast.done"
"""Stored types: a vote with the event that is held; the decision, as told to a participant; that it is carried out."""
DIED = "gave_way"
"""The code with which a command says no because an older transaction is before it."""
AGAIN_FIRST_MS, AGAIN_LAST_MS = 20, 2_000
"""Delay before a transaction that gave way is tried again: doubles with each attempt."""


class Vote(msgspec.Struct, frozen=True):
    """A yes: the event that is held for the transaction."""

    type: str
    event: msgspec.Raw


class StageAttempt(msgspec.Struct, frozen=True):
    """Of which attempt a participant is told the decision."""

    attempt: int


class Carried(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision as it was carried out here: what DONE says, and what is remembered of one not told by the
    coordinator."""

    stage: str
    commit: bool
    by: str = ""
    """Who took or told it, where that was not the coordinator."""


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one service knows of a transaction."""

    service: str
    position: int = 0
    """Of the last record of it in this service's log; 0 where there is none."""
    held: tuple[str, ...] = ()
    """Stages of it that this service holds something for."""
    decided: tuple[Carried, ...] = ()
    """Decisions that it took, or was told."""
    undecided: tuple[str, ...] = ()
    """Stages that are this service's to decide."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """The events of one staged command, and what their records inherit from it."""

    cause: str
    events: tuple[tuple[str, msgspec.Raw], ...]
    hop: int = 0
    debug: bool = False
    traceparent: str = ""


class Hold(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a stream holds for one transaction: the lock, as it is stored."""

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
    """It only moves escrow fields: others may move them at the same time."""

    @property
    def age(self) -> tuple[int, str]:
        """The smaller is the older."""
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
    """Which attempt a stage is."""
    return int(stage.rpartition("#")[2])


def gives_way(age: tuple[int, str], ahead: Iterable[tuple[int, str]]) -> bool:
    """True when it is younger than the holder, or than any that waits before it."""
    return any(age > other for other in ahead)
