"""Plans and results of repairs: the values that an operator gets.

`runtime.ops.plan` makes a plan on copies, `web.repairs` encodes it with the answer masked, and the client decodes the
same types again. If a plan gives an answer to another service, that service plans its own part. `RepairResult` tells
the result of a repair of a message or a saga. This module has values only; decoding fails on any other value.
"""

from typing import Literal

import msgspec

from holdfast.core.saga.stage import Standing


class Sent(msgspec.Struct, frozen=True):
    """A message that a repair would send."""

    service: str
    type: str
    key: str = ""
    what: str = ""
    """The saga's step, `undo of STEP`, or `cancel of STEP`."""


class AnswerGiven(msgspec.Struct, frozen=True):
    """The answer that another service would get, and the command that it answers."""

    service: str
    stream: str
    version: int
    """The version of the command in that stream."""
    type: str
    data: msgspec.Raw


class Plan(msgspec.Struct, frozen=True):
    """What a repair would do."""

    service: str
    kind: str
    target: str
    how: str
    """`apply`, or `already`: nothing would change."""
    does: tuple[str, ...] = ()
    """The plan in sentences."""
    sends: tuple[Sent, ...] = ()
    events: tuple[str, ...] = ()
    """Stored types of the events that would be recorded."""
    saga: str = ""
    """For a saga: the status that it would have."""
    calls: tuple[str, ...] = ()
    """External calls that would be made: effects and probes."""
    answer: AnswerGiven | None = None
    dry_run: bool = True
    """True: nothing was written."""


class RepairResult(msgspec.Struct, frozen=True):
    """The result of a repair of a message or a saga."""

    service: str
    kind: str
    target: str
    how: Literal["applied", "already"]
    record: str = ""
    """The id of the record of the repair."""
    note: str = ""


class StageResolved(msgspec.Struct, frozen=True):
    """The result of an operator's decision on a staged transaction in one service."""

    kind: str
    service: str
    stage: str
    commit: bool
    how: str
    """`decided`: by the coordinator; `told`: by a service that knew it; `forced`: no service that was reached knew it;
    `already`: nothing changed."""


class StandingPlan(Standing, frozen=True, omit_defaults=True):
    """What a service knows about a staged transaction whose decision it was not told yet."""

    dry_run: bool = False
    """True: nothing was written."""


class StoreRestored(msgspec.Struct, frozen=True):
    """A store was declared restored."""

    kind: str
    first: int
    """The position that the next record gets."""


class PeerRestored(msgspec.Struct, frozen=True):
    """The service accepts that a peer's store was restored."""

    kind: str
    peer: str
