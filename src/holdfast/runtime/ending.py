"""Ending tasks: cancel them, and wait until they are gone, but not for ever.

A task may be held by something that does not answer: an engine that hangs in a commit, a user's call that swallows its
cancel. Whoever closes a service is not held with it. Used by whatever has tasks: writer, conversations, feeds, effects.
"""

import asyncio
import logging
from collections.abc import Iterable

logger = logging.getLogger("holdfast.ending")

PATIENCE_SECONDS = 2.0


async def end(tasks: "Iterable[asyncio.Task[None] | None]") -> None:
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
        logger.error("%d tasks do not end: what they wait for does not answer", len(left))
