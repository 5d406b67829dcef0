"""Handlers under the fault explorer: what they wrote in tables of their own, and what is in the log, is one.

The office of examples/cards sells seats; its wallet is a handler that works on a table. The store is the one in memory,
which lends transactions here as an engine does: what a transaction wrote is kept with its commit, or not at all.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from cards.contracts import Bought, Buy, Charge, Charged, Refund, Refunded, wallet
from cards.services import order_service
from holdfast import LocalTransaction, Rejected, Service, System
from holdfast.core.log.batch import Batch, CommitOutcome, Committed
from holdfast.errors import StoreFailed
from holdfast.ports.store import Capabilities, Lent
from holdfast.testing import VirtualSystem, explore
from holdfast.testing.simulation.loop import next_round
from holdfast.testing.simulation.system import VirtualStore
from support.scenarios import DAYS_SEEDS
from support.systems.payments import FAST

ORDERS = {"o1": 0.05, "o2": 0.05, "o3": 2.5, "o4": 7.0}
"""Order -> how long its handler takes the first time; the second is declined, the last takes longer than its sale."""
CENTS = 700


class Table:
    """What a transaction has added to each order's account, as its connection."""

    def __init__(self, store: "Lending") -> None:
        self._store, self._opening = store, store.opening
        self.added: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()

    @property
    def connection(self) -> "Table":
        return self

    async def mark(self) -> None:
        await next_round()
        self._marked = self.added.copy()

    async def undo(self) -> None:
        await next_round()
        self.added = self._marked.copy()

    def lost(self, error: BaseException) -> bool:
        return False

    async def end(self) -> None:
        self.added.clear()

    def check(self) -> None:
        """A connection does not outlive the process that opened it."""
        if self._opening != self._store.opening:
            raise StoreFailed("the connection is gone")


class Lending(VirtualStore):
    """A store in virtual time with a table of accounts beside its log."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)

        self.accounts: Counter[str] = Counter()
        self.opening = 0
        self._one = asyncio.Lock()
        self._within: Table | None = None
        self._whole: bool | None = None

    async def open(self, incarnation: str, at: int) -> Any:
        self.opening += 1
        return await super().open(incarnation, at)

    async def begin(self) -> Any:
        await next_round()
        self._check_open()
        return Table(self)

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        async with self._one:
            if isinstance(within, Table):
                within.check()
                self._within, self._whole = within, None
                self._group = batches
            try:
                return await super().commit(batches)
            finally:
                self._within = None

    def _refusal(self, batch: Batch) -> CommitOutcome | None:
        if self._within is not None and self._whole is None:
            self._whole = not any(VirtualStore._refusal(self, one) for one in self._group)
        return super()._refusal(batch)

    def _apply(self, batch: Batch) -> CommitOutcome:
        if self._within is not None and not self._whole:
            return Committed(0)  # another of the group is refused: none is kept
        if self._within is not None:
            self.accounts.update(self._within.added)
            self._within.added.clear()
        return super()._apply(batch)


class Shared(Lending):
    """Several handlers work in one transaction, as on SQLite."""

    capabilities = Capabilities(durable=False, transactions="shared", engine="memory")


class Own(Lending):
    """Each handler has a transaction of its own, as on a server."""

    capabilities = Capabilities(durable=False, transactions="own", engine="memory")


def office() -> System:
    """The office, and a wallet that keeps accounts."""
    tries: Counter[str] = Counter()
    service = Service(wallet, owner="team-money", retry=FAST)

    @service.handle
    async def charge(command: Charge, tx: LocalTransaction) -> Charged:
        order = command.order_id
        tries[order] += 1
        await asyncio.sleep(ORDERS[order] if tries[order] == 1 else 0.05)
        tx.connection.added[order] += command.amount_cents
        if order == "o2":
            raise Rejected("declined")
        return Charged(order, command.amount_cents, "c")

    @service.handle
    async def refund(command: Refund, tx: LocalTransaction) -> Refunded:
        await asyncio.sleep(0.02)
        tx.connection.added[command.order_id] -= command.amount_cents
        return Refunded(command.order_id, command.amount_cents)

    return System([order_service, service], name="cards")


async def sales(system: VirtualSystem) -> None:
    """Four seats; afterwards each account is what the log says, and what is sold is charged once."""
    told = await asyncio.gather(*(system.ask(Buy(one, f"seat {one}", CENTS, "4111"), one) for one in ORDERS))
    await system.settle(within_seconds=2700)
    store: Any = system.stores["wallet"]
    events = [record for record in system.log("wallet") if record.kind == "event"]
    count = Counter((record.type, msgspec.json.decode(record.data)["order_id"]) for record in events)
    for order, answer in zip(ORDERS, (one.answer for one in told), strict=True):
        charged, refunded = count["wallet.charged.v1", order], count["wallet.refunded.v1", order]
        assert refunded <= charged <= 1, (order, count)
        assert isinstance(answer, Bought) == (charged - refunded == 1), (order, answer, count)
        assert store.accounts[order] == CENTS * (charged - refunded), (order, store.accounts, count)


@pytest.mark.parametrize("store", [Shared, Own])
def test_tables_and_log_are_one(store: type[Lending], monkeypatch: pytest.MonkeyPatch) -> None:
    """G1, G3: every single fault, and pairs: no charge without its event, no event without its charge, none twice."""
    monkeypatch.setattr("holdfast.testing.simulation.system.VirtualStore", store)
    explored = explore(office, sales, schedules=400)
    assert explored.singles > 200 and explored.pairs and explored.drawn


@pytest.mark.soak
@pytest.mark.parametrize("seed", DAYS_SEEDS)
@pytest.mark.parametrize("store", [Shared, Own])
def test_tables_and_log_are_one_for_longer(store: type[Lending], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on thousands of schedules."""
    monkeypatch.setattr("holdfast.testing.simulation.system.VirtualStore", store)
    assert explore(office, sales, schedules=4_000, seed=seed).runs == 4_000


def test_a_table_that_is_kept_without_its_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hunt can fail: a store whose transactions keep what a rejected handler wrote is told at once."""

    async def nothing(self: Table) -> None:
        """As if the engine had no savepoints."""

    monkeypatch.setattr(Table, "undo", nothing)
    monkeypatch.setattr("holdfast.testing.simulation.system.VirtualStore", Shared)
    with pytest.raises(AssertionError, match="o2"):
        explore(office, sales, schedules=50)
