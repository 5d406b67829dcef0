"""Servers that tests of stores may kill: one of each engine in each process of the run, one test after another."""

from collections.abc import Iterator

import pytest

from support.servers import OwnServers


@pytest.fixture(scope="session")
def own_servers() -> Iterator[OwnServers]:
    """Started when first asked for."""
    found = OwnServers()
    yield found
    found.stop()
