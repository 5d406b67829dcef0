"""Chores: what a service does every so often, where there is something to do.

Between two looks a chore is a timer and nothing more; it becomes a task only where there is work. What that raises is
logged, and the next look comes all the same. Used by exchange, feeds and resolving.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.runtime.ending import end

logger = logging.getLogger("holdfast.chores")


class Chore:
    """One of them: `wanted` says whether there is work, `work` does it."""

    def __init__(
        self, every_seconds: float, wanted: Callable[[], bool], work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._every, self._wanted, self._work = every_seconds, wanted, work
        self._going = False
        self._alarm: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look in `every_seconds`, and then again and again."""
        if not self._going:
            self._going = True
            self._later()

    async def stop(self) -> None:
        """Look no more, and leave off what is being done."""
        self._going = False
        if self._alarm is not None:
            self._alarm.cancel()
        await end((self._task,))

    def _later(self) -> None:
        if self._going:
            self._alarm = asyncio.get_running_loop().call_later(self._every, self._look)

    def _look(self) -> None:
        try:
            wanted = self._wanted()
        except Exception:
            logger.exception("%s failed in a way nobody foresaw", self._wanted.__qualname__)
            wanted = False
        if wanted:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._done)
        else:
            self._later()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed in a way nobody foresaw", self._work.__qualname__, exc_info=error)
        self._later()
