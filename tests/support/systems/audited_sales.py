"""The sale of `sales` with invariants, as `holdfast audit support.systems.audited_sales:system` finds it."""

from collections.abc import Iterator

from holdfast import Happened, System
from support.systems.sales import Booked, Paid, Refunded, Returned, Sold, Taken
from support.systems.sales import system as selling


def watch(system: System) -> System:
    """The system with its invariants."""

    @system.invariant
    def paid_once(tx: Happened) -> Iterator[str]:
        """What is sold is paid and booked, once."""
        for sold in tx.of(Sold):
            if (len(tx.of(Paid)), len(tx.of(Booked)), len(tx.of(Refunded))) != (1, 1, 0):
                yield f"{sold.order} is not paid once"
            if sold.order.startswith("odd"):
                yield f"{sold.order} is odd"

    @system.invariant(key=lambda tx: [event.item for event in tx.of(Taken)])
    class InPairs:
        """Of each item an even number is kept."""

        kept: int = 0

        def settled(self, tx: Happened, item: str) -> None:
            self.kept += sum(event.item == item for event in tx.of(Taken))
            self.kept -= sum(event.item == item for event in tx.of(Returned))

        def holds(self) -> Iterator[str]:
            if self.kept % 2:
                yield f"{self.kept} are kept"

    return system


system = watch(selling())
silent = selling()
"""The same, with nothing to judge."""
