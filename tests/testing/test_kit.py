"""The testing kit itself: virtual time, systems that crash in it, given/when/then, and the pytest plugin."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from pathlib import Path

import pytest

from holdfast import Command, Contract, Event, Rejected, Rejection, decide, evolve
from holdfast.errors import Misuse, Unavailable
from holdfast.testing import VirtualClock, VirtualSystem, given, run_virtual, virtual_time
from shop.contracts import (
    Cancel,
    Cancelled,
    Charge,
    Charged,
    ChargeFailed,
    CheckedOut,
    Checkout,
    Confirm,
    Confirmed,
    Item,
    Place,
    Placed,
    Release,
    Released,
    Reserve,
    Reserved,
    Restock,
    Restocked,
    Ship,
    Shipped,
)
from shop.services import CheckoutSaga, Order, OrderPage, Payment, StockItem, shop

ROOT = Path(__file__).resolve().parents[2]


@virtual_time
async def test_an_hour_passes_at_once() -> None:
    """Waiting takes no real time, and the virtual clock says how long it was."""
    clock, real = VirtualClock(), time.monotonic()
    before = clock.now_us()
    await asyncio.sleep(3600)
    assert clock.now_us() - before == 3_600_000_000
    assert time.monotonic() - real < 1


def test_timers_fire_in_the_order_of_their_times() -> None:
    """Virtual time never runs backwards, whatever order waits are begun in."""
    seen: list[tuple[int, float]] = []

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        seen.append((seconds, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(*(wait(seconds) for seconds in (7, 1, 86_400 * 400, 2)))

    run_virtual(main)
    assert [seconds for seconds, _ in seen] == [1, 2, 7, 86_400 * 400]
    assert all(abs(at - seconds) < 1e-6 for seconds, at in seen)


def test_context_variables_stay_with_their_task() -> None:
    """What a task sets it finds after it has waited; what is given a context, an empty one too, runs in that."""
    var: ContextVar[str] = ContextVar("var", default="none")
    given = [Context(), Context(), Context()]

    async def sets(value: str) -> str:
        var.set(value)
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        return var.get()

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.call_soon(var.set, "soon", context=given[0])
        loop.call_later(1, var.set, "later", context=given[1])
        mine = loop.create_task(sets("task"), context=given[2])
        found = await asyncio.gather(mine, *(asyncio.create_task(sets(value)) for value in ("a", "b")))
        return [*found, var.get()]

    assert Context().run(run_virtual, main) == ["task", "a", "b", "none"]
    assert [context[var] for context in given] == ["soon", "later", "task"]


@pytest.mark.parametrize("stalled", [False, True], ids=["busy", "with nothing else to do"])
def test_another_thread_can_call_in(stalled: bool) -> None:
    """What another thread asks for is done, also where the loop waits for nothing but that."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        called: asyncio.Future[int] = loop.create_future()
        thread = threading.Timer(0.2, lambda: loop.call_soon_threadsafe(called.set_result, 7))
        thread.start()
        if not stalled:
            while not called.done():  # noqa: ASYNC110 - virtual time goes on while it waits
                await asyncio.sleep(60)
        return await called + await asyncio.to_thread(lambda: 1)

    assert run_virtual(main) == 8


def test_a_signal_is_heard() -> None:
    """A handler of a signal is called in a virtual loop as in any, also where nothing else happens."""

    async def main() -> int:
        heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set_result, 7)
        signal.raise_signal(signal.SIGUSR1)
        try:
            return await heard
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    assert run_virtual(main) == 7


def test_a_run_that_waits_for_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every task waits and no timer is set, the run fails and says so: it does not hang."""
    monkeypatch.setattr("holdfast.testing.simulation.loop.STALLED_SECONDS", 0.01)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing can happen any more"):
        run_virtual(main)


async def test_a_virtual_clock_needs_a_virtual_loop() -> None:
    """On a loop of real time the virtual clock refuses, and says what to do."""
    with pytest.raises(RuntimeError, match="run_virtual"):
        VirtualClock()


async def busy_shop() -> str:
    async with VirtualSystem(shop, loss=0.1) as system:
        await system.client.run(Restock("tea", 5))
        system.stores["stock"].crash_after.add(3)
        for number in range(8):
            order = Checkout(f"o{number}", "c", (Item("tea", 1, 100),))
            await system.client.send(order, key=f"k{number}", wait_seconds=60)
        await system.settle()
        assert system.crashes == ["stock"]
        return system.digest()


def test_the_same_seed_gives_the_same_logs() -> None:
    """All time and chance come from the seed: two runs agree in every byte, another seed does not."""
    first, again, other = (run_virtual(busy_shop, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_the_same_seed_gives_the_same_logs_in_another_process() -> None:
    """Not even the order of Python's sets has a say: a process with another hash seed writes the same logs."""
    program = "import tests.testing.test_kit as t; print(t.run_virtual(t.busy_shop, seed=1))"
    folders = os.pathsep.join(str(ROOT / folder) for folder in (".", "tests", "examples"))
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": folders},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {run_virtual(busy_shop, seed=1) + "\n"}


@virtual_time
async def test_a_crash_before_a_commit_leaves_nothing_of_it() -> None:
    """The crash is where it was planned: before commit N the log has nothing of it, after it everything."""
    for after, expected in ((False, 0), (True, 1)):
        async with VirtualSystem(shop) as system:
            store = system.stores["stock"]
            (store.crash_after if after else store.crash_before).add(store.commits + 1)
            with pytest.raises(Unavailable):
                await system.client.run(Restock("tea", 5))
            await system.settle()
            assert [record.type for record in system.log("stock")] == ["stock.restocked.v1"] * expected


@virtual_time
async def test_what_never_settles_is_said() -> None:
    """`settle` names what is left to do, and where, instead of waiting for ever."""
    async with VirtualSystem(shop) as system:
        await system.crash("payment")
        order = Checkout("o1", "c", (Item("tea", 1, 100),))
        await system.client.run(Restock("tea", 1))
        asking = asyncio.ensure_future(system.client.send(order, wait_seconds=1))
        with pytest.raises(AssertionError, match=r"payment is down.*order: 1 sagas open"):
            await system.settle(within_seconds=5)
        await system.start("payment")
        await system.settle()
        await asyncio.gather(asking, return_exceptions=True)


def test_an_aggregate_alone() -> None:
    """Given events or commands, when a command, then these events, this state, or this no with its facts and events."""
    given(StockItem, Restocked("tea", 5)).when(Reserve("tea", "o1", 2)).then(Reserved("tea", "o1", 2)).then_state(
        on_hand=3, held={"o1": 2}
    )
    given(StockItem, Restock("tea", 5)).when(Reserve("tea", "o1", 9)).then_rejected("out_of_stock", available=5)
    given(StockItem).when(Reserve("tea", "o1", 1)).then_rejected("not_found")
    given(Payment).when(Charge("o1", 100, "x0002")).then_rejected("declined", ChargeFailed("o1", 100, "declined"))
    scenario = given(StockItem, Restock("tea", 5), Reserve("tea", "o1", 2))
    scenario.when(Release("tea", "o1")).then(Released("tea", "o1", 2)).then_state(on_hand=5, held={})
    scenario.when(Release("tea", "o1")).then_rejected("not_reserved")


CHECKOUT = Checkout("o1", "c", (Item("tea", 2, 100), Item("cup", 1, 300)))
PLACED = Placed("o1", "c", CHECKOUT.items)
TEA, CUP = Reserved("tea", "o1", 2), Reserved("cup", "o1", 1)


def test_a_saga_alone() -> None:
    """Given what begins it, when steps are answered, then it asks, completes, is undone or stuck as declared."""
    given(CheckoutSaga, CHECKOUT).then_asks(Place("o1", "c", CHECKOUT.items)).answered(
        CheckoutSaga.place, PLACED
    ).then_asks(Reserve("tea", "o1", 2), Reserve("cup", "o1", 1)).answered("reserve", TEA).then_asks().answered(
        "reserve", CUP
    ).then_asks(Charge("o1", 500, CHECKOUT.card_number)).answered("charge", Charged("o1", 500)).then_asks(
        Confirm("o1", 500)
    ).answered("confirm", Confirmed("o1", 500)).then_asks(Ship("o1", 2)).answered(
        "ship", Shipped("o1", 2)
    ).then_completed(CheckedOut("o1", 500))


def test_a_saga_alone_is_undone() -> None:
    """A deadline or a no before the pivot undoes in reverse; a rejected undo is tried again, and in the end stuck."""
    scenario = given(CheckoutSaga, CHECKOUT).answered("place", PLACED).answered("reserve", TEA, CUP)
    scenario.overdue("charge").then_asks()
    scenario.answered("charge", Rejection("declined")).then_asks(Release("tea", "o1"), Release("cup", "o1"))
    scenario.answered("reserve", Released("tea", "o1", 2), Rejection("not_now")).then_asks()
    scenario.retried("reserve").then_asks(Release("cup", "o1"))
    scenario.answered("reserve", Released("cup", "o1", 1)).then_asks(Cancel("o1"))
    scenario.answered("place", Cancelled("o1")).then_undone("deadline")
    stuck = given(CheckoutSaga, CHECKOUT).answered("place", PLACED)
    stuck.answered("reserve", Rejection("out_of_stock"), Rejection("out_of_stock")).then_asks(Cancel("o1"))
    for _ in range(4):
        stuck.answered("place", Rejection("not_now")).retried("place").then_asks(Cancel("o1"))
    stuck.answered("place", Rejection("not_now")).then_stuck(CheckoutSaga.place)


def test_a_view_alone() -> None:
    """Given events, when more happen, then the row of a key has these values."""
    given(OrderPage, PLACED).when(Confirmed("o1", 500), Confirmed("a/b", 1)).then_row(
        "o1", status="confirmed", amount_cents=500
    ).then_row("a/b", amount_cents=1).then_no_row("o2")
    given(OrderPage, Shipped("o1", 2)).when(PLACED, Confirmed("o1", 500)).then_row(
        "o1", status="shipped", amount_cents=500, parcels=2
    )


kit = Contract("kit")


@kit.event
class Counted(Event):
    id: str


@kit.command(key="id")
class Count(Command[Counted]):
    id: str


class Sneaky:
    seen: int = 0
    log: dict[str, int] = {}

    @decide(creates=True)
    def count(self, command: Count) -> Counted:
        self.log[command.id] = 1
        return Counted(command.id)


class Sly:
    seen: int = 0

    @decide(creates=True)
    def count(self, command: Count) -> Counted:
        self.seen += 1
        raise Rejected("no")

    @evolve
    def counted(self, event: Counted) -> None:
        self.seen += 1


class Nothing:
    pass


FAILURES: list[tuple[Callable[[], object], str]] = [
    (lambda: given(Sneaky).when(Count("a")), r"Sneaky\.count decides.*changed log: \{\} -> \{'a': 1\}"),
    (lambda: given(Sly).when(Count("a")), r"Sly\.count decides.*changed seen: 0 -> 1"),
    (lambda: given(Nothing), "Nothing has no @decide, no @step and no @evolve"),
    (lambda: given(Order).when(Confirmed("o1", 1)), r"takes one command, not Confirmed"),
    (lambda: given(Order).when(Restock("tea", 1)), "Order has no @decide for Restock"),
    (lambda: given(Order, Confirm("o1", 1)), "given Confirm.*rejected: not_found"),
    (lambda: given(StockItem).when(Restock("tea", 1)).then(), "expected nothing\ngot      Restocked"),
    (lambda: given(StockItem).when(Restock("tea", 0)).then(Restocked("tea", 0)), "but it was rejected: not_positive"),
    (lambda: given(StockItem).when(Restock("tea", 1)).then_rejected("x"), "'x'\nbut it was accepted: Restocked"),
    (lambda: given(StockItem).when(Restock("tea", 0)).then_rejected("x"), "expected x\ngot      not_positive"),
    (
        lambda: given(StockItem, Restock("a", 1)).when(Reserve("a", "o", 2)).then_rejected("out_of_stock", available=2),
        "available=2\ngot.*available=1",
    ),
    (lambda: given(Payment).when(Charge("o", 1, "x0002")).then_rejected("declined"), "beside the rejection: nothing"),
    (lambda: given(StockItem, Restock("a", 1)).then_state(on_hand=2), "expected on_hand=2\ngot on_hand=1"),
    (lambda: given(StockItem, Restock("a", 1)).then_state(on_hnad=2), "no field 'on_hnad'; it has on_hand, held"),
    (lambda: given(StockItem).then_state(), "nothing has happened"),
    (lambda: given(StockItem).then_asks(), r"then_asks\(\) is for sagas"),
    (lambda: given(CheckoutSaga, CHECKOUT).when(), "moved on with answered"),
    (lambda: given(CheckoutSaga), "one message that begins it, not nothing"),
    (lambda: given(CheckoutSaga, Ship("o", 1)), "begun by a|begun by Checkout|another contract"),
    (lambda: given(CheckoutSaga, CHECKOUT).answered("plaze", PLACED), "no step 'plaze'; it has place, reserve"),
    (lambda: given(CheckoutSaga, CHECKOUT).answered("reserve", TEA), "1 answers for what is open: nothing"),
    (lambda: given(CheckoutSaga, CHECKOUT).answered("place", TEA), "answered by Placed or a Rejection, not Reserved"),
    (lambda: given(CheckoutSaga, CHECKOUT).then_asks(), "expected to be asked nothing\ngot Place"),
    (lambda: given(CheckoutSaga, CHECKOUT).then_completed(), "it is running, waiting for Place"),
    (lambda: given(CheckoutSaga, CHECKOUT).then_undone("x"), "it is running, waiting for Place"),
    (lambda: given(CheckoutSaga, CHECKOUT).then_stuck("place"), "stuck at place; it is running"),
    (lambda: given(CheckoutSaga, CHECKOUT).overdue("charge"), "charge waits for no answer"),
    (lambda: given(CheckoutSaga, CHECKOUT).retried("place"), "nothing of it was rejected"),
    (lambda: given(OrderPage, PLACED).then_row("o2"), "no row 'o2'; there are o1"),
    (lambda: given(OrderPage, PLACED).then_row("o1", status="new"), "expected status='new'\ngot status='placed'"),
    (lambda: given(OrderPage, PLACED).then_no_row("o1"), "expected no row 'o1'"),
    (lambda: given(OrderPage, TEA), "OrderPage has no @evolve for Reserved"),
]


@pytest.mark.parametrize(("scenario", "text"), FAILURES, ids=[str(number) for number in range(len(FAILURES))])
def test_a_failing_scenario_says_why(scenario: Callable[[], object], text: str) -> None:
    """What does not hold fails with both sides; a decider that changes state is found, accepted or rejected."""
    with pytest.raises((AssertionError, Misuse)) as caught:
        scenario()
    assert re.search(text, str(caught.value), re.DOTALL), str(caught.value)


PLUGIN_TEST = """
from shop.contracts import Restock
from shop.services import shop

def test_it(holdfast_run, holdfast_system, holdfast_seed):
    async def main():
        async with holdfast_system(shop) as system:
            await system.client.run(Restock("tea", 5))
            await system.settle()
            return system.digest()
    assert holdfast_seed == 7
    assert holdfast_run(main) == holdfast_run(main)
"""


def test_the_plugin_brings_fixtures(tmp_path: Path) -> None:
    """Where holdfast is installed, a test has `holdfast_system`, `holdfast_run` and a seed from the command line."""
    (tmp_path / "test_it.py").write_text(PLUGIN_TEST, "utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--holdfast-seed", "7", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "examples")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in found.stdout, found.stdout + found.stderr


def test_the_kit_needs_no_pytest() -> None:
    """Only the plugin and the conformance suites import pytest: scenarios run under any runner."""
    program = "import sys, holdfast.testing; assert 'pytest' not in sys.modules; print('fine')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout == "fine\n", found.stderr
