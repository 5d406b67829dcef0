"""A store is chosen by the scheme of its URL: what is not known, and what is not installed, is said in one sentence."""

import builtins
import subprocess
import sys
from typing import Any

import pytest

from holdfast.compose import make_store
from holdfast.errors import ConfigInvalid
from holdfast.stores.memory import MemoryStore
from holdfast.stores.urls import STORES


def test_an_unknown_scheme_is_told_those_that_there_are() -> None:
    """G10: the error lists every scheme that works, and holds no password."""
    with pytest.raises(ConfigInvalid, match="names no known store") as refused:
        make_store("oracle://u:pa55word@h/x", "stock")
    assert all(f"{scheme}:" in str(refused.value) for scheme in STORES) and "pa55word" not in str(refused.value)
    with pytest.raises(ConfigInvalid, match="names no known store"):
        make_store("", "stock")


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("sqlite:x", "apsw", "sqlite"), ("postgres://h/x", "psycopg", "postgres"), ("mariadb://h/x", "asyncmy", "mysql")],
)
def test_a_driver_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    """Whoever lacks a driver is told what to install; what else an import may fail with is not hidden behind that."""
    real = builtins.__import__
    absent = driver

    def importing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("holdfast.stores."):
            raise ModuleNotFoundError(f"No module named {absent!r}", name=absent)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ConfigInvalid, match=rf"{driver}.*holdfast\[{extra}\]"):
        make_store(url, "stock")
    absent = "holdfast.stores.mistyped"
    with pytest.raises(ModuleNotFoundError, match="mistyped"):
        make_store(url, "stock")


def test_an_adapter_is_imported_when_its_url_is_used() -> None:
    """A program that composes a system on one engine loads no other engine's driver."""
    program = (
        "import sys; from holdfast.compose import make_store\n"
        "drivers = {'apsw', 'psycopg', 'asyncmy'}\n"
        "assert not drivers & set(sys.modules)\n"
        "make_store('sqlite:x/', 'stock')\n"
        "assert drivers & set(sys.modules) == {'apsw'}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_table_of_stores_cannot_be_changed() -> None:
    """Nobody adds to the table at import time: what a URL means does not depend on what was imported before."""
    table: Any = STORES
    with pytest.raises(TypeError):
        table["oracle"] = MemoryStore
    assert isinstance(make_store("memory:", "stock"), MemoryStore)
