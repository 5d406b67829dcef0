"""Works: the units of work that go through the writer.

A work decides one message when its turn has come (`handle`), and the writer then tells it whether its batch is durable.
Each kind of work is defined in the room that submits it: receiving, retries, the edge, timers, repairs. This module has
the contract (`Work`, `KeyedWork`), a work that carries a batch made beforehand (`BatchWork`), and a base class for
works with a caller that waits (`AwaitedWork`). The writer comes next. Nothing here fails by itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from holdfast.core.log.batch import Batch, Duplicate
from holdfast.errors import StoreError

Result = TypeVar("Result")


class Work(Protocol):
    """One message to decide. The writer decides works of one lane in the order of submission, even if some fail."""

    @property
    def lane(self) -> str:
        """The conversation that the work belongs to; empty for none."""
        ...

    @property
    def streams(self) -> Sequence[str]:
        """The streams that must be in memory before `handle` is called."""
        ...

    def handle(self) -> Batch | None:
        """Decide and change the state in memory; None if there is nothing to commit. The writer passes an exception to
        `failed`."""
        ...

    def landed(self, position: int) -> None:
        """The batch is durable; its first record has this position."""
        ...

    def taken_back(self) -> None:
        """The batch of `handle` was not committed: undo every change in memory outside the streams. Next, the writer
        calls `handle` again, or `duplicate`."""
        ...

    def failed(self, error: Exception) -> None:
        """`handle` raised this error, or the store could not commit; nothing was written."""
        ...


@runtime_checkable
class KeyedWork(Work, Protocol):
    """A work whose batch may contain a fresh row: if its idempotency key was used before, the work is a duplicate."""

    def duplicate(self, found: Duplicate) -> None:
        """The batch contains a fresh row that exists already; nothing was written."""
        ...


def tell_duplicate(work: Work, found: Duplicate) -> None:
    """Tell a work that its batch contains a row that exists already. A work without a key fails."""
    if isinstance(work, KeyedWork):
        work.duplicate(found)
    else:
        work.failed(StoreError(f"the store reports that the row {found.key} exists already, but this work adds no row"))


class AwaitedWork(Generic[Result]):
    """The base of works with a caller that waits: `done` gets the result, or the error if nothing was written."""

    __slots__ = ("done",)
    lane = ""

    def __init__(self) -> None:
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def finish(self, result: Result) -> None:
        """Give the result to the caller; do nothing if the caller has a result already, or was cancelled."""
        if not self.done.done():
            self.done.set_result(result)

    def taken_back(self) -> None:
        """There is nothing to undo: the work changes only streams in memory."""

    def failed(self, error: Exception) -> None:
        """Give the error to the caller: nothing was written."""
        if not self.done.done():
            self.done.set_exception(error)


class BatchWork(AwaitedWork[int]):
    """A batch that was made beforehand (a checkpoint, rows of a view, the row of a waiting message). It commits in a
    group with other works; `done` gets its first position."""

    __slots__ = ("_batch", "_given")
    streams: Sequence[str] = ()

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch
        self._given = False

    def handle(self) -> Batch | None:
        """Return the batch. Raises StoreError on the second call: the store has moved the checkpoint."""
        if self._given:
            raise StoreError("the store has another checkpoint than this process committed; read it again")
        self._given = True
        return self._batch

    def landed(self, position: int) -> None:
        """Give the first position to the caller: the batch is durable."""
        self.finish(position)
