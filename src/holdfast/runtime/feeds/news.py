"""News: wakes the readers that wait at the end of a feed when something is flushed.

Readers wake in the order in which they came, so that the same seed gives the same logs. The writer's flush comes before
it. It never fails.
"""

import asyncio


class News:
    """The readers that wait for the next flush of one service."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    async def wait(self, seconds: float) -> None:
        """Wait until something is flushed, but at most so long."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[waiter] = None
        timer = loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)

    def tell(self) -> None:
        """Wake all readers, since something was flushed or the service stops."""
        for waiter in self._waiters:
            _wake(waiter)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
