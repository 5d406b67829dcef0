"""`holdfast backup`: a consistent copy of a service's SQLite store, taken while the service goes on.

The copy is consistent as of one commit, and opens like any store; docs/restore.md says what a restored store does then.
Fails with `ConfigInvalid` or `StoreError`; a file that exists is never overwritten.
"""

import asyncio
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from holdfast.cli.options import AsJson, ConfigFile, say, settings_of
from holdfast.config import hidden
from holdfast.errors import ConfigInvalid
from holdfast.stores.urls import make_store


def backup(
    service: str,
    *,
    to: Annotated[Path, Parameter(name="--to")],
    store: str | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Copy a service's SQLite store to a new file, whether or not the service runs.

    For example:
    - `holdfast backup stock --to stock-monday.sqlite`

    - `holdfast backup stock --store sqlite:./data/ --to stock-monday.sqlite`

    Parameters
    ----------
    service
        The service's name.
    to
        The file to write; it must not exist.
    store
        The store's URL; without it the one of the configuration.
    """
    settings = settings_of(config)
    url = store or settings.store_of(service)
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise ConfigInvalid(f"store URL {hidden(url)!r}: only sqlite: stores can be copied from here")
    source = Path(parts.path) / f"{service}.sqlite" if url.endswith("/") else Path(parts.path)
    if not source.exists():
        raise ConfigInvalid(f"{str(source)!r} does not exist; is {url!r} the store of {service!r}?")
    asyncio.run(_copy(url, service, to))
    size = to.stat().st_size
    say({"service": service, "file": str(to), "bytes": size}, as_json=as_json, text=f"wrote {to} ({size} bytes)")
    return 0


async def _copy(url: str, service: str, to: Path) -> None:
    store = make_store(url, service)
    try:
        await store.backup(to)
    finally:
        await store.close()
