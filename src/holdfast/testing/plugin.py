"""The pytest plugin: virtual systems as fixtures, and one seed for a whole run.

pytest loads it if holdfast is installed beside it; `-p no:holdfast` leaves it out. `--holdfast-seed N` runs the tests
that use its fixtures with another seed. It raises nothing of its own.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, cast

import pytest

from holdfast.testing.simulation.loop import run_virtual
from holdfast.testing.simulation.system import VirtualSystem

__all__ = ["holdfast_run", "holdfast_seed", "holdfast_system"]


class Run(Protocol):
    """`run_virtual` with the run's seed."""

    def __call__(self, main: Callable[[], Coroutine[Any, Any, Any]], /) -> Any:
        """Run a coroutine function to its end in virtual time."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """The seed of all virtual systems in a run."""
    parser.getgroup("holdfast").addoption(
        "--holdfast-seed", type=int, default=0, help="seed of time and chance in virtual systems (default: 0)"
    )


@pytest.fixture
def holdfast_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: `--holdfast-seed`."""
    return cast(int, request.config.getoption("holdfast_seed"))


@pytest.fixture
def holdfast_run(holdfast_seed: int) -> Run:
    """Runs a coroutine function in virtual time, on this run's seed."""
    return partial(run_virtual, seed=holdfast_seed)


@pytest.fixture
def holdfast_system() -> type[VirtualSystem]:
    """Makes systems in virtual time, each one to be entered with `async with` in what `holdfast_run` runs."""
    return VirtualSystem
