"""Outcomes: what follows when a decision is durable, and the answers for callers at the edge.

Every work that commits a decision reports the decision here as soon as it is durable. Then open sagas are counted,
timers are set, and callers get their answers if their transactions have ended. Dispatch, sagas and stages come before
it; all rooms that submit works use it. It never fails.
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
    """The position of the answer in the log of the service; 0 if the end of a saga was not looked up."""


class Outcomes:
    """The outcomes of one service, and the callers that wait for them."""

    def __init__(self, sagas: Sagas, on_timer: Callable[[str], None]) -> None:
        self._sagas = sagas
        self._on_timer = on_timer
        """It is called with the key of each timer when its row is in the store."""
        self._awaited: dict[str, list[asyncio.Future[Outcome]]] = {}

    def landed(self, decision: Decision | None, position: int) -> None:
        """Take a durable decision whose first record has that position; None: the work decided nothing."""
        if decision is None:
            return
        self._sagas.open += decision.opened
        for key in decision.timers:
            self._on_timer(key)
        for tx, answer, number in decision.outcomes:
            self.tell(Outcome(tx, answer, position + number))

    def of(self, tx: str) -> "asyncio.Future[Outcome]":
        """A future of the outcome of a transaction; a caller at the edge waits for it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(tx, []).append(future)
        return future

    def forget(self, tx: str) -> None:
        """Drop all waiting callers of a transaction."""
        self._awaited.pop(tx, None)

    def tell(self, outcome: Outcome) -> None:
        """Give the answer of a transaction to all callers that wait for it."""
        for future in self._awaited.pop(outcome.tx, ()):
            if not future.done():
                future.set_result(outcome)

    def fail(self, tx: str, error: CommandError) -> None:
        """Give an error to all callers that wait for a transaction, since its command failed."""
        for future in self._awaited.pop(tx, ()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # mark it as seen: the caller may be gone
