"""What all tests share: their order, the run's database servers, how hypothesis draws.

Hypothesis draws the same examples every time: `make test` says the same thing about the same code. To look further,
HYPOTHESIS_PROFILE=search draws new ones, more of them.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support import servers

os.environ["MARKETPLACE_BENCH"] = "1"
"""The marketplace's `/reset` and `/cleanup` are there in the tests: it reads the switch when it is imported."""
FOLDERS = (
    "cli",
    "stores",
    "soak",
    "ops",
    "http",
    "marketplace",
    "explore",
    "runtime",
    "recorded",
    "house",
    "core",
    "testing",
)
"""In the order they are run in: long files first. The last ones are short, so that two processes end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folder by folder, each in the order of its files."""
    place = {name: number for number, name in enumerate(FOLDERS)}
    items.sort(key=lambda item: place.get(item.path.parent.name, len(place)))


def pytest_configure(config: pytest.Config) -> None:
    """Processes of one run share the servers of one folder."""
    servers.begin(getattr(config, "workerinput", {}).get("servers", ""))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that is about to run a part of the tests which folder it is."""
    node.workerinput["servers"] = str(servers.Run.folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The servers of the run end with the process that it began in."""
    if not hasattr(config, "workerinput"):
        servers.end()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests tells which engines were there."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["engines"] = dict(servers.said)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """It has told."""
    servers.said.update(getattr(node, "workeroutput", {}).get("engines", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which engines were there."""
    for engine, version in sorted(servers.said.items()):
        terminalreporter.write_line(f"{engine}: {version}")


settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("search", parent=settings.get_profile("same"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
