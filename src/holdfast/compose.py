"""Composition: from a declared system and URLs to running nodes. The one place that knows both runtime and adapters.

`stores.urls` says which scheme of a URL means which store. The runtime comes next and gets only ports. Fails with
`ConfigInvalid` if a URL names no adapter, or if the driver of the adapter is not installed.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from holdfast.config import ServiceSettings, Settings, check
from holdfast.core.declare.service import Service
from holdfast.core.system import System
from holdfast.errors import ConfigInvalid
from holdfast.ports.store import Store
from holdfast.ports.transport import Network
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.runtime.system import Running
from holdfast.stores.urls import make_store
from holdfast.transports.local import LocalTransport
from holdfast.transports.routed import Routed

if TYPE_CHECKING:
    from holdfast.web.app import RunningApp

__all__ = ["asgi_app", "make_running", "make_store", "start"]


def make_running(
    system: System,
    settings: Settings,
    *,
    services: Collection[str] = (),
    wrap_store: Callable[[str, Store], Store] | None = None,
    wrap_transport: Callable[[str, Network], Network] | None = None,
) -> Running:
    """Services of a system in this process, not started: `services` names them, none means all.

    Peers that do not run here are reached at their URLs. Raises ConfigInvalid for an unknown service, and for a peer
    without a URL.
    """
    if unknown := sorted(set(services) - set(system.services)):
        raise ConfigInvalid(f"{system.name!r} has no service {unknown[0]!r}; it has: {', '.join(system.services)}")
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

    The caller starts and closes the services (`async with running`). The app is opened with the secret and the
    operator's token of the settings; without a secret it must be reached from this machine alone. Needs nothing but
    an ASGI server. Raises Misuse for a route that cannot work.
    """
    from holdfast.web.app import RunningApp

    return RunningApp(running)


def _stored(settings: Settings, store: str, stores: Mapping[str, str]) -> Settings:
    """The settings with these stores in place of their own."""
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
    wrap_transport: Callable[[str, Network], Network] | None = None,
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


def _far(urls: Mapping[str, str], secret: str) -> Network | None:
    """The transport to peers in other processes; None if there are no such peers."""
    if not urls:
        return None
    from holdfast.transports.http import HttpTransport

    return HttpTransport(urls, secret=secret)
