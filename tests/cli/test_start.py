"""The command line starts quickly: what is loaded for a verb is what that verb needs.

`python bench/start.py` says how long it takes; here is said what must not be loaded. Each program is a process of its
own, and tells which modules it had loaded when the verb's own code began (`holdfast.config.load` is its first act).
"""

import subprocess
import sys

import pytest

SERVERS = {"uvicorn", "uvloop", "httptools", "aiohttp", "asyncio", "holdfast.web", "holdfast.host"}
DRIVERS = {"apsw", "psycopg", "asyncmy", "sqlalchemy"}
RUNTIME = {"holdfast.runtime", "holdfast.compose", "holdfast.client", "holdfast.testing", "holdfast.demo"}
RENDERING = {"rich.markdown", "markdown_it", "pygments", "structlog"}
HEAVY = SERVERS | DRIVERS | RUNTIME | RENDERING
TELLING = """
import atexit, os, sys
from holdfast.cli import main
def tell(*given):
    print("LOADED", *sys.modules, flush=True)
    os._exit(0)
if sys.argv[1] == "--help":
    atexit.register(tell)
else:
    import holdfast.config
    holdfast.config.load = tell
main()
"""


def loaded(*words: str) -> set[str]:
    """The modules that are loaded when the verb's own code begins, or when help has been shown; their packages too."""
    command = [sys.executable, "-c", TELLING, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "LOADED " in done.stdout, done.stdout + done.stderr
    return set(done.stdout.partition("LOADED ")[2].split())


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], HEAVY | {"holdfast.core", "holdfast.cli.verbs.why", "http.client"}),
        (["why", "order-1"], HEAVY | {"rich", "http.client", "holdfast.core.declare.service"}),
        (["stuck"], HEAVY | {"rich", "http.client"}),
        (["trail", "order-1"], HEAVY | {"rich", "http.client"}),
        (["retry", "order@1", "--by", "me", "--why", "so"], HEAVY | {"rich"}),
        (["resolve", "order@1", "--done", "--by", "me", "--why", "so"], HEAVY),
        (["check-config"], HEAVY | {"rich"}),
        (["run", "shop.services:shop"], HEAVY | {"rich"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_verb_loads_what_it_needs(words: list[str], unwanted: set[str]) -> None:
    """No server, driver, runtime or renderer is loaded before a verb's own code has begun."""
    assert sorted(unwanted & loaded(*words)) == []


def test_what_is_needed_is_seen() -> None:
    """This way of looking does see what is loaded: `why` has a client and the story, help has a console."""
    assert {"holdfast.operator.client", "holdfast.core.explain.story", "cyclopts"} <= loaded("why", "order-1")
    assert {"rich.console", "cyclopts.help"} <= loaded("--help")
