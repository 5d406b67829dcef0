"""`holdfast migrate-store`: make the tables of a service on a database server, or bring them up to this release.

The service may run meanwhile. A migration first only adds (expand); `--contract` removes what only old code needs, once
the operator knows that no old code runs any more. Fails with `ConfigInvalid` or `StoreError`.
"""

import asyncio

from holdfast.cli.options import AsJson, ConfigFile, say, settings_of
from holdfast.config import hidden
from holdfast.errors import ConfigInvalid
from holdfast.stores.urls import make_store


def migrate_store(
    service: str,
    *,
    store: str | None = None,
    contract: bool = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Make a service's tables on a database server, or bring them up to this release, while the service goes on.

    For example:
    - `holdfast migrate-store stock --store postgresql://owner@127.0.0.1/shop`

    - `holdfast migrate-store stock --contract`: when no process runs the release before any more

    Parameters
    ----------
    service
        The service's name.
    store
        The store's URL, with a user who may create tables; without it the one of the configuration.
    contract
        Also remove what only older releases need.
    """
    from holdfast.stores.server.store import ServerStore

    url = store or settings_of(config).store_of(service)
    found = make_store(url, service)
    if not isinstance(found, ServerStore):
        raise ConfigInvalid(f"store URL {hidden(url)!r}: only tables on a database server are migrated")
    schema, needs = asyncio.run(found.migrate(contract=contract))
    text = f"{service}: schema {schema}; code that knows schema {needs} or later may use it"
    say({"service": service, "schema": schema, "needs": needs}, as_json=as_json, text=text)
    return 0
