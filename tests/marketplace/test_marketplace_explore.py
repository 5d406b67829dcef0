"""The marketplace under the fault explorer: a checkout, a replacement and a delivery at once, and whatever goes wrong,
where it goes wrong: everything settles, and every invariant holds."""

import asyncio

import pytest

from holdfast.testing import Fault, Schedule, VirtualSystem, explore, replay
from holdfast.testing.simulation.faults import kinds_at
from marketplace.contracts.product import AddProduct, UpdateProduct
from marketplace.contracts.shipment import UpdateDelivery
from marketplace.contracts.stock import AddStock
from marketplace.invariants import system
from support.scenarios import DAYS_SEEDS
from support.systems.marketplace import buys, row

EACH = 12
"""Of the single faults every so manieth is met in a test of every day, all of them in the soak."""


async def scenario(virtual: VirtualSystem) -> None:
    """Two products, and an order that can be delivered; then, at once, another checkout of both products, of which one
    is being replaced, and the delivery."""
    await asyncio.gather(
        *(virtual.ask(AddProduct(1, number, row(1, number)), f"p{number}") for number in (1, 2)),
        *(virtual.ask(AddStock(1, number, 2), f"s{number}") for number in (1, 2)),
    )
    await buys(virtual, "c1", 1, (1, 1, 1))
    await asyncio.gather(
        buys(virtual, "c2", 2, (1, 1, 1), (1, 2, 1)),
        virtual.ask(UpdateProduct(1, 2, row(1, 2, "u1")), "u1"),
        virtual.ask(UpdateDelivery("d1"), "d1"),
    )


def test_one_thing_goes_wrong_wherever_it_may() -> None:
    """G1 to G6: a crash, a refusal, a doubt at commits, messages lost, late or twice, evenly over the whole run."""
    seen = replay(system, scenario, Schedule()).seen
    faults = [Fault(kind, where, number) for where, number in seen for kind in kinds_at(where)]
    assert len(faults) > 600
    for fault in faults[::EACH]:
        assert replay(system, scenario, Schedule((fault,))).hit == [fault]


def test_a_commit_in_doubt_is_in_no_audit_before_it_was_looked_up() -> None:
    """G5: of a commit that was there though its connection broke, cursors are not seen without its records: who judges
    in that moment does not take it for a message that was received and had no effect."""
    for number in range(1, 5):
        doubt = Fault("doubt", "customer", number)
        assert replay(system, scenario, Schedule((doubt,))).hit == [doubt]


@pytest.mark.soak
@pytest.mark.parametrize("seed", DAYS_SEEDS[:3])
def test_thousands_of_schedules(seed: int) -> None:
    """Every single fault, pairs of them, and several drawn by chance with latencies."""
    found = explore(system, scenario, schedules=4_000, seed=seed)
    assert found.runs == 4_000 and found.singles > 600 and found.pairs and found.drawn
