"""Services that reach each other by HTTP alone, the client over HTTP, and the server they run on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from holdfast import Client, Rejection, System
from holdfast.core.log.batch import Cursor
from holdfast.core.wire.frame import FeedRequest, Frame
from holdfast.errors import (
    CommandFailed,
    ConfigInvalid,
    HoldfastError,
    Invalid,
    KeyReused,
    Misuse,
    NotFound,
    Pending,
    Unreachable,
)
from holdfast.runtime.ops.status import progress
from holdfast.runtime.system import Running
from holdfast.transports import http
from holdfast.transports.http import HttpTransport
from shop.contracts import Checkout, Item, Restock
from shop.services import shop
from support.http_services import Far, Poke, free_ports, lab_service, listening, site, until


def checkout(name: str, quantity: int = 1, card: str = "4111111111111111") -> Checkout:
    return Checkout(name, "c1", (Item("tea", quantity, 300), Item("pot", 1, 100)), card)


async def test_a_saga_over_http_ends_and_undoes() -> None:
    """Four services, four listeners: accepted, refused by stock, refused by payment and undone; stock adds up (G4)."""
    async with Far(shop) as far:
        client = Client.http(far.urls)
        for sku in ("tea", "pot"):
            await client.run(Restock(sku, 20))
        sent = [client.send(checkout(f"o{n}", card="4242" if n % 2 else "0002")) for n in range(20)]
        outcomes = await asyncio.gather(*sent, client.send(checkout("big", quantity=99)))
        refused = [one.answer.code for one in outcomes if isinstance(one.answer, Rejection)]
        assert sorted(refused) == ["declined"] * 10 + ["out_of_stock"]
        for sku in ("tea", "pot"):
            folded = far.nodes["stock"].streams[f"StockItem/{sku}"].state
            assert (folded.on_hand, len(folded.held)) == (10, 10)
        page = await client.query("order", "OrderPage", "o1", at_least={"order": outcomes[1].position})
        assert page.row["amount_cents"] == 400, (page, outcomes[1])
        await client.close()


async def test_a_peer_that_goes_and_comes_back() -> None:
    """While a service is away what is for it waits; when it is back everything ends, once."""
    async with Far(shop) as far:
        client = Client.http(far.urls)
        for sku in ("tea", "pot"):
            await client.run(Restock(sku, 5))
        await far.down("payment")
        asked = [asyncio.ensure_future(client.send(checkout(f"o{n}"))) for n in range(5)]
        await asyncio.sleep(0.3)
        assert not any(one.done() for one in asked)
        assert progress(far.nodes["order"]).exchange["payment"].owed == 5
        await far.up("payment")
        async with asyncio.timeout(15):
            assert not any(isinstance(one.answer, Rejection) for one in await asyncio.gather(*asked))
        log = (await far.stores["payment"].read(0, 1000)).records
        assert sum(record.type == "payment.charged.v1" for record in log) == 5
        for peer in ("payment", "stock"):
            await until(lambda: progress(far.nodes["order"]).exchange[peer].owed == 0)  # noqa: B023 - asked at once
            assert progress(far.nodes["order"]).exchange[peer].behind == 0
        await client.close()


@contextlib.asynccontextmanager
async def answering(data: bytes) -> AsyncGenerator[str]:
    """A server that answers every request with these bytes and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answer(body: bytes, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """The bytes of an answer."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize(
    ("data", "secret"),
    [
        (b"", ""),
        (b"rubbish\r\n\r\n", ""),
        (answer(b"{}", length=100), ""),
        (answer(b"{}"), ""),
        (answer(b"<html>", "200 OK"), ""),
        (answer(b"<html>", "502 Bad Gateway"), ""),
        (answer(b"{}", "302 Found", "Location: http://127.0.0.1:9/\r\n"), ""),
        (answer(b'{"type":"https://holdfast.invalid/problems/Forked"}', "409 Conflict"), "a secret of services"),
        (answer(b"[]", "200 OK", "Holdfast-Upto: 5\r\nHoldfast-Head: 5\r\n"), "a secret of services"),
    ],
)
async def test_a_strange_answer_is_an_exchange_error(data: bytes, secret: str) -> None:
    """Cut off, no JSON, a gateway's page, a redirect, unsigned: an error by name, never something that is believed."""
    async with answering(data) as url:
        transport = HttpTransport({"stock": url}, secret=secret)
        with pytest.raises(HoldfastError):
            await transport.exchange("stock", Frame("order", "stock", "i", 1, 0, 0, Cursor("", 0), 0))
        with pytest.raises(HoldfastError):
            await transport.feed("stock", FeedRequest(0, ("a.b.v1",), 10, 50, "i"))
        with pytest.raises(Unreachable):
            await transport.exchange("nobody", Frame("order", "nobody", "i", 1, 0, 0, Cursor("", 0), 0))
        await transport.close()


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No peer can fill our memory."""
    monkeypatch.setattr(http, "ANSWER_BYTES_MAX", 10_000)
    async with answering(answer(b" " * 20_000)) as url:
        transport = HttpTransport({"stock": url})
        with pytest.raises(Unreachable, match="more than 10000 bytes"):
            await transport.feed("stock", FeedRequest(0))
        await transport.close()


def test_a_url_that_is_none_is_misuse() -> None:
    """A wrong URL is said when it is given."""
    for url in ("stock", "ftp://127.0.0.1", "http://", ""):
        with pytest.raises(Misuse, match="stock"):
            HttpTransport({"stock": url})


async def outcomes_of(client: Client) -> list[Any]:
    """What a client makes of each thing that can happen."""
    asks: list[Any] = [
        client.send(Poke("r", "a/b", 2), key="k"),
        client.send(Poke("r", "a/b", 2), key="k"),
        client.send(Poke("r", "a/b", 3), key="k"),
        client.send(Poke("r", "s", -1)),
        client.send(Poke("r", "s", 13)),
        client.send(Poke("r", "", 1)),
        client.send(Poke("r", "s", 1), correlation="\n"),
        client.send(Restock("tea", 1)),
        client.query("lab", "Shelves", "r/a%2Fb", at_least={"lab": 1}),
        client.query("lab", "Shelves", "r/none"),
        client.query("lab", "Nothing", "r"),
        client.query("lab", "Shelves", "r/a%2Fb", at_least={"lab": 999}, wait_seconds=0.05),
    ]
    found: list[Any] = []
    for ask in asks:
        try:
            one = await ask
        except HoldfastError as error:
            found.append((type(error), str(error) if isinstance(error, KeyReused) else ""))
            continue
        found.append((one.answer, one.position) if hasattr(one, "answer") else (one.row, one.positions, one.behind))
    return found


async def test_over_http_the_outcome_is_the_same() -> None:
    """Client.http and Client.of: the same events, rejections, errors, rows and positions."""
    async with site(lab_service) as at:
        client = Client.http({"lab": at.web.base})
        over_http = await outcomes_of(client)
        await client.close()
    async with site(lab_service) as at:
        running = Running(System([lab_service]), lambda: at.nodes)
        here = await outcomes_of(Client.of(running))
    assert over_http == here
    kinds = [one[0] for one in here]
    assert {KeyReused, CommandFailed, NotFound} <= {one for one in kinds if isinstance(one, type)}


async def test_pending_and_a_service_that_is_not_there() -> None:
    """Not known yet is Pending with its transaction; nobody at the URL is Unreachable, a bad key Invalid."""
    async with site(shop, only="order") as at:
        client = Client.http({"order": at.web.base, "stock": f"http://127.0.0.1:{free_ports(1)[0]}"})
        with pytest.raises(Pending) as caught:
            await client.run(checkout("o1"), key="k", wait_seconds=0.05)
        assert caught.value.tx
        with pytest.raises(Unreachable):
            await client.run(Restock("tea", 1))
        with pytest.raises(Invalid):
            await client.run(checkout("o1"), key="k" * 300)
        await client.close()


async def test_the_app_is_mounted_in_another() -> None:
    """Under a prefix of another ASGI app all works, and a Location leads back there."""
    async with site(lab_service) as at:

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            assert scope["path"].startswith("/api/")
            await at.app({**scope, "root_path": "/api"}, receive, send)

        async with listening(outer) as base:
            at.web.base = base
            done = await at.web.post("/api/commands/poke", {"room": "r", "shelf": "s"}, Prefer="respond-async")
            assert done.headers["location"].startswith("/api/transactions/")
            assert (await at.web.get(done.headers["location"])).json()["status"] == "accepted"
            assert (await at.web.get("/api/rooms/r/s")).json() == {"times": 1}
            (await at.web.get("/api/nothing")).problem(404)


async def test_a_taken_port_is_said() -> None:
    """Nobody can listen where another listens: one sentence."""
    async with site(lab_service) as at:
        port = int(at.web.base.rpartition(":")[2])
        with pytest.raises(ConfigInvalid, match=f"127.0.0.1:{port}"):
            async with listening(at.app, port):
                pass


async def test_a_stop_finishes_what_is_under_way() -> None:
    """A command that waits for its flush when the server stops gets its answer; later ones find nobody."""
    async with site(lab_service) as at, contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(listening(at.app))
        other = at.web.__class__(base, at.web.session)
        node = at.nodes["lab"]
        async with node.writer.paused():
            asked = asyncio.ensure_future(other.post("/commands/poke", {"room": "r", "shelf": "s"}))
            await asyncio.sleep(0.2)  # it waits for its flush now
            stopping = asyncio.ensure_future(stack.aclose())
            await asyncio.sleep(0.1)
            assert not stopping.done()
        assert (await asked).status == 200
        await stopping
        with pytest.raises(OSError, match="onnect"):
            await other.post("/commands/poke", {"room": "r", "shelf": "s"})
