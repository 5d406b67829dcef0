"""Handlers: a row in a table of the team's own and an event, in one transaction, beside the same without holdfast.

The other side is what a careful team writes by hand: each caller on a connection of its own inserts its row and the
event into an outbox with the log's columns and indexes, and commits. On SQLite, where one connection writes, it is one
caller.
"""

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import asyncmy
import psycopg

from bench import raw
from bench.load import Measured, closed_loop, measured
from holdfast import Client, Command, Contract, Event, LocalTransaction, Service, System, start
from holdfast.compose import make_store
from holdfast.testing.servers import ENGINES, Server

first = Contract("first")
TABLE = "CREATE TABLE own (id VARCHAR(50) PRIMARY KEY, cents BIGINT NOT NULL)"
OWN = "INSERT INTO own VALUES (%s, 1)"
INSERT = "INSERT INTO log VALUES (%s, 'event', '', %s, 1, 'first.paid.v1', %s, %s, '', %s, %s, '{}')"
CONNECTIONS_MAX = 64


@first.event
class Paid(Event):
    id: str


@first.command(key="id")
class Pay(Command[Paid]):
    id: str


service = Service(first)


@service.handle
async def pay(command: Pay, tx: LocalTransaction) -> Paid:
    if tx.engine == "sqlite":
        tx.connection.execute(OWN.replace("%s", "?"), (command.id,))
    elif tx.engine == "postgres":
        await tx.connection.execute(OWN, (command.id,))
    else:
        async with tx.connection.cursor() as cursor:
            await cursor.execute(OWN, (command.id,))
    return Paid(command.id)


async def handled(folder: Path, engine: str, callers: int, seconds: float) -> Measured:
    """One command, one row, one event."""
    server = None if engine == "sqlite" else ENGINES[engine]()
    try:
        if server is None:
            made = await asyncio.to_thread(raw.opened, folder, "first")
            made.execute(TABLE)
            made.close()
            url = f"sqlite:{folder / 'first.db'}"
        else:
            await asyncio.to_thread(server.start)
            await _made(server, engine)
            url = server.url()
        async with start(System([service]), stores={"first": url}) as running:
            client = Client.of(running)
            return await closed_loop(lambda number: client.run(Pay(f"{number}")), callers, seconds)
    finally:
        if server is not None:
            server.stop()


async def by_hand(folder: Path, engine: str, callers: int, seconds: float) -> Measured:
    """The same row and an outbox, a transaction per call."""
    if engine == "sqlite":
        return await asyncio.to_thread(_by_hand_on_sqlite, folder, seconds)
    server = ENGINES[engine]()
    await asyncio.to_thread(server.start)
    connections: list[Any] = []
    try:
        await _made(server, engine)
        connections += [await _connected(server, engine) for _ in range(min(callers, CONNECTIONS_MAX))]
        free = asyncio.Queue[Any]()
        for connection in connections:
            free.put_nowait(connection)

        async def one(number: int) -> None:
            connection = await free.get()
            try:
                if engine == "postgres":
                    async with connection.transaction():
                        await connection.execute(OWN, (f"{number}",), prepare=True)
                        await connection.execute(INSERT.encode(), _row(number), prepare=True)
                else:
                    await connection.begin()
                    async with connection.cursor() as cursor:
                        await cursor.execute(OWN, (f"{number}",))
                        await cursor.execute(INSERT, _row(number))
                    await connection.commit()
            finally:
                free.put_nowait(connection)

        return await closed_loop(one, callers, seconds)
    finally:
        for connection in connections:
            await (connection.close() if engine == "postgres" else connection.ensure_closed())
        server.stop()


def _by_hand_on_sqlite(folder: Path, seconds: float) -> Measured:
    connection = raw.opened(folder, "byhand")
    connection.execute(TABLE)
    begin, waited, position = time.perf_counter(), list[float](), 0
    counts_from, end = begin + seconds * raw.WARM_SHARE, begin + seconds
    while (asked := time.perf_counter()) < end:
        position += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(OWN.replace("%s", "?"), (f"{position}",))
        connection.execute(raw.INSERT, raw.row(position))
        connection.execute("COMMIT")
        answered = time.perf_counter()
        if counts_from <= answered < end:
            waited.append(answered - asked)
    connection.close()
    return measured(waited, end - counts_from)


def _row(number: int) -> tuple[Any, ...]:
    tx = uuid.uuid4().hex[:26]
    return number, f"pay/{number}", f'{{"id":"{number}"}}', tx, tx, time.time_ns() // 1000


async def _made(server: Server, engine: str) -> None:
    """The log, by holdfast's own store, and the team's table."""
    store = make_store(server.url("first"), "first")
    await store.open(uuid.uuid4().hex, 1)
    await store.close()
    connection = await _connected(server, engine)
    if engine == "postgres":
        await connection.execute(TABLE)
        await connection.close()
        return
    async with connection.cursor() as cursor:
        await cursor.execute(TABLE)
    await connection.ensure_closed()


async def _connected(server: Server, engine: str) -> Any:
    if engine == "postgres":
        connection = await psycopg.AsyncConnection.connect(server.url("first").partition("?")[0], autocommit=True)
        await connection.execute("SET search_path TO first")
        return connection
    return await asyncmy.connect(
        host="127.0.0.1", port=server.port, user="holdfast", password="secret", db="first", autocommit=True
    )
