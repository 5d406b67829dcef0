"""How a run of an exploration is made: in virtual time, without log lines, and with a bound.

`testing.explorer.search` calls this for each schedule. Garbage is collected between runs, not in them. Fails with
`EndlessRun` if a run goes round for ever at one instant, or if nothing can happen any more.
"""

import gc
import logging
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from holdfast.testing.simulation.loop import VirtualLoop

T = TypeVar("T")
ROUNDS_MAX = 100_000
"""Rounds of the loop in one run. A run of an example has some hundreds; a round makes every callback that is ready."""


class EndlessRun(Exception):
    """A run that would never end."""


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]], seed: int) -> T:
    """Run to the end, and leave the tasks that still go on: nobody will ask for them. Raises EndlessRun."""
    loop = VirtualLoop(seed)
    loop.rounds_left, loop.left = ROUNDS_MAX, True
    task = loop.create_task(main())
    try:
        return loop.run_until_complete(task)
    except RuntimeError as error:
        if task.done():
            raise
        raise EndlessRun(str(error)) from error
    finally:
        loop.close()


class quiet:
    """Within it the runtime logs nothing, since the faults were planned, and garbage is collected only between runs.

    The tasks that a run leaves unfinished give no warnings either, when they are collected.
    """

    def __enter__(self) -> None:
        self._level, self._collects, self._hook = logging.root.manager.disable, gc.isenabled(), sys.unraisablehook
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", ".* was never awaited", RuntimeWarning)
        logging.disable(logging.CRITICAL)
        sys.unraisablehook = _nothing
        gc.collect()
        gc.freeze()
        gc.disable()

    def __exit__(self, *error: object) -> None:
        gc.collect()
        gc.unfreeze()
        if self._collects:
            gc.enable()
        sys.unraisablehook = self._hook
        logging.disable(self._level)
        self._warnings.__exit__(None, None, None)


def _nothing(unraisable: object) -> None:
    pass
