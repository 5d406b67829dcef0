"""Crossing: a cancel that comes while what it is about is being carried out, or its outcome is flushed.

Whichever is first in the log counts; what has its outcome does not come back, after a restart neither, and is carried
out once and answered once (G3, G5). Repairs that cross a call are in tests/runtime/test_effects.py.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    Client,
    Command,
    Contract,
    Event,
    LocalTransaction,
    Rejection,
    Service,
    System,
    answer,
    start,
    step,
    undo,
)
from holdfast.runtime.ops.why import parked
from holdfast.testing import run_virtual
from support.systems.payments import Provider, buy, judge, office


@pytest.mark.parametrize(
    "how",
    [{"probe": True}, {"probe": False}, {"probe": False, "idempotent": True}],
    ids=["probe", "neither", "idempotent"],
)
def test_a_cancel_does_not_bring_back_a_call_that_is_done(how: dict[str, Any]) -> None:
    """A cancel that comes while a call's outcome is flushed: the outcome counts and is given back; after a restart
    nothing waits, nobody is called or asked again."""

    async def run() -> None:
        provider = Provider()
        provider.faults["o1"] = ["4.5"]
        async with office(provider, seconds=20, **how) as virtual:
            sale, store = buy(virtual), virtual.stores["wallet"]
            await asyncio.sleep(4.4)
            store.flush_seconds = 1
            await asyncio.sleep(2)
            store.flush_seconds = 0.001
            answer = await sale
            await virtual.restart("wallet")
            await asyncio.sleep(10)
            assert parked(virtual.nodes["wallet"], everything=True) == []
            assert [kind for kind, _, _, _ in provider.calls] == ["charge", "refund"]
            judge(virtual, provider, {"o1": answer})

    run_virtual(run)


till, desk = Contract("till"), Contract("desk")


@till.event
class Paid(Event):
    order: str


@till.event
class Repaid(Event):
    order: str


@till.command(key="order")
class Pay(Command[Paid]):
    order: str


@till.command(key="order")
class Repay(Command[Repaid]):
    order: str


@desk.event
class Sold(Event):
    order: str


@desk.command
class Sell(Command[Sold]):
    order: str


def slow(ran: list[str]) -> System:
    """A sale that calls its payment off after 0.3 s, and a till whose handler takes 1 s."""
    tills, desks = Service(till), Service(desk)

    @tills.handle
    async def pay(command: Pay, tx: LocalTransaction) -> Paid:
        ran.append(command.order)
        await asyncio.sleep(1)
        return Paid(command.order)

    @tills.handle
    async def repay(command: Repay, tx: LocalTransaction) -> Repaid:
        return Repaid(command.order)

    @desks.saga
    class Sale:
        sell: Sell

        @step(deadline_seconds=0.3)
        def pay(self) -> Pay:
            return Pay(self.sell.order)

        @undo(pay)
        def repay(self, paid: Paid) -> Repay:
            return Repay(paid.order)

        @answer
        def sold(self) -> Sold:
            return Sold(self.sell.order)

    return System([desks, tills])


async def test_a_cancel_does_not_bring_back_what_a_handler_decides(tmp_path: Path) -> None:
    """A cancel that comes while a handler runs changes nothing of it: after a restart it does not run a second time."""
    ran: list[str] = []
    async with start(slow(ran), store=f"sqlite:{tmp_path}/") as running:
        no = (await Client.of(running).send(Sell("o1"))).answer
        assert isinstance(no, Rejection) and no.code == "deadline"
    async with start(slow(ran), store=f"sqlite:{tmp_path}/") as running:
        assert running.nodes["till"].waiting.slots() == []
        await asyncio.sleep(0.3)
    assert ran == ["o1"]
