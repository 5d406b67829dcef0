"""Stores by URL: the scheme of a URL selects the store.

Each store is imported only if a URL names it, so that unused drivers cost nothing. Comes after the configuration, which
has the URLs; before `compose`, and before the verbs that work on a store. Fails with `ConfigInvalid` on a URL that
names no store, and if the store's driver is not installed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from holdfast.config import hidden
from holdfast.errors import ConfigInvalid
from holdfast.ports.store import Store


def make_store(url: str, log: str) -> Store:
    """The store that a URL names, for the log of one service. The store is not opened, and nothing is created yet.

    - `memory:`: in this process
    - `sqlite:PATH`: that file; `sqlite:FOLDER/`: one file for each service in that folder
    - `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`: a schema for each service
    - `mysql://USER:PASSWORD@HOST:PORT/`: a database for each service

    Raises ConfigInvalid if the URL cannot be used, or if the adapter's extra is not installed.
    """
    maker = STORES.get(urlsplit(url).scheme)
    if maker is None:
        known = ", ".join(f"{scheme}:" for scheme in STORES)
        raise ConfigInvalid(f"the store URL {hidden(url)!r} names no known store; a URL begins with one of {known}")
    try:
        return maker(url, log)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise ConfigInvalid(f"{error}; this store needs its driver: pip install 'holdfast[{extra}]'") from None


def _memory(url: str, log: str) -> Store:
    from holdfast.stores.memory import MemoryStore

    return MemoryStore(log)


def _sqlite(url: str, log: str) -> Store:
    from holdfast.stores.sqlite.store import SQLiteStore

    parts = urlsplit(url)
    if parts.netloc or not parts.path:
        raise ConfigInvalid(
            f"the store URL {url!r} is not valid; write sqlite:PATH, or sqlite:FOLDER/ for one file per service"
        )
    path = Path(parts.path)
    return SQLiteStore(path / f"{log}.sqlite" if url.endswith("/") else path, log)


def _postgres(url: str, log: str) -> Store:
    from holdfast.stores.postgres.engine import PostgresEngine
    from holdfast.stores.server.store import ServerStore

    return ServerStore(PostgresEngine(url, log))


def _mysql(url: str, log: str) -> Store:
    from holdfast.stores.mysql.engine import MySQLEngine
    from holdfast.stores.server.store import ServerStore

    return ServerStore(MySQLEngine(url, log))


STORES: Mapping[str, Callable[[str, str], Store]] = MappingProxyType(
    {
        "memory": _memory,
        "sqlite": _sqlite,
        "postgresql": _postgres,
        "postgres": _postgres,
        "mysql": _mysql,
        "mariadb": _mysql,
    }
)
"""Scheme of a store's URL -> the function that makes the store from the URL and the log's name."""

EXTRAS: Mapping[str, str] = MappingProxyType({"apsw": "sqlite", "psycopg": "postgres", "asyncmy": "mysql"})
"""Module of a driver -> the extra that installs it."""
