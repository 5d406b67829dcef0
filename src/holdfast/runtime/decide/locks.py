"""Locks: what one transaction holds of a stream, as a value in memory.

`runtime.decide.stages` keeps them by stream and by stage, and stores their rows (`core.saga.stage.Hold`); a decision
remembers those that it took or released, so that it can be taken back.
"""

from typing import Any

from holdfast.core.declare.escrow import Moves
from holdfast.core.saga.stage import Hold


class StreamLocked(Exception):
    """Another transaction holds the stream, and what is asked must wait for it."""


class Lock:
    """What one transaction holds of a stream: its row, and what it means."""

    __slots__ = ("hold", "key", "moves", "state")

    def __init__(self, key: str, hold: Hold, moves: Moves | None = None, state: Any = None) -> None:
        self.key = key
        self.hold = hold
        self.moves = moves
        """Of escrow fields, if it holds nothing else; others may then move them too."""
        self.state = state
        """As it would be, of a stream held alone; None until it is needed: it is made from the row then."""
