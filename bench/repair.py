"""What an operator waits for, and what a parked message costs the others.

`why`: a log of a million records (100,000 sagas and more), on SQLite, served over HTTP; one caller asks `/ops/why` for
ids by turns: a correlation label, an idempotency key, a stream, a bare key, a transaction, and one that nobody knows.
`others`: sagas on keys of their own, beside the same while 500 sagas wait on a stream whose first message is parked.
"""

import asyncio
from pathlib import Path

import aiohttp

from bench.holdfast_side import in_process
from bench.load import Measured, closed_loop
from holdfast import Client, Command, Contract, Event, Retry, Service, System, answer, decide, evolve, start, step
from holdfast.errors import CommandError
from holdfast.web.app import make_app
from holdfast.web.serve import serve

RECORDS = 1_000_000
BUSY_SAGAS = 500

depot, desk = Contract("depot"), Contract("desk")


@depot.event
class Taken(Event):
    item: str


@depot.command(key="item")
class Take(Command[Taken]):
    item: str


@desk.event
class Sold(Event):
    id: str


@desk.command(key="id")
class Note(Command[Sold]):
    id: str


@desk.command
class Sell(Command[Sold]):
    id: str
    item: str


depots, desks = Service(depot, owner="team-depot", retry=Retry(attempts_max=1)), Service(desk, owner="team-desk")


@depots.aggregate
class Item:
    taken: int = 0

    @decide(creates=True)
    def take(self, command: Take) -> Taken:
        if command.item == "broken":
            raise RuntimeError("broken")
        return Taken(command.item)

    @evolve
    def took(self, event: Taken) -> None:
        self.taken += 1


@desks.aggregate
class Line:
    noted: bool = False

    @decide(creates=True)
    def note(self, command: Note) -> Sold:
        return Sold(command.id)

    @evolve
    def sold(self, event: Sold) -> None:
        self.noted = True


@desks.saga
class Sale:
    sell: Sell

    @step
    def take(self) -> Take:
        return Take(self.sell.item)

    @step
    def note(self) -> Note:
        return Note(self.sell.id)

    @answer
    def done(self) -> Sold:
        return Sold(self.sell.id)


system = System([depots, desks], name="sales")


async def _grow(client: Client, first: int, count: int) -> None:
    async def one(number: int) -> None:
        await client.run(Sell(f"s{number}", f"i{number}"), key=f"key-{number}", correlation=f"label-{number}")

    for begin in range(first, first + count, 512):
        await asyncio.gather(*(one(number) for number in range(begin, min(first + count, begin + 512))))


async def why(folder: Path, seconds: float) -> Measured:
    """Ask why, by ids of every kind, of a service whose log has a million records."""
    async with start(system, store=f"sqlite:{folder}/") as running:
        client, node = Client.of(running), running.nodes["desk"]
        sagas = 0
        while node.writer.head < RECORDS:
            await _grow(client, sagas, 5_120)
            sagas += 5_120
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.ensure_future(
            serve(make_app({"desk": node}), host="127.0.0.1", port=0, ready=ready.set_result)
        )
        try:
            url = f"http://127.0.0.1:{await ready}/ops/why"
            some = (await client.send(Sell("last", "last"))).tx
            async with aiohttp.ClientSession() as http:

                async def one(number: int) -> None:
                    n = (number * 7919) % sagas
                    ids = (f"label-{n}", f"key-{n}", f"Line/s{n}", f"s{n}", some, "nobody knows it")
                    async with http.get(url, params={"id": ids[number % len(ids)]}) as answered:
                        body = await answered.json()
                        if answered.status != 200 or bool(body["records"]) == (ids[number % len(ids)] == ids[-1]):
                            raise RuntimeError(f"{answered.status}: {body}")

                return await closed_loop(one, 1, seconds)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def others(folder: Path, callers: int, seconds: float, *, parked: bool) -> Measured:
    """Sagas on keys of their own; `parked`: while others wait on a stream behind a parked message."""
    async with in_process(folder, system) as client:

        async def wait_for_ever(number: int) -> None:
            try:
                await client.send(Sell(f"b{number}", "broken"), wait_seconds=seconds + 60)
            except CommandError:
                pass

        busy = [asyncio.ensure_future(wait_for_ever(n)) for n in range(BUSY_SAGAS if parked else 0)]
        await asyncio.sleep(0.5)
        try:
            return await closed_loop(lambda number: client.run(Sell(f"s{number}", f"i{number}")), callers, seconds)
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
