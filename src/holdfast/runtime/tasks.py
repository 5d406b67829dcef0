"""Tasks of a service: periodic work, and how all tasks end.

`Periodic` asks at regular times whether there is work. Between two times it is only a timer; it starts a task only if
there is work. An error of the work is logged, and the next time comes as usual. Exchange, feeds and doubts use it.

`cancel_all` cancels tasks and waits until they have ended, but only for a bounded time: a task may wait for something
that does not answer, such as an engine that hangs in a commit, or a user's call that ignores its cancellation. Closing
a service does not wait for such a task. Writer, conversations, feeds and effects use it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

logger = logging.getLogger("holdfast.tasks")

PATIENCE_SECONDS = 2.0
"""How long a cancelled task may take to end before it is cancelled once more, and then left behind."""


async def cancel_all(tasks: "Iterable[asyncio.Task[None] | None]", service: str = "") -> None:
    """Cancel tasks and wait for their end. A task that does not end in time is cancelled again, then left behind.

    `service` owns the tasks; a log line names it.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    for _ in range(2):
        for task in left:
            task.cancel()
        if left:
            done, left = await asyncio.wait(left, timeout=PATIENCE_SECONDS)
            for task in done:
                _ = task.cancelled() or task.exception()  # mark the exception as seen: nobody waits for it
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
    """Work that comes again: `wanted` says whether there is work, `work` does it, `service` owns it."""

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
        """Look for work every `every_seconds`. A second call changes nothing."""
        if not self._going:
            self._going = True
            self._later()

    async def stop(self) -> None:
        """Stop looking for work, and cancel the work that runs."""
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
