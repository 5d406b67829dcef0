"""Trust and /ops over real HTTP: who may ask what, what is masked, and that secrets stay secret."""

import asyncio
import logging
import time
from typing import Any

import pytest

from holdfast import Client
from holdfast.config import Settings
from holdfast.core.explain.overview import AggregateList, AggregateStatus, LogPage
from holdfast.core.wire.signature import sign
from holdfast.errors import Unauthorized, Unreachable
from holdfast.operator.client import get, pages
from shop.contracts import Checkout, Item, Restock
from shop.services import shop
from support.http_services import Far, lab_service, site

SECRET, TOKEN, CARD = "a secret of services", "a token of operators", "4111222233334444"
CHECKOUT: dict[str, Any] = {
    "order_id": "o1", "customer_id": "c1", "card_number": CARD,
    "items": [{"sku": "tea", "quantity": 1, "price_cents": 300}],
}  # fmt: skip
GUARDED = ("/events", "/ops/trail?tx=x", "/ops/log", "/ops/progress", "/ops/sagas", "/ops/aggregates/Shelf")


def signed(method: str, path: str, body: bytes = b"", *, secret: str = SECRET, age: int = 0) -> dict[str, str]:
    """The header of a request."""
    return {"Holdfast-Signature": sign(secret, method, path, body, int(time.time()) - age)}


async def test_only_who_knows_the_secret_is_served(caplog: pytest.LogCaptureFixture) -> None:
    """Feeds, exchange and /ops want a fresh signature of exactly this request; commands and health do not (Trust)."""
    with caplog.at_level(logging.DEBUG):
        async with site(lab_service, secret=SECRET, operator_token=TOKEN) as at:
            assert (await at.web.post("/commands/poke", {"room": "r", "shelf": "s"})).status == 200
            assert (await at.web.get("/healthz")).status == 200 and (await at.web.get("/metrics")).status == 200
            for path in GUARDED:
                good = await at.web.ask("GET", path, headers=signed("GET", path))
                assert good.status == 200, (path, good.body)
                for bad in (
                    {}, {"Holdfast-Signature": "rubbish"}, {"Holdfast-Signature": "t=1,v1=00"},
                    signed("GET", path, secret="another secret 12"), signed("GET", path, age=400),
                    signed("GET", path, age=-400), signed("POST", path), signed("GET", path + "x"),
                    signed("GET", path, b"x"), {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
                ):  # fmt: skip
                    reply = await at.web.ask("GET", path, headers=bad)
                    reply.problem(401, "Unauthorized")
                    assert "www-authenticate" in reply.headers
                if path.startswith("/ops"):
                    operator = await at.web.get(path, Authorization=f"Bearer {TOKEN}")
                    assert operator.status == 200
            (await at.web.ask("POST", "/exchange", {}, headers=signed("POST", "/exchange", b"[]"))).problem(401)
            prefixed = "/lab/events?after=0"
            assert (await at.web.ask("GET", prefixed, headers=signed("GET", prefixed))).status == 200
    assert SECRET not in caplog.text and TOKEN not in caplog.text


async def test_writes_under_ops_want_the_operator() -> None:
    """A repair or a rebuild is refused without the operator's token: also to peers, also where none is configured."""
    repair = {"kind": "peer_restored", "by": "ann", "why": "disk", "peer": "nobody"}
    for secret, token in (("", ""), (SECRET, ""), (SECRET, TOKEN), ("", TOKEN)):
        async with site(lab_service, secret=secret, operator_token=token) as at:
            body = b'{"kind":"peer_restored","by":"ann","why":"disk","peer":"nobody"}'
            for headers in ({}, signed("POST", "/ops/repairs", body), {"Authorization": "Bearer "}):
                (await at.web.ask("POST", "/ops/repairs", repair, headers=headers)).problem(401)
                (await at.web.ask("POST", "/ops/views/Shelves/rebuild", headers=headers)).problem(401)
            if token:
                bearer = {"Authorization": f"Bearer {token}"}
                (await at.web.ask("POST", "/ops/repairs", repair, headers=bearer)).problem(404)
                (await at.web.ask("POST", "/ops/repairs", {"kind": "x"}, headers=bearer)).problem(422, "Invalid")
                (await at.web.ask("POST", "/ops/repairs", data=b"{", headers=bearer)).problem(415)
                built = await at.web.ask("POST", "/ops/views/Shelves/rebuild", headers=bearer)
                assert built.json(202)["view"] == "Shelves"
                (await at.web.ask("POST", "/ops/views/Nothing/rebuild", headers=bearer)).problem(404)


async def test_peers_with_one_secret_work_and_with_two_do_not() -> None:
    """Services that share a secret settle a saga over signed exchange; one with another secret is not believed."""
    async with Far(shop, secret=SECRET) as far:
        client = Client.http(far.urls)
        await client.run(Restock("tea", 1))
        assert (await client.run(Checkout("o1", "c1", (Item("tea", 1, 300),)))).amount_cents == 300
        await client.close()
    async with Far(shop, secret=SECRET, secrets={"stock": "another secret 12"}) as far:
        client = Client.http(far.urls)
        tx = (await client.send(Restock("tea", 1))).tx
        assert tx
        waiting = asyncio.ensure_future(client.send(Checkout("o1", "c1", (Item("tea", 1, 300),)), wait_seconds=1))
        await asyncio.wait([waiting])
        assert "Pending" in repr(waiting.exception())
        assert far.nodes["order"].conversations is not None
        failure = far.nodes["order"].conversations.conversations["stock"].failure
        assert isinstance(failure, Unauthorized | Unreachable), failure
        assert far.nodes["stock"].writer.head == 1, "an exchange of somebody who does not know the secret was applied"
        await client.close()


async def test_the_command_line_signs_what_it_asks() -> None:
    """operator.client's requests are good under a prefix too, with the secret or the operator's token; not without."""
    async with site(lab_service, secret=SECRET, operator_token=TOKEN) as at:
        await at.web.post("/commands/poke", {"room": "r", "shelf": "s"})
        for url in (at.web.base, f"{at.web.base}/lab"):
            for settings in (Settings(secret=SECRET), Settings(operator_token=TOKEN)):
                path = "/ops/aggregates/Shelf"
                found = await asyncio.to_thread(get, url, f"{path}/r/s", {"at": 1}, settings, AggregateStatus)
                assert found.version == 1
                listed = await asyncio.to_thread(list, pages(url, path, {}, settings, AggregateList))
                assert [item.key for page in listed for item in page.items] == ["r/s"]
            with pytest.raises(Unauthorized):
                await asyncio.to_thread(get, url, "/ops/log", {}, Settings(), LogPage)


async def test_ops_shows_everything_but_what_is_sensitive() -> None:
    """Trail, log, sagas and aggregates of a checkout: all there, the card number nowhere."""
    async with site(shop) as at:
        await at.web.post("/stock/commands/restock", {"sku": "tea", "quantity": 1})
        done = await at.web.post("/order/commands/checkout", CHECKOUT, X_Correlation_Id="label")
        tx = done.headers["holdfast-transaction"]
        (await at.web.post("/order/commands/checkout", CHECKOUT | {"order_id": "o2"})).problem(409)
        for service in shop.services:
            log = await at.web.get(f"/{service}/ops/log?limit=1000")
            assert CARD not in log.body.decode() and log.json()["records"]
            for asked in (f"tx={tx}", "correlation=label"):
                trail = await at.web.get(f"/{service}/ops/trail?{asked}")
                assert trail.json()["records"] and trail.json()["complete"] and CARD not in trail.body.decode()
            (await at.web.get(f"/{service}/ops/trail")).problem(422)
            (await at.web.get(f"/{service}/ops/trail?tx=a&stream=b")).problem(422)
        assert '"***"' in (await at.web.get("/order/ops/log?limit=1000")).body.decode()
        saga = await at.web.get(f"/order/ops/sagas/CheckoutSaga/{tx}")
        found = saga.json()
        assert found["status"] == "completed" and found["message"]["data"]["card_number"] == "***"
        assert [step["step"] for step in found["steps"]] == ["place", "reserve", "charge", "confirm", "ship"]
        assert CARD not in saga.body.decode()
        assert (await at.web.get("/order/ops/sagas")).json() == {"items": [], "next": None}
        (await at.web.get("/order/ops/sagas?status=happy")).problem(422)
        (await at.web.get("/order/ops/sagas/CheckoutSaga/none")).problem(404)
        (await at.web.get("/order/ops/sagas/None/none")).problem(404)
        progress = (await at.web.get("/order/ops/progress")).json()
        assert set(progress["exchange"]) == {"stock", "payment", "shipping"} and progress["sagas_open"] == 0


async def test_aggregates_by_page_and_at_a_position() -> None:
    """Aggregates are listed by key in pages; one is shown as it is and as it was."""
    async with site(lab_service) as at:
        for number in range(5):
            for times in (1, 2):
                body = {"room": f"r{number}", "shelf": "a/b", "times": times, "pin": CARD}
                await at.web.post("/commands/poke", body)
        keys, after = [], ""
        while True:
            page = (await at.web.get(f"/ops/aggregates/Shelf?limit=2&after={after}")).json()
            keys += [item["key"] for item in page["items"]]
            assert all(item["state"] == {"times": 3, "pin": "***"} for item in page["items"])
            if not page["next"]:
                break
            after = page["next"].replace("%", "%25")
        assert keys == [f"r{number}/a%2Fb" for number in range(5)]
        now = (await at.web.get("/ops/aggregates/Shelf/r0/a%2Fb")).json()
        assert (now["version"], now["state"]["times"], now["at"]) == (2, 3, 10)
        then = (await at.web.get("/ops/aggregates/Shelf/r0/a%2Fb?at=1")).json()
        assert (then["version"], then["state"]["times"], then["at"]) == (1, 1, 1)
        (await at.web.get("/ops/aggregates/Shelf/r1/a%2Fb?at=1")).problem(404)
        (await at.web.get("/ops/aggregates/Shelf/r1/a%2Fb?at=99")).problem(422)
        (await at.web.get("/ops/aggregates/None/r1")).problem(404)
        log = (await at.web.get("/ops/log?after=4&limit=3")).json()
        assert [record["position"] for record in log["records"]] == [5, 6, 7] and log["head"] == 10
