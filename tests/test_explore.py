"""The fault explorer: what it runs, what it says it ran, what it makes of a failure, and that it always comes back."""

from holdfast.testing import VirtualSystem, run_virtual
from hunting import in_trading, trading


def test_a_cut_goes_through_staged_transactions_at_one_instant() -> None:
    """G6, G7: where all of a staged transaction happens at one instant, its votes are still commits of their own: the
    cut comes to the end of every log, and nothing is left open."""

    async def main() -> None:
        async with VirtualSystem(trading(), flush_seconds=0.0, latency_seconds=0.0) as system:
            await in_trading(system)
            await system.settle()
            report = await system.audit()
            assert report.cut == {name: node.writer.head for name, node in system.nodes.items()}
            assert not report.open and not report.violations and report.settled >= 7

    run_virtual(main)
