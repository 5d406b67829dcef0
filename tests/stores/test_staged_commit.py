"""Staged commit on every store: whole or not at all, while services and servers are killed."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.compose import make_store
from holdfast.core.declare.message import Command, message_of
from holdfast.core.log.record import Record
from holdfast.errors import CommandError, StoreError, StoreFailed, StoreLocked
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.transports.local import LocalTransport
from support.servers import ENGINES, OwnServers, Server, database
from support.systems.trades import Move, Take, Trade, Traded, system

KINDS = ["sqlite", *ENGINES, "mixed"]
NAMES = ("bank", "shop", "depot", "desk")
TRADES, AT_ONCE, SEED = 60, 12, 5


@pytest.fixture
def servers(own_servers: OwnServers) -> dict[str, Server]:
    """Servers that run, by engine."""
    return {engine: own_servers.of(engine) for engine in ENGINES}


class Place:
    """Four services on their stores, each of which can be killed and come back."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls, self.declared = urls, system(*NAMES)
        self.transport = LocalTransport()
        self.nodes: dict[str, Node] = {}

    async def up(self, name: str) -> None:
        """Start a service; while its store is away, try again."""
        async with asyncio.timeout(60):
            while True:
                node = Node(
                    self.declared.services[name], make_store(self.urls[name], name), self.transport, SystemClock(),
                    peers=self.declared.services,
                )  # fmt: skip
                try:
                    await node.start()
                    break
                except (StoreFailed, StoreLocked):
                    await node.close(drain=False)
                    await asyncio.sleep(0.2)
        self.nodes[name] = self.transport.peers[name] = node

    async def kill(self, name: str) -> None:
        """Take a service away as it is, and start it anew."""
        del self.transport.peers[name]
        await self.nodes.pop(name).close(drain=False)
        await self.up(name)

    async def ask(self, command: Command[Any], key: str) -> Any:
        """The answer to a command, asked with one key until there is one."""
        async with asyncio.timeout(120):
            while True:
                try:
                    node = self.nodes[message_of(command).contract]
                    return (await node.edge.run(command, key=key, wait_seconds=5)).answer
                except (CommandError, StoreError, KeyError):
                    await asyncio.sleep(0.05)

    async def events(self, name: str) -> list[Record]:
        """The events of a log."""
        return list((await self.nodes[name].store.read(0, 100_000, kinds=("event",))).records)

    async def left(self) -> list[str]:
        """What is not settled, or stands in a store that should not."""
        found: list[str] = []
        for name, node in self.nodes.items():
            for kind in ("stage", "decided", "waiting", "saga"):
                found += [f"{name}: {kind} {key}" for key, _ in await node.store.scan(kind)]
        return found


def urls(kind: str, folder: Path, servers: dict[str, Server]) -> dict[str, str]:
    """Where each service has its store."""
    mixed = dict(zip(NAMES, ["postgres", "mariadb", "sqlite", "postgres"], strict=True))
    found: dict[str, str] = {}
    for name in NAMES:
        server = servers.get(mixed[name] if kind == "mixed" else kind)
        found[name] = f"sqlite:{folder}/" if server is None else server.url(database())
    return found


def some_trade(number: int, rng: random.Random) -> Trade:
    """A trade over three services, some of which is refused now and then."""
    one, two = rng.sample("abcd", 2)
    amount = rng.randrange(1, 9)
    how = rng.choice(("", "", "", "no"))
    return Trade(
        f"d{number}", ((one, -amount), (two, amount)), (), ("tea",), how, takes=(("tea", rng.choice((1, -1))),)
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_staged_on_every_store_under_kills(kind: str, tmp_path: Path, servers: dict[str, Server]) -> None:
    """G6, G8: on SQLite, PostgreSQL, MariaDB and mixed, services and database servers killed meanwhile: every trade
    that was answered yes is there whole and once in three logs, every other one in none; nothing stays locked."""
    place = Place(urls(kind, tmp_path, servers))
    for name in NAMES:
        await place.up(name)
    rng = random.Random(SEED)
    for name in "abcd":
        await place.ask(Move(name, 1000), f"open {name}")
    trades = {f"d{number}": some_trade(number, rng) for number in range(TRADES)}
    turn, done = asyncio.Semaphore(AT_ONCE), [0]

    async def one(trade: Trade) -> Any:
        async with turn:
            answer = await place.ask(trade, trade.deal)
            await place.ask(Take("tea", "", 0), f"plain {trade.deal}")
            done[0] += 1
            return answer

    async def reached(share: int) -> None:
        async with asyncio.timeout(100):
            while done[0] < share * TRADES // 8:  # noqa: ASYNC110 - asked, not told
                await asyncio.sleep(0.01)

    async def kills() -> None:
        used = [server for engine, server in servers.items() if kind in (engine, "mixed")]
        for number, victim in enumerate(["desk", "bank", *used, "depot", "desk"], 1):
            await reached(number)
            if isinstance(victim, str):
                await place.kill(victim)
            else:
                await asyncio.to_thread(victim.kill)
                await asyncio.to_thread(victim.start)

    answers, _ = await asyncio.gather(asyncio.gather(*map(one, trades.values())), kills())
    async with asyncio.timeout(60):
        while left := await place.left():  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.1)
    assert left == []
    found: dict[str, Counter[str]] = {}
    for name in ("bank", "shop", "depot"):
        for record in await place.events(name):
            body = msgspec.json.decode(record.data)
            if body.get("deal"):
                found.setdefault(body["deal"], Counter())[name] += 1
    yes = {trade.deal for trade, answer in zip(trades.values(), answers, strict=True) if isinstance(answer, Traded)}
    assert set(found) == yes and TRADES / 3 < len(yes) < TRADES
    assert {tuple(sorted(one.items())) for one in found.values()} == {(("bank", 2), ("depot", 1), ("shop", 1))}
    for node in place.nodes.values():
        await node.close()
