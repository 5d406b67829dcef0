"""The edge: commands from outside, their keys, their answers, and what happens when the service cannot take them."""

import asyncio
from typing import Any

import pytest

from holdfast import Rejection
from holdfast.errors import Busy, CommandError, CommandFailed, KeyReused, NotFound, Pending, Unavailable
from holdfast.runtime.edge.commands import Outcome
from holdfast.runtime.ops.status import progress
from holdfast.testing import VirtualSystem, virtual_time
from support.systems.deals import Deal, Dealt, Fill, Filled, Pay, Take, Taken, ask, desk, logged, ring, until


@virtual_time
async def test_an_answer_leaves_after_the_flush() -> None:
    """G8: no answer of any kind - accepted, rejected, a duplicate's - leaves before its commit has returned."""
    async with VirtualSystem(ring()) as system:
        await ask(system, Fill("a"), "fill")
        system.stores["cell"].flush_seconds = 10
        commands: list[tuple[Any, str]] = [(Take("a", "x"), "k"), (Take("a", "x"), "k"), (Take("a", "y"), "l")]
        asking = [asyncio.ensure_future(system.client.send(command, key=key)) for command, key in commands]
        await asyncio.sleep(9)
        assert not any(task.done() for task in asking)
        assert len(system.log("cell")) == 1
        first, again, rejected = await asyncio.gather(*asking)
        assert first == again and first.answer == Taken("a", "x") and rejected.answer.code == "empty"
        assert [record.type for record in system.log("cell")][1:] == ["cell.taken.v1", "holdfast.rejected"]


@virtual_time
async def test_the_same_key_gets_the_recorded_answer_for_ever() -> None:
    """G3: accepted or rejected, at once or a year and a restart later, the same key has one outcome, recorded once."""
    async with VirtualSystem(ring()) as system:
        await ask(system, Fill("a"), "fill")
        accepted = await asyncio.gather(*(system.client.send(Take("a", "x"), key="yes") for _ in range(20)))
        rejected = await system.client.send(Take("a", "y"), key="no")
        assert len({(outcome.tx, outcome.position) for outcome in accepted}) == 1
        before = len(system.log("cell"))
        await ask(system, Fill("a"), "more")  # now the rejected one would be accepted
        for _ in range(2):
            await system.crash("cell")
            await system.crash("desk")
            await system.crash("till")
            await asyncio.sleep(366 * 86_400)
            await system.start("cell")
            assert await system.client.send(Take("a", "x"), key="yes") == accepted[0]
            again = await system.client.send(Take("a", "y"), key="no")
            assert (again.tx, again.answer, again.position) == (rejected.tx, rejected.answer, rejected.position)
            await system.start("desk")
            await system.start("till")
        assert len(system.log("cell")) == before + 1


@virtual_time
async def test_a_key_with_other_content_is_refused_by_name() -> None:
    """G3: the same key with another value or another type is an error that names the field, before and after a
    restart, and of racing ones one wins."""
    async with VirtualSystem(ring()) as system:
        await system.client.send(Fill("a", 3), key="k")
        for _ in range(2):
            with pytest.raises(KeyReused, match=r"'k'.*another 'amount'") as caught:
                await system.client.send(Fill("a", 4), key="k")
            assert (caught.value.key, caught.value.field) == ("k", "amount")
            with pytest.raises(KeyReused, match="another 'type'"):
                await system.client.send(Take("a", "x"), key="k")
            await system.restart("cell")
        racing = await asyncio.gather(
            *(system.client.send(Fill("b", n), key="race") for n in range(1, 6)), return_exceptions=True
        )
        assert sorted(type(found).__name__ for found in racing) == ["KeyReused"] * 4 + ["Outcome"]
        assert logged(system, "cell", "cell.filled.v1") == 2


@virtual_time
async def test_a_saga_begun_twice_under_one_key_is_one() -> None:
    """G3: callers who ask for the same saga, at once, later, and after a restart of the desk, wait for one end."""
    async with VirtualSystem(ring(), streams_in_memory_max=1) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 5), f"fill {name}")
        asking = [asyncio.ensure_future(ask(system, Deal("d"), "k")) for _ in range(5)]
        await until(lambda: logged(system, "desk", "holdfast.saga.begun") > 0)
        asking.append(asyncio.ensure_future(ask(system, Deal("d"), "k")))
        await system.restart("desk")
        outcomes = await asyncio.gather(*asking)
        assert {outcome.tx for outcome in outcomes} == {outcomes[0].tx}
        assert all(outcome.answer == Dealt("d", ("a", "b"), ()) for outcome in outcomes)
        assert logged(system, "desk", "holdfast.saga.begun") == 1 and logged(system, "cell", "cell.taken.v1") == 2
        await system.settle()
        assert progress(system.nodes["desk"]).sagas_open == 0


@virtual_time
async def test_a_command_whose_handler_fails_records_nothing() -> None:
    """A bug in a handler is CommandFailed: nothing recorded, nothing of the state changed, the key free for another
    try, and neighbours of the same moment go through."""
    broken = True

    def breaks(command: Any) -> None:
        if broken and getattr(command, "deal", "") == "bad":
            raise ZeroDivisionError("a bug")

    async with VirtualSystem(ring(breaks)) as system:
        await ask(system, Fill("a", 10), "fill")
        sent = [("good 1", "1"), ("bad", "k"), ("good 2", "2")]
        found = await asyncio.gather(
            *(system.client.send(Take("a", deal), key=key) for deal, key in sent), return_exceptions=True
        )
        assert [type(one).__name__ for one in found] == ["Outcome", "CommandFailed", "Outcome"]
        failure = found[1]
        assert isinstance(failure, CommandFailed) and "ZeroDivisionError" in str(failure)
        assert "a bug" not in str(failure) and isinstance(failure.__cause__, ZeroDivisionError)
        assert len(system.log("cell")) == 3 and await system.stores["cell"].get("request", ["k"]) == [None]
        broken = False
        outcome = await system.client.send(Take("a", "bad"), key="k")
        assert outcome.answer == Taken("a", "bad")


@virtual_time
async def test_a_store_that_fails_is_unavailable_and_recovers() -> None:
    """A store that takes no commits answers Unavailable with a time to come back; nothing is recorded and no state
    is kept of it; when the store is back the service is, by itself."""
    async with VirtualSystem(ring()) as system:
        await ask(system, Fill("a"), "fill")
        system.stores["cell"].failing = True
        for _ in range(3):
            with pytest.raises(Unavailable, match="disk is full") as caught:
                await system.client.send(Take("a", "x"), key="k")
            assert caught.value.retry_after_seconds > 0
            assert "disk is full" in progress(system.nodes["cell"]).store
            await asyncio.sleep(3)
        assert len(system.log("cell")) == 1
        system.stores["cell"].failing = False
        outcome = await ask(system, Take("a", "x"), "k", seconds=5)
        assert outcome.answer == Taken("a", "x") and progress(system.nodes["cell"]).store == ""
        rejected = await ask(system, Take("a", "y"), "l")
        assert isinstance(rejected.answer, Rejection)


@virtual_time
async def test_more_than_fits_is_busy() -> None:
    """Past its bound the inbox refuses with Busy and a time to come back; what was taken is answered."""
    async with VirtualSystem(ring()) as system:
        system.nodes["cell"].writer._inbox_max = 50  # pyright: ignore[reportPrivateUsage]
        sent = [system.client.send(Fill(f"c{n}"), key=f"k{n}") for n in range(80)]
        found = await asyncio.gather(*sent, return_exceptions=True)
        busy = [one for one in found if isinstance(one, Busy)]
        assert len(busy) == 30 and all(one.retry_after_seconds > 0 for one in busy)
        assert logged(system, "cell", "cell.filled.v1") == 50
        await asyncio.gather(*(ask(system, Fill(f"c{n}"), f"k{n}") for n in range(80)))
        assert logged(system, "cell", "cell.filled.v1") == 80


@virtual_time
async def test_too_many_open_sagas_are_busy() -> None:
    """Past the limit of open sagas a command that begins one is Busy; others are taken, and room is found again."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 5), f"fill {name}")
        system.nodes["desk"].edge.sagas_open_max = 2
        await system.crash("till")
        for number in range(2):
            with pytest.raises(Pending):
                await system.client.send(Deal(f"d{number}"), key=f"d{number}", wait_seconds=1)
        with pytest.raises(Busy, match="has 2 open sagas"):
            await system.client.send(Deal("d2"), key="d2")
        await system.start("till")
        await system.settle()
        assert (await ask(system, Deal("d2"), "d2")).answer == Dealt("d2", ("a", "b"), ())


@virtual_time
async def test_nothing_passes_what_waits_on_a_stream() -> None:
    """While a message waits on a stream, a command from the edge for that stream is Busy; other streams are free."""

    def breaks(command: Any) -> None:
        if isinstance(command, Take) and command.id == "a":
            raise ZeroDivisionError("a bug")

    async with VirtualSystem(ring(breaks)) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 5), f"fill {name}")
        with pytest.raises(Pending):
            await system.client.send(Deal("d"), key="d", wait_seconds=2)
        with pytest.raises(Busy, match="Cell/a has messages waiting"):
            await system.client.send(Fill("a"))
        assert (await system.client.send(Fill("b"))).answer == Filled("b", 1)


@virtual_time
async def test_pending_says_where_to_ask_again() -> None:
    """G5: no outcome in time is Pending with the transaction; its status is none until there is one, then that."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 5), f"fill {name}")
        await system.crash("cell")
        with pytest.raises(Pending) as pending:
            await system.client.send(Deal("d"), key="k", wait_seconds=1)
        edge, tx = system.nodes["desk"].edge, pending.value.tx
        assert await edge.status(tx) is None
        await system.start("cell")
        await system.settle()
        outcome = await edge.status(tx)
        assert outcome == await system.client.send(Deal("d"), key="k")
        assert isinstance(outcome, Outcome) and outcome.tx == tx
        record = system.log("desk")[outcome.position - 1]
        assert record.type == "desk.dealt.v1" and record.headers.outcome
        with pytest.raises(NotFound, match="knows no transaction nowhere"):
            await edge.status("nowhere")


@virtual_time
async def test_what_nobody_here_decides_is_not_found() -> None:
    """A command of another service is NotFound, by name; nothing is recorded."""
    async with VirtualSystem(ring()) as system:
        with pytest.raises(NotFound, match=r"desk decides no command till\.pay\.v1"):
            await system.nodes["desk"].edge.run(Pay("d"))
        assert not system.log("desk") and desk.find("till.pay.v1") is None


@virtual_time
async def test_label_and_debug_are_inherited_by_everything() -> None:
    """G7: the correlation label, `debug-log-enabled` and the trace context of the edge stand on every record of the
    transaction, in every service, through answers, undo and retries."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 5), f"fill {name}")
        before = {name: len(system.log(name)) for name in system.stores}
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        outcome = await system.nodes["desk"].edge.run(
            Deal("d", pays=False, return_refusals=1), correlation="order 7", debug=True, traceparent=trace
        )
        await system.settle()
        seen = 0
        for name in system.stores:
            for record in system.log(name)[before[name] :]:
                seen += 1
                assert (record.tx, record.correlation) == (outcome.tx, "order 7"), record
                assert (record.headers.debug, record.headers.traceparent) == (True, trace), record
        assert seen > 15


@virtual_time
async def test_commands_while_a_service_stops_are_told() -> None:
    """Who asks a service that stops gets a CommandError at once, and nothing hangs."""
    async with VirtualSystem(ring()) as system:
        sent = [asyncio.ensure_future(system.client.send(Fill(f"c{n}"), key=f"k{n}")) for n in range(50)]
        await asyncio.sleep(0)
        await system.nodes["cell"].close(drain=False)
        async with asyncio.timeout(5):
            found = await asyncio.gather(*sent, return_exceptions=True)
        assert all(isinstance(one, CommandError | Outcome) for one in found)
