"""What a repair would do, and what one of a stage or of a restored store did: the values that an operator gets.

`runtime.ops.plan` makes a plan on copies, `web.repairs` encodes it with the answer masked, and whoever asks decodes the
same types again; what a plan gives another service is planned there in turn. What a repair of a message or a saga did
is `RepairResult`. Values only: nothing here fails but the decoding of what is no such value.
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
    """The answer that another service would get: to which command, and what."""

    service: str
    stream: str
    version: int
    """Of the command, in that stream."""
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
    """In sentences."""
    sends: tuple[Sent, ...] = ()
    events: tuple[str, ...] = ()
    """Stored types of the events that would be recorded."""
    saga: str = ""
    """Of a saga: the status that it would have."""
    calls: tuple[str, ...] = ()
    """Calls of others that would be made: effects, probes."""
    answer: AnswerGiven | None = None
    dry_run: bool = True
    """Nothing was written."""


class RepairResult(msgspec.Struct, frozen=True):
    """What a repair of a message or a saga did."""

    service: str
    kind: str
    target: str
    how: Literal["applied", "already"]
    record: str = ""
    """The id of the record that says so."""
    note: str = ""


class StageResolved(msgspec.Struct, frozen=True):
    """What an operator's word on a staged transaction did in one service."""

    kind: str
    service: str
    stage: str
    commit: bool
    how: str
    """`decided` by the coordinator; `told` by who knew; `forced`, nobody reachable knowing; `already` so."""


class StandingPlan(Standing, frozen=True, omit_defaults=True):
    """What a service knows of a staged transaction that it was not yet told to end."""

    dry_run: bool = False
    """Nothing was written."""


class StoreRestored(msgspec.Struct, frozen=True):
    """A store was declared restored."""

    kind: str
    first: int
    """The first position that is given from now on."""


class PeerRestored(msgspec.Struct, frozen=True):
    """It was accepted that a peer's store was restored."""

    kind: str
    peer: str
