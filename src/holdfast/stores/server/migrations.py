"""Changes of the tables on database servers, release by release: expand while old code runs, contract when it is gone.

A migration has two halves. `expand` only adds what old code does not see, so both run on the tables at once. `contract`
takes away what old code needed, once every process runs the new one. The tables say in `meta` how far they were
expanded (`schema`) and the oldest code that may use them (`needs`). Comes before `stores.server`, which runs them under
a lock. Refuses with `SchemaNewer`, `StoreMismatch`, `StoreError`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from holdfast.errors import SchemaNewer, StoreError, StoreMismatch

__all__ = ["MIGRATIONS", "Migration", "check", "latest"]


class Migration(NamedTuple):
    """From the version before to `version`; SQL by engine (`postgres`, `mysql`), which may run again."""

    version: int
    expand: Mapping[str, str]
    contract: Mapping[str, str]


MIGRATIONS: list[Migration] = []
"""In order. The schema files make version 1; there has been no other yet."""


def latest() -> int:
    """The version that this release knows."""
    return MIGRATIONS[-1].version if MIGRATIONS else 1


def check(where: str, meta: Mapping[str, str], log: str) -> None:
    """Whether this release may use tables that say so of themselves. Raises StoreMismatch, SchemaNewer, StoreError."""
    if meta.get("log") != log:
        raise StoreMismatch(f"{where} holds the log of {meta.get('log')!r}, not of {log!r}; give another")
    if int(meta["needs"]) > latest():
        raise SchemaNewer(f"{where} needs code that knows schema {meta['needs']}; this release knows {latest()}")
    if int(meta["schema"]) < latest():
        raise StoreError(
            f"{where} has schema {meta['schema']}, this release needs {latest()}: run holdfast migrate-store"
        )
