"""Composition: from a declared system and URLs to running nodes. The one place that knows every adapter.

Adapters are imported when a URL asks for them, so that the core stays small. Fails with `ConfigInvalid` on a URL that
names no adapter.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.config import hidden
from holdfast.core.service import Service, System
from holdfast.errors import ConfigInvalid
from holdfast.ports.store import Store
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.system import Running
from holdfast.transports.local import LocalTransport


def make_store(url: str, log: str) -> Store:
    """The store a URL names: `memory:`, `sqlite:PATH` (a folder, ending in `/`, holds one file per service),
    `postgresql://...` (a schema per service) or `mysql://...` (a database per service). Raises ConfigInvalid."""
    parts = urlsplit(url)
    if parts.scheme == "memory":
        from holdfast.stores.memory import MemoryStore

        return MemoryStore(log)
    if parts.scheme == "sqlite":
        if parts.netloc or not parts.path:
            raise ConfigInvalid(f"store URL {url!r}: write sqlite:PATH, or sqlite:FOLDER/ for one file per service")
        path = Path(parts.path)
        return _adapter("sqlite", "SQLiteStore")(path / f"{log}.sqlite" if url.endswith("/") else path, log)
    if parts.scheme in ("postgresql", "postgres"):
        return _adapter("postgres", "PostgresStore")(url, log)
    if parts.scheme in ("mysql", "mariadb"):
        return _adapter("mysql", "MySQLStore")(url, log)
    raise ConfigInvalid(
        f"store URL {hidden(url)!r}: no such store; there are memory:, sqlite:PATH, postgresql://... and mysql://..."
    )


def _adapter(name: str, cls: str) -> Callable[..., Store]:
    """A store's class, its driver imported only now; `name` is that of its extra too."""
    try:
        return getattr(importlib.import_module(f"holdfast.stores.{name}.store"), cls)
    except ModuleNotFoundError as error:
        raise ConfigInvalid(f"{error}: this store needs pip install 'holdfast[{name}]'") from None


def start(
    system: System | Service,
    *,
    store: str = "sqlite:./data/",
    stores: Mapping[str, str] | None = None,
) -> Running:
    """Put a system together in this process.

    To be used with `async with`; see README.md.

    `store` is the URL for every service, `stores` overrides it by service name. Without a trailing slash a
    `sqlite:` URL names one file, so it suits a single service.
    """
    whole = System([system], name=system.name) if isinstance(system, Service) else system
    overrides = stores or {}
    if unknown := set(overrides) - set(whole.services):
        raise ConfigInvalid(f"stores names {min(unknown)!r}, which is no service of {whole.name!r}")
    transport = LocalTransport()
    running = Running(
        whole,
        store=lambda service: make_store(overrides.get(service.name, store), service.name),
        transport=lambda service: transport,
        clock=SystemClock(),
    )
    transport.peers.update(running.nodes)
    return running
