"""A work whose batch needs no deciding: checkpoints, a view's rows, a repair.

Goes through the writer like everything else, so that it commits in a group with the rest.
"""

import asyncio

from holdfast.core.batch import Batch, Duplicate
from holdfast.errors import StoreError


class BatchWork:
    """A batch made beforehand, on its way through the writer; `done` gets its first position, or the error."""

    __slots__ = ("_batch", "_given", "done", "lane", "streams")

    def __init__(self, batch: Batch) -> None:
        self._batch, self._given = batch, False
        self.lane, self.streams = "", ()
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def handle(self) -> Batch | None:
        """The batch; a second time means that its checkpoint is not where it was read."""
        if self._given:
            raise StoreError("a checkpoint stands elsewhere than this process left it")
        self._given = True
        return self._batch

    def landed(self, position: int) -> None:
        """It is durable."""
        if not self.done.done():
            self.done.set_result(position)

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(RuntimeError(f"row {found.key} exists already"))

    def taken_back(self) -> None:
        """It has changed nothing."""

    def failed(self, error: Exception) -> None:
        """Nothing of it was written."""
        if not self.done.done():
            self.done.set_exception(error)
