"""Services composed in a process of somebody else's: a full member of a system of many processes (G3, G9)."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast import Client, asgi_app, start
from holdfast.config import ServiceSettings, Settings
from holdfast.errors import ConfigInvalid, NotFound
from holdfast.web.serve import serve
from shop.contracts import CheckedOut, Checkout, Item, Restock
from shop.services import shop
from support.http_services import free_ports, until

SECRET = "a secret that is long enough"
EMBEDDED = "order"
"""The service that lives in the test's own process; the others run by `holdfast run`."""


class Mount:
    """Somebody's ASGI app, with ours below `/holdfast` and a route of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/holdfast/"):
            inner = dict(scope, root_path=scope.get("root_path", "") + "/holdfast")
            await self.inner(inner, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"theirs"})


@dataclasses.dataclass
class Place:
    """Where everything is."""

    folder: Path
    urls: dict[str, str]

    def settings(self, **more: Any) -> Settings:
        """The settings of each process."""
        services = {name: ServiceSettings(url=url) for name, url in self.urls.items()}
        found: dict[str, Any] = {"store": f"sqlite:{self.folder}/", "secret": SECRET, "services": services}
        return Settings(**(found | more))


@contextlib.asynccontextmanager
async def served(app: Any, url: str) -> AsyncGenerator[None]:
    """An app behind a server of its own, as in somebody's process."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    port = int(url.split(":")[2].partition("/")[0])
    serving = asyncio.ensure_future(serve(app, host="127.0.0.1", port=port, ready=ready.set_result))
    await asyncio.wait([ready, serving], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A port for each service; the embedded one is below a prefix."""
    ports = dict(zip(shop.services, free_ports(len(shop.services)), strict=True))
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    urls[EMBEDDED] += f"/holdfast/{EMBEDDED}"
    return Place(tmp_path, urls)


def run(place: Place, service: str) -> subprocess.Popen[bytes]:
    """`holdfast run` of one service in a process of its own."""
    lines = [f'store = "sqlite:{place.folder}/"', f'secret = "{SECRET}"']
    lines += [f'[services.{name}]\nurl = "{url}"' for name, url in place.urls.items()]
    config = place.folder / "holdfast.toml"
    config.write_text("\n".join(lines), "utf-8")
    command = [sys.executable, "-m", "holdfast.cli", "run", "shop.services:shop", "--service", service]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([*command, "--config", str(config)], env=environ, stdout=subprocess.DEVNULL)


def listens(url: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.split(":")[2].partition("/")[0]))) == 0


async def test_an_embedded_service_is_a_full_member(place: Place) -> None:
    """G3, G9: a service in somebody's process, below a prefix of their app, sells with services that run by themselves:
    it reaches them by URL, they reach it, signed; its client reaches all of them; its view tells what happened."""
    others = [name for name in shop.services if name != EMBEDDED]
    processes = [run(place, name) for name in others]
    try:
        running = start(shop, services=[EMBEDDED], settings=place.settings())
        async with running, served(Mount(asgi_app(running)), place.urls[EMBEDDED]), aiohttp.ClientSession() as web:
            await until(lambda: all(listens(place.urls[name]) for name in others), seconds=20)
            client = Client.of(running)
            await client.run(Restock("tea", 9))
            sold = await client.run(Checkout("o1", "c1", (Item("tea", 2, 250),)), wait_seconds=20)
            assert isinstance(sold, CheckedOut)
            assert list(running.nodes) == [EMBEDDED]
            base = place.urls[EMBEDDED].partition("/holdfast")[0]
            async with web.get(base + "/theirs") as answer:
                assert await answer.read() == b"theirs"
            async with web.get(place.urls[EMBEDDED] + "/ops/progress") as answer:
                assert answer.status == 401, "what the secret guards is guarded below a prefix too"
            await client.close()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ends = [process.wait(20) for process in processes]
    assert ends == [0] * len(others)


async def test_what_runs_can_be_started_again(place: Place) -> None:
    """G8: services that were closed are started again on what their stores hold; the app speaks for them."""
    settings = place.settings(services={}, secret="")
    running = start(shop, settings=settings)
    app = asgi_app(running)
    client = Client.of(running)
    for number in range(3):
        async with running:
            await client.run(Restock("tea", 1), key=f"n{number}")
            assert running.progress("stock").head == number + 1
            sent: list[Any] = []
            await app({"type": "http", "method": "GET", "path": "/stock/readyz", "raw_path": b"/stock/readyz",
                       "query_string": b"", "headers": [], "root_path": ""}, _nothing, _keep(sent))  # fmt: skip
            assert sent[0]["status"] == 200, sent


async def _nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def _keep(sent: list[Any]) -> Any:
    async def send(message: Any) -> None:
        sent.append(message)

    return send


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"services": ["till"]}, "no service 'till'"),
        ({"services": ["stock"], "settings": Settings(store="memory:")}, "services.order.url is not set"),
        ({"stores": {"till": "memory:"}}, "stores names 'till'"),
        ({"settings": Settings(secret="short")}, "secret: takes 16 characters or more"),
        ({"settings": Settings(snapshot_every=0)}, "snapshot_every: must be 1 or more"),
    ],
)
def test_what_cannot_be_put_together_is_refused(how: dict[str, Any], says: str) -> None:
    """G10: a sentence that names the setting, before anything is opened."""
    with pytest.raises(ConfigInvalid, match=says):
        start(shop, **how)


async def test_settings_are_those_of_the_command_line(place: Place) -> None:
    """Snapshots and the bound of streams in memory reach the services; stores that are given go before the settings."""
    settings = place.settings(services={}, secret="", snapshot_every=2, streams_in_memory_max=1)
    async with start(shop, settings=settings, stores={"stock": "memory:"}) as running:
        client = Client.of(running)
        for sku in ("a", "b", "a", "a"):
            await client.run(Restock(sku, 1))
        stock = running.nodes["stock"]
        await until(lambda: len(stock.streams) <= 1)
        (loaded,) = await stock.store.load(["StockItem/a"])
        assert loaded.snapshot is not None and loaded.snapshot.version == 2
        assert not (place.folder / "stock.sqlite").exists() and (place.folder / "order.sqlite").exists()


async def test_a_client_says_whom_it_cannot_reach() -> None:
    """G10: a service that runs elsewhere, and of which no URL is known, is named."""
    async with start(shop.services["order"], store="memory:") as running:
        with pytest.raises(NotFound, match="'stock' does not run in this process, and its URL is not known"):
            await Client.of(running).run(Restock("tea", 1))


async def test_a_service_that_drains_says_so_and_still_works() -> None:
    """G13: from SIGTERM on `/readyz` is 503, while what comes is still taken, and what is under way ends."""
    async with start(shop, store="memory:") as running:
        app = asgi_app(running)
        port = free_ports(1)[0]
        async with served(app, f"http://127.0.0.1:{port}"), aiohttp.ClientSession() as web:
            base = f"http://127.0.0.1:{port}/stock"
            async with web.get(base + "/readyz") as answer:
                assert answer.status == 200
            app.stop()
            async with web.get(base + "/readyz") as answer:
                assert answer.status == 503
            async with web.get(base + "/healthz") as answer:
                assert answer.status == 200
            async with web.post(base + "/commands/restock", json={"sku": "tea", "quantity": 1}) as answer:
                assert answer.status == 200, await answer.text()
            began = time.monotonic()
            async with web.get(base + "/events?wait=20&after=1") as answer:
                assert answer.status == 503 and time.monotonic() - began < 5, "nobody is kept waiting for news"
