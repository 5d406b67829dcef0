"""Logs: JSON away from a terminal, correlation ids on each line, secrets on none."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from holdfast import logs


@pytest.fixture
def restored() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("restored")
def test_lines_are_json_with_correlation() -> None:
    """Each line is one JSON object that carries the service, the logger, facts and the correlation id."""
    out = io.StringIO()
    logs.configure(service="stock", stream=out)
    token = logs.correlation.set("c-1")
    try:
        logging.getLogger("holdfast.test").warning("peer %s is down", "order", extra={"attempt": 3})
    finally:
        logs.correlation.reset(token)
    logging.getLogger("holdfast.test").info("own", extra={"correlation_id": "c-2"})
    logging.getLogger("holdfast.test").debug("below the level")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["event"] == "peer order is down" and first["level"] == "warning" and first["attempt"] == 3
    assert (first["service"], first["logger"], first["correlation_id"]) == ("stock", "holdfast.test", "c-1")
    assert first["timestamp"].endswith("Z") and second["correlation_id"] == "c-2"


@pytest.mark.usefixtures("restored")
def test_a_terminal_gets_text() -> None:
    """On a terminal lines are for people; `form` decides otherwise."""
    out = Terminal()
    logs.configure(stream=out)
    logging.getLogger("holdfast.test").warning("hello")
    assert "hello" in out.getvalue() and not out.getvalue().startswith("{")
    out = Terminal()
    logs.configure(stream=out, form="json")
    logging.getLogger("holdfast.test").warning("hello")
    assert json.loads(out.getvalue())["event"] == "hello"


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_filtered(form: str) -> None:
    """Secrets are hidden by key, by pattern in text, by value wherever it stands, and in tracebacks."""
    out = io.StringIO()
    logs.configure(stream=out, form=form, secrets=("the-shared-one",))  # pyright: ignore[reportArgumentType]
    log = logging.getLogger("holdfast.test")
    log.warning("with the-shared-one inside", extra={"token": "t-1", "nested": {"card_number": "4242", "sku": "tea"}})
    log.warning("Authorization: Bearer abc.def, secret=s-2, %s", {"password": "p-3"}, extra={"args_seen": ["tea"]})
    try:
        raise ValueError("the-shared-one again, api_token='t-4'")
    except ValueError:
        log.exception("failed")
    text = out.getvalue()
    for secret in ("the-shared-one", "t-1", "4242", "abc.def", "s-2", "p-3", "t-4"):
        assert secret not in text, secret
    assert "tea" in text and "ValueError" in text


def test_the_library_leaves_the_root_logger_alone() -> None:
    """Importing holdfast and its runtime adds no handler and sets no level."""
    import subprocess
    import sys

    program = "import logging, holdfast, holdfast.logs, holdfast.runtime.node; r = logging.getLogger();"
    program += "print(r.handlers, r.level, [n for n in logging.root.manager.loggerDict if n.startswith('holdfast')"
    program += " and logging.getLogger(n).handlers])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[] 30 []"
