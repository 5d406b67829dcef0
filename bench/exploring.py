"""How many schedules the fault explorer runs: the shop in memory, two orders (one bought, one declined), and faults.

Each worker is a process on a core of its own. Counted are whole schedules: start of four services, the orders, the
faults, settling, and the audit of five invariants.
"""

import asyncio
import gc
import sys
import time
from pathlib import Path

from bench.load import Measured

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from holdfast.testing import VirtualSystem, explore
from shop.contracts import Checkout, Item, Restock
from shop.invariants import shop

CARDS = ("4242424242424242", "4000000000000002")


async def two_orders(system: VirtualSystem) -> None:
    """What callers do."""
    await system.ask(Restock("apple", 10))
    orders = (Checkout(f"o{n}", "ann", (Item("apple", 2, 100),), card) for n, card in enumerate(CARDS))
    await asyncio.gather(*map(system.ask, orders))


def schedules(workers: int, folder: Path, seconds: float) -> Measured:
    """Schedules per second, one fault each, then two."""
    gc.collect()  # of what was measured before
    begun = time.perf_counter()
    found = explore(shop, two_orders, schedules=10**6, seconds=seconds, workers=workers)
    taken = time.perf_counter() - begun
    each = taken / found.runs * 1000 * max(1, workers)
    return Measured(found.runs / taken, each, each, found.runs)
