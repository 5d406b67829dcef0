"""Locks: the lock of one staged transaction on a stream, as a value in memory.

`runtime.decide.stages` keeps the locks by stream and by stage, and stores their rows (`core.saga.stage.Hold`). A
decision remembers the locks that it took or released, so that they can be undone if it is not committed.
"""

from typing import Any

from holdfast.core.declare.escrow import Moves
from holdfast.core.saga.stage import Hold


class StreamLocked(Exception):
    """Another transaction has locked the stream; the message must wait until the lock is released."""


class Lock:
    """The lock of one transaction on a stream: its row, and the state that follows from it."""

    __slots__ = ("hold", "key", "moves", "state")

    def __init__(self, key: str, hold: Hold, moves: Moves | None = None, state: Any = None) -> None:
        self.key = key
        self.hold = hold
        self.moves = moves
        """The moves of escrow fields, if the transaction does nothing else; then others may move them too."""
        self.state = state
        """The state after the staged events, if the lock is exclusive; None until it is needed and made
        from the row."""
