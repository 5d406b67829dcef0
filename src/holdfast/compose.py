"""Composition: from a declared system and URLs to running nodes. The one place that knows every adapter.

`STORES` says which scheme of a URL means which store; each is imported when a URL asks for it, so that the core stays
small. Comes before the runtime, which is handed ports. Fails with `ConfigInvalid` on a URL that names no adapter, and
where the adapter's driver is not installed.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from holdfast.config import ServiceSettings, Settings, check, hidden
from holdfast.core.declare.service import Service
from holdfast.core.system import System
from holdfast.errors import ConfigInvalid
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.runtime.system import Running
from holdfast.transports.local import LocalTransport
from holdfast.transports.routed import Routed

if TYPE_CHECKING:
    from holdfast.web.app import RunningApp

__all__ = ["asgi_app", "make_running", "make_store", "start"]


def make_store(url: str, log: str) -> Store:
    """The store that a URL names, for the log of one service. It is not opened, and nothing is made yet.

    - `memory:`: in this process
    - `sqlite:PATH`: that file; `sqlite:FOLDER/`: one file for each service in that folder
    - `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`: a schema for each service
    - `mysql://USER:PASSWORD@HOST:PORT/`: a database for each service

    Raises ConfigInvalid where the URL cannot be used, or the adapter's extra is not installed.
    """
    maker = STORES.get(urlsplit(url).scheme)
    if maker is None:
        known = ", ".join(f"{scheme}:" for scheme in STORES)
        raise ConfigInvalid(f"store URL {hidden(url)!r}: no such store; there are {known}")
    try:
        return maker(url, log)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise ConfigInvalid(f"{error}: this store needs pip install 'holdfast[{extra}]'") from None


def _memory(url: str, log: str) -> Store:
    from holdfast.stores.memory import MemoryStore

    return MemoryStore(log)


def _sqlite(url: str, log: str) -> Store:
    from holdfast.stores.sqlite.store import SQLiteStore

    parts = urlsplit(url)
    if parts.netloc or not parts.path:
        raise ConfigInvalid(f"store URL {url!r}: write sqlite:PATH, or sqlite:FOLDER/ for one file per service")
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
"""By the scheme of a store's URL, what makes it of the URL and the log's name. It imports its adapter only then."""

EXTRAS: Mapping[str, str] = MappingProxyType({"apsw": "sqlite", "psycopg": "postgres", "asyncmy": "mysql"})
"""By the driver's module, the extra that brings it."""


def make_running(
    system: System,
    settings: Settings,
    *,
    services: Collection[str] = (),
    wrap_store: Callable[[str, Store], Store] | None = None,
    wrap_transport: Callable[[str, Transport], Transport] | None = None,
) -> Running:
    """Services of a system in this process, not started: `services` names them, none means all.

    Peers that do not run here are reached at their URLs. Raises ConfigInvalid for a service that is not there, and for
    a peer without a URL.
    """
    if unknown := sorted(set(services) - set(system.services)):
        raise ConfigInvalid(f"{system.name!r} has no service {unknown[0]!r}; there are: {', '.join(system.services)}")
    chosen = {name: service for name, service in system.services.items() if not services or name in services}
    outside = set(system.services).union(*(service.peers() for service in chosen.values())) - set(chosen)
    if missing := sorted(outside - set(settings.urls())):
        raise ConfigInvalid(
            f"services.{missing[0]}.url is not set: {missing[0]} is a peer and does not run in this process"
        )
    urls = {name: url for name, url in settings.urls().items() if name in outside}
    return _running(system, chosen, settings, urls, wrap_store=wrap_store, wrap_transport=wrap_transport)


def start(
    system: System | Service,
    *,
    store: str = "",
    stores: Mapping[str, str] | None = None,
    services: Collection[str] = (),
    settings: Settings | None = None,
) -> Running:
    """Put services together in this process, to be used with `async with`; see README.md.

    `store` is the URL for every service, `stores` overrides it by service name; both go before the settings' own.
    Without a trailing slash a `sqlite:` URL names one file, so it suits a single service. `settings` is all that
    `holdfast run` takes: peers by URL, the secret, snapshots, bounds of memory; with it each peer that does not run
    here needs a URL. `services` names those that run here; none means all. Raises ConfigInvalid.
    """
    whole = System([system], name=system.name) if isinstance(system, Service) else system
    if unknown := set(stores or {}) - set(whole.services):
        raise ConfigInvalid(f"stores names {min(unknown)!r}, which is no service of {whole.name!r}")
    found = _stored(check(settings or Settings()), store, stores or {})
    if settings is not None or services:
        return make_running(whole, found, services=services)
    return _running(whole, whole.services, found, {})


def asgi_app(running: Running) -> "RunningApp":
    """The ASGI app of running services: give it to a server, or mount it in another app.

    Who does so starts and closes the services (`async with running`). The app is opened with the secret and the
    operator's token of the settings; without a secret it must be reached from this machine alone. Needs nothing but
    an ASGI server. Raises Misuse for a route that cannot work.
    """
    from holdfast.web.app import RunningApp

    return RunningApp(running)


def _stored(settings: Settings, store: str, stores: Mapping[str, str]) -> Settings:
    """The settings with other stores."""
    services = dict(settings.services)
    for name, url in stores.items():
        services[name] = msgspec.structs.replace(services.get(name, ServiceSettings()), store=url)
    return msgspec.structs.replace(settings, store=store or settings.store, services=services)


def _running(
    system: System,
    chosen: Mapping[str, Service],
    settings: Settings,
    urls: Mapping[str, str],
    *,
    wrap_store: Callable[[str, Store], Store] | None = None,
    wrap_transport: Callable[[str, Transport], Transport] | None = None,
) -> Running:
    def make() -> dict[str, Node]:
        near = LocalTransport()
        transport = Routed(near, _far(urls, settings.secret))
        nodes: dict[str, Node] = {}
        for name, service in chosen.items():
            own = make_store(settings.store_of(name), name)
            nodes[name] = Node(
                service,
                wrap_store(name, own) if wrap_store else own,
                wrap_transport(name, transport) if wrap_transport else transport,
                SystemClock(),
                peers=system.services,
                snapshot_every=settings.snapshot_every,
                streams_in_memory_max=settings.streams_in_memory_max,
            )
        near.peers.update(nodes)
        return nodes

    return Running(system, make, urls=urls, secret=settings.secret, operator_token=settings.operator_token)


def _far(urls: Mapping[str, str], secret: str) -> Transport | None:
    """The transport to peers in other processes; None where there are none."""
    if not urls:
        return None
    from holdfast.transports.http import HttpTransport

    return HttpTransport(urls, secret=secret)
