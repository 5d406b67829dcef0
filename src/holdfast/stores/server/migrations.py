"""Changes of the tables on database servers, release by release: expand while old code runs, contract when no old code
runs.

A migration has two halves. `expand` only adds parts that old code does not see, so old and new code can use the tables
at once. `contract` removes the parts that only old code needed, once every process runs new code. `meta` says how far
the tables were expanded (`schema`) and the oldest code that may use them (`needs`). Comes before
`stores.server.writer`, whose connection is made here, so that this release never writes to tables that it may not use.
It refuses with `SchemaNewer`, `StoreMismatch`, `StoreError`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from holdfast.errors import SchemaNewer, StoreError, StoreMismatch
from holdfast.stores.server.engine import Connection, Engine, drop

__all__ = ["MIGRATIONS", "Half", "Migration", "Schema", "check", "connect_writer", "latest"]

Half = Literal["expand", "contract"]


class Migration(NamedTuple):
    """From the version before to `version`; SQL by engine (`postgres`, `mysql`), which may run again."""

    version: int
    expand: Mapping[str, str]
    contract: Mapping[str, str]


class Schema(NamedTuple):
    """How far the tables were expanded, and the oldest code that may use them."""

    version: int
    needs: int


MIGRATIONS: list[Migration] = []
"""The migrations in order. The schema files make version 1; there is no other version yet."""


def latest() -> int:
    """The version that this release knows."""
    return MIGRATIONS[-1].version if MIGRATIONS else 1


async def connect_writer(engine: Engine, half: Half | None = None) -> tuple[Connection, Schema]:
    """A connection for writing, to tables that exist and that this release may use; they are first migrated by the
    given half, `contract` after `expand`. Raises Broken, StoreError."""
    connection = await engine.connect(writer=True)
    try:
        async with engine.alone(connection):
            meta = await engine.meta(connection)
            if meta is None:
                await engine.create(connection)
                meta, half = await engine.meta(connection) or {}, "contract"
            if half is not None and meta.get("log") == engine.log:
                await _migrate(engine, connection, half, Schema(int(meta["schema"]), int(meta["needs"])))
                meta = await engine.meta(connection) or {}
        check(engine.where, meta, engine.log)
        return connection, Schema(int(meta["schema"]), int(meta["needs"]))
    except BaseException:
        await drop(engine, connection)
        raise


async def _migrate(engine: Engine, connection: Connection, half: Half, found: Schema) -> None:
    for migration in MIGRATIONS:
        if found.version < migration.version:
            script = migration.expand[engine.capabilities.engine]
            await engine.run_migration(connection, script, "schema", migration.version)
        if half == "contract" and found.needs < migration.version:
            script = migration.contract[engine.capabilities.engine]
            await engine.run_migration(connection, script, "needs", migration.version)


def check(where: str, meta: Mapping[str, str], log: str) -> None:
    """Check that this release may use the tables, by their `meta`. Raises StoreMismatch, SchemaNewer, StoreError."""
    if meta.get("log") != log:
        raise StoreMismatch(f"{where} holds the log of {meta.get('log')!r}, not of {log!r}; use another database")
    if int(meta["needs"]) > latest():
        raise SchemaNewer(
            f"{where} needs schema {meta['needs']}, but this release knows up to {latest()}; run a later release"
        )
    if int(meta["schema"]) < latest():
        raise StoreError(
            f"{where} has schema {meta['schema']}, but this release needs {latest()}; run holdfast migrate-store"
        )
