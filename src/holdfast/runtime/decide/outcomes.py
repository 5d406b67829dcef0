"""Outcomes: what becomes known when a decision is durable, and who waits at the edge to hear it.

Every work that commits a decision reports it here when it has landed: sagas are counted, timers are set, and the
callers whose transactions ended in it get their answers. Comes after dispatch, sagas and stages; used by all rooms that
submit works. Never fails.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.errors import CommandError
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.sagas import Sagas


class Outcome(msgspec.Struct, frozen=True):
    """The final answer to a command from the edge."""

    tx: str
    answer: Any
    """An event, or a Rejection."""
    position: int
    """Of the answer's record in the service's log; 0 where a saga's end is not looked up."""


class Outcomes:
    """What the decisions of one service came to."""

    def __init__(self, sagas: Sagas, on_timer: Callable[[str], None]) -> None:
        self._sagas = sagas
        self._on_timer = on_timer
        """Told the key of each timer that is set, once its row is in the store."""
        self._awaited: dict[str, list[asyncio.Future[Outcome]]] = {}

    def landed(self, decision: Decision | None, position: int) -> None:
        """A decision is durable, its first record at that position; None: the work decided nothing."""
        if decision is None:
            return
        self._sagas.open += decision.opened
        for key in decision.timers:
            self._on_timer(key)
        for tx, answer, number in decision.outcomes:
            self.tell(Outcome(tx, answer, position + number))

    def of(self, tx: str) -> "asyncio.Future[Outcome]":
        """A future of a transaction's outcome, for when a saga lands it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(tx, []).append(future)
        return future

    def forget(self, tx: str) -> None:
        """Nobody waits for that transaction any more."""
        self._awaited.pop(tx, None)

    def tell(self, outcome: Outcome) -> None:
        """A transaction begun at the edge has its answer: all who wait for it get it."""
        for future in self._awaited.pop(outcome.tx, ()):
            if not future.done():
                future.set_result(outcome)

    def fail(self, tx: str, error: CommandError) -> None:
        """A command from the edge came to nothing: all who wait for it are told."""
        for future in self._awaited.pop(tx, ()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: its waiter may have gone
