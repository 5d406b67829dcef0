"""Tasks of a service: what is done again and again, and how all of them end.

`Periodic` is work that is looked for every so often. Between two looks it is a timer and nothing more; it becomes a
task only where there is work. What that raises is logged, and the next look comes all the same. Used by exchange, feeds
and the asking about stages.

`cancel_all` ends tasks, and waits until they are gone, but not for ever: a task may be held by something that does not
answer, an engine that hangs in a commit or a user's call that swallows its cancel. Whoever closes a service is not held
with it. Used by whatever has tasks: writer, conversations, feeds, effects.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

logger = logging.getLogger("holdfast.tasks")

PATIENCE_SECONDS = 2.0
"""How long a cancelled task may take to end before it is cancelled once more, and then left behind."""


async def cancel_all(tasks: "Iterable[asyncio.Task[None] | None]", service: str = "") -> None:
    """Cancel these tasks and wait for their end; once more where one has not ended in time; then it is left behind."""
    left = {task for task in tasks if task is not None and not task.done()}
    for _ in range(2):
        for task in left:
            task.cancel()
        if left:
            done, left = await asyncio.wait(left, timeout=PATIENCE_SECONDS)
            for task in done:
                _ = task.cancelled() or task.exception()  # seen: nobody waits for what comes of it
    if left:
        names = sorted(getattr(task.get_coro(), "__qualname__", task.get_name()) for task in left)
        logger.error(
            "%d tasks do not end after %g s; they are left behind: %s",
            len(left),
            2 * PATIENCE_SECONDS,
            ", ".join(names),
            extra={"service": service},
        )


class Periodic:
    """Work that comes again: `wanted` says whether there is some, `work` does it."""

    def __init__(
        self,
        every_seconds: float,
        wanted: Callable[[], bool],
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        service: str = "",
    ) -> None:
        self._service = service
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
        await cancel_all((self._task,), self._service)

    def _later(self) -> None:
        if self._going:
            self._alarm = asyncio.get_running_loop().call_later(self._every, self._look)

    def _look(self) -> None:
        try:
            wanted = self._wanted()
        except Exception as error:  # noqa: BLE001 - logged; the next look comes all the same
            self._warn_failed(self._wanted.__qualname__, error)
            wanted = False
        if wanted:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._done)
        else:
            self._later()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._warn_failed(self._work.__qualname__, error)
        self._later()

    def _warn_failed(self, function: str, error: BaseException) -> None:
        logger.error(
            "unexpected error in %s; it runs again in %g s",
            function,
            self._every,
            extra={"service": self._service},
            exc_info=error,
        )
