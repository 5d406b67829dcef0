"""Commands on a database server, beside one transaction per command with the engine's own driver.

The other side is what a service without batching does: each caller, on a connection of its own, looks up the version of
a stream and inserts one row into the same table with the same indexes, in a transaction of its own; or, as the most the
engine can do, inserts the row without looking. The server shares its fsyncs between them as well as it can. Both sides
use the same driver, and the same server, started anew for each measurement with its defaults (durable).
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncmy
import psycopg

from bench.load import Measured, closed_loop
from bench.services import First, first_service
from holdfast import Client, System, start
from holdfast.compose import make_store
from holdfast.testing.servers import ENGINES, Server

INSERT = "INSERT INTO log VALUES (%s, 'event', '', %s, 1, 'first.first_done.v1', %s, %s, '', %s, %s, '{}')"

VERSION = "SELECT max(version) FROM log WHERE stream = %s AND stream <> ''"


async def _server(engine: str) -> Server:
    found = ENGINES[engine]()
    await asyncio.to_thread(found.start)
    return found


async def commands(folder: Path, engine: str, callers: int, seconds: float) -> Measured:
    """One command, one event, a new stream each time."""
    server = await _server(engine)
    try:
        async with start(System([first_service]), store=server.url()) as running:
            client = Client.of(running)
            return await closed_loop(lambda number: client.run(First(f"{number}")), callers, seconds)
    finally:
        server.stop()


async def per_command(folder: Path, engine: str, callers: int, seconds: float, *, blind: bool = False) -> Measured:
    """One row in one transaction, each caller on its own connection; `blind` without looking at the stream before."""
    server = await _server(engine)
    connections: list[Any] = []
    try:
        store = make_store(server.url("first"), "first")
        await store.open(uuid.uuid4().hex, 1)
        await store.close()
        connect = {"postgres": _postgres, "mariadb": _mariadb}[engine]
        connections += [await connect(server, blind) for _ in range(min(callers, CONNECTIONS_MAX))]
        free = asyncio.Queue[Callable[[tuple[Any, ...]], Awaitable[None]]]()
        for insert, _ in connections:
            free.put_nowait(insert)
        positions = itertools.count(1)

        async def one(number: int) -> None:
            insert = await free.get()
            try:
                position, tx = next(positions), uuid.uuid4().hex[:26]
                await insert((position, f"FirstPlace/{number}", f'{{"id":"{number}"}}', tx, tx, time.time_ns() // 1000))
            finally:
                free.put_nowait(insert)

        return await closed_loop(one, callers, seconds)
    finally:
        for _, close in connections:
            await close()
        server.stop()


CONNECTIONS_MAX = 64
"""As a pool would have; more make both engines slower here."""


async def _postgres(server: Server, blind: bool) -> tuple[Any, Any]:
    connection = await psycopg.AsyncConnection.connect(server.url("first").partition("?")[0], autocommit=True)
    await connection.execute("SET search_path TO first")

    async def insert(values: tuple[Any, ...]) -> None:
        if blind:
            await connection.execute(INSERT.encode(), values, prepare=True)
            return
        async with connection.transaction():
            await (await connection.execute(VERSION.encode(), values[1:2], prepare=True)).fetchone()
            await connection.execute(INSERT.encode(), values, prepare=True)

    return insert, connection.close


async def _mariadb(server: Server, blind: bool) -> tuple[Any, Any]:
    found = server.url("first").removeprefix("mysql://holdfast:secret@")
    host, _, rest = found.partition(":")
    connection = await asyncmy.connect(
        host=host, port=int(rest.partition("/")[0]), user="holdfast", password="secret", db="first", autocommit=True
    )

    async def insert(values: tuple[Any, ...]) -> None:
        async with connection.cursor() as cursor:
            if blind:
                await cursor.execute(INSERT, values)
                return
            await connection.begin()
            await cursor.execute(VERSION, values[1:2])
            await cursor.fetchone()
            await cursor.execute(INSERT, values)
            await connection.commit()

    return insert, connection.ensure_closed
