"""Commands, views and routes of a service's own over real HTTP: good answers, and a problem for everything else."""

import asyncio
import logging
from typing import Any
from urllib.parse import quote

import pytest

from shop.services import shop
from support.http_services import LEAK, lab_service, site

CHECKOUT = {"order_id": "o1", "customer_id": "c1", "items": [{"sku": "tea", "quantity": 1, "price_cents": 300}]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def poke(room: str = "r", shelf: str = "s", times: int = 1, **more: Any) -> dict[str, Any]:
    return {"room": room, "shelf": shelf, "times": times, **more}


async def test_accepted_rejected_and_by_every_name() -> None:
    """A command is accepted with its event, or a 409 says why not; transaction and position come along."""
    async with site(lab_service) as at:
        for number, name in enumerate(("lab.poke.v1", "poke"), 1):
            done = await at.web.post(f"/commands/{name}", poke())
            assert done.json() == {"room": "r", "shelf": "s", "times": 1, "pin": ""}
            assert done.headers["holdfast-type"] == "lab.poked.v1"
            assert done.headers["holdfast-position"] == str(number)
            assert done.headers["x-correlation-id"] == done.headers["holdfast-transaction"]
        no = await at.web.post("/commands/poke", poke(times=-1), X_Correlation_Id="order 7")
        found = no.problem(409, "Rejected")
        assert (found["code"], found["facts"]) == ("negative", {"times": -1})
        assert no.headers["x-correlation-id"] == "order 7" and no.headers["holdfast-position"] == "3"
        assert (await at.web.post("/lab/commands/poke", poke())).status == 200, "also under its name"


async def test_what_is_wrong_is_said_with_its_path() -> None:
    """Bad input of every kind: the right status, the exact path, and nothing recorded."""
    async with site(lab_service) as at:
        send = at.web.ask
        found = (await at.web.post("/commands/poke", poke(times="x"))).problem(422, "Invalid")
        assert [row["path"] for row in found["errors"]] == ["$.times"]
        found = (await at.web.post("/commands/poke", {"room": "r"})).problem(422, "Invalid")
        assert "shelf" in found["detail"]
        for body in (b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000, b'{"room":"r","shelf":"s","times":1e400}'):
            (await send("POST", "/commands/poke", data=body, headers={"Content-Type": "application/json"})).problem(422)
        too_large = await send("POST", "/commands/poke", data=b" " * (1024 * 1024 + 1))
        assert too_large.status in (413, 415)
        json = {"Content-Type": "application/json"}
        (await send("POST", "/commands/poke", data=b" " * (1024 * 1024 + 1), headers=json)).problem(413)
        (await send("POST", "/commands/poke", data=b"a=b", headers={"Content-Type": "text/plain"})).problem(415)
        (await at.web.post("/commands/nothing", {})).problem(404, "NotFound")
        (await at.web.post("/commands/lab.poke.v9", poke())).problem(404)
        wrong = await at.web.get("/commands/poke")
        wrong.problem(405)
        assert wrong.headers["allow"] == "POST"
        (await at.web.get("/no/such/thing/at/all")).problem(404)
        (await at.web.post("/commands/poke", poke(), Idempotency_Key="k" * 201)).problem(422, "Invalid")
        (await at.web.post("/commands/poke", poke(), X_Correlation_Id="k" * 201)).problem(422, "Invalid")
        assert at.nodes["lab"].writer.head == 0


async def test_a_failing_handler_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What a handler or a route raises is in the log for us, and in no answer."""
    async with site(lab_service) as at:
        with caplog.at_level(logging.ERROR):
            (await at.web.post("/commands/poke", poke(times=13))).problem(500, "CommandFailed")
            (await at.web.ask("POST", "/rooms/r/7")).problem(500, "CommandFailed")
        assert caplog.text.count(LEAK) >= 2
        assert (await at.web.post("/commands/poke", poke())).status == 200


async def test_an_idempotency_key_gets_the_recorded_answer() -> None:
    """The same key: the same answer at the same position, also at once and also a no; other content is refused."""
    async with site(lab_service) as at:
        asked = [at.web.post("/commands/poke", poke(), Idempotency_Key="k1") for _ in range(20)]
        found = {(one.json()["times"], one.headers["holdfast-position"]) for one in await asyncio.gather(*asked)}
        assert found == {(1, "1")}
        again = await at.web.post("/commands/poke", poke(), Idempotency_Key="k1")
        assert again.headers["holdfast-position"] == "1" and at.nodes["lab"].writer.head == 1
        other = (await at.web.post("/commands/poke", poke(times=2), Idempotency_Key="k1")).problem(422, "KeyReused")
        assert (other["key"], other["field"]) == ("k1", "times")
        for _ in range(2):
            no = await at.web.post("/commands/poke", poke(times=-1), Idempotency_Key="k2")
            assert no.problem(409)["code"] == "negative" and no.headers["holdfast-position"] == "2"
        assert at.nodes["lab"].writer.head == 2


async def test_cloud_events_bring_key_label_and_trace() -> None:
    """Structured and binary mode: source and id are the key; correlation and trace context are taken over."""
    async with site(lab_service) as at:
        event = {
            "specversion": "1.0", "id": "e1", "source": "/robot", "type": "lab.poke.v1", "data": poke(),
            "correlation": "label", "traceparent": TRACE,
        }  # fmt: skip
        kind = {"Content-Type": "application/cloudevents+json"}
        for _ in range(2):
            done = await at.web.ask("POST", "/commands/poke", event, headers=kind)
            assert done.json()["times"] == 1 and done.headers["holdfast-position"] == "1"
            assert done.headers["x-correlation-id"] == "label"
        (record,) = (await at.nodes["lab"].store.read(0, 10)).records
        assert (record.correlation, record.headers.traceparent) == ("label", TRACE)
        (await at.web.ask("POST", "/commands/poke", event | {"type": "lab.errand.v1"}, headers=kind)).problem(422)
        (await at.web.ask("POST", "/commands/poke", {"id": "x"}, headers=kind)).problem(422)
        for _ in range(2):
            done = await at.web.post("/commands/poke", poke(), ce_id="e2", ce_source="/robot", ce_correlation="two")
            assert done.headers["holdfast-position"] == "2" and done.headers["x-correlation-id"] == "two"


async def test_respond_async_and_the_transaction() -> None:
    """A 202 with a Location at once; there it is pending, then accepted or rejected, as recorded."""
    async with site(shop) as at:
        await at.web.post("/stock/commands/restock", {"sku": "tea", "quantity": 1})
        for number, status in ((1, "accepted"), (2, "rejected")):
            body = CHECKOUT | {"order_id": f"o{number}"}
            begun = await at.web.post("/order/commands/checkout", body, Prefer="respond-async")
            assert begun.json(202)["status"] in ("pending", status)
            where = begun.headers["location"]
            assert where == f"/order/transactions/{begun.headers['holdfast-transaction']}"
            async with asyncio.timeout(5):
                while (found := (await at.web.get(where)).json())["status"] == "pending":  # noqa: ASYNC110 - asked, not told
                    await asyncio.sleep(0.01)
            assert found["status"] == status and found["position"] > 0
            assert found["type"] == ("order.checked_out.v1" if number == 1 else "holdfast.rejected")
        done = await at.web.post("/stock/commands/restock", {"sku": "tea", "quantity": 1}, Prefer="respond-async")
        assert done.status == 202
        (await at.web.get("/order/transactions/nothing")).problem(404)
        (await at.web.get(where.replace("/order/", "/stock/"))).problem(404)


async def test_a_saga_that_takes_its_time_is_a_504() -> None:
    """Not known yet: the transaction to ask for; the same key waits for the same saga."""
    async with site(shop, only="order") as at:
        late = await at.web.post("/commands/checkout", CHECKOUT, Prefer="wait=0.05", Idempotency_Key="k")
        tx = late.problem(504, "Pending")["transaction"]
        assert late.headers["holdfast-transaction"] == tx
        again = await at.web.post("/commands/checkout", CHECKOUT, Prefer="wait=0", Idempotency_Key="k")
        assert again.problem(504, "Pending")["transaction"] == tx
        assert (await at.web.get(f"/transactions/{tx}")).json() == {"transaction": tx, "status": "pending"}


async def test_too_much_is_a_503_that_says_when() -> None:
    """Where too much waits already the answer is 503 with Retry-After, and nothing is recorded (back-pressure)."""
    async with site(lab_service) as at:
        node = at.nodes["lab"]
        node.edge.sagas_open_max = 0
        busy = await at.web.post("/commands/errand", {"room": "r", "shelf": "s"})
        busy.problem(503, "Busy")
        assert int(busy.headers["retry-after"]) >= 1
        node.writer._inbox_max = 8  # pyright: ignore[reportPrivateUsage]
        async with node.writer.paused():
            asked = [asyncio.ensure_future(at.web.post("/commands/poke", poke())) for _ in range(2000)]
            done, _ = await asyncio.wait(asked, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            assert done, "nobody was told to come back later"
            for one in done:
                one.result().problem(503, "Busy")
        found = [(await one).status for one in asked]
        assert set(found) == {200, 503} and node.writer.head == found.count(200)
        await node.close()
        stopped = await at.web.post("/commands/poke", poke())
        stopped.problem(503)
        (await at.web.get("/readyz")).problem(503)
        assert (await at.web.get("/healthz")).status == 200


async def test_the_debug_flag_and_the_trace_reach_every_record() -> None:
    """debug-log-enabled, label and trace context stand on every record in every service that follows."""
    async with site(shop) as at:
        await at.web.post("/stock/commands/restock", {"sku": "tea", "quantity": 1})
        more = {"debug_log_enabled": "true", "X_Correlation_Id": "label", "traceparent": TRACE}
        done = await at.web.post("/order/orders/o1/checkout", CHECKOUT, **more)
        tx = done.headers["holdfast-transaction"]
        assert done.json() == {"order_id": "o1", "amount_cents": 300}
        for node in at.nodes.values():
            records = await node.records_of(tx=tx)
            assert records
            for record in records:
                assert (record.correlation, record.headers.debug, record.headers.traceparent) == ("label", True, TRACE)
        plain = await at.web.post("/stock/commands/restock", {"sku": "tea", "quantity": 1}, traceparent="rubbish")
        (record,) = await at.nodes["stock"].records_of(tx=plain.headers["holdfast-transaction"])
        assert (record.headers.debug, record.headers.traceparent) == (False, "")


async def test_an_event_may_belong_to_several_rows() -> None:
    """A key function that returns a list names several rows, each once; a route shapes what it shows of a row."""
    async with site(lab_service) as at:
        for room, shelf in (("r", "a"), ("r", "b"), ("t", "a")):
            position = (await at.web.post("/commands/poke", poke(room, shelf, 2))).headers["holdfast-position"]
        await at.web.get(f"/views/Totals/all?at_least=lab@{position}")
        assert (await at.web.get("/totals/all")).json() == ["all", 6]
        assert (await at.web.get("/totals/r")).json() == ["r", 4]
        assert (await at.web.get("/views/Totals/r/b")).json() == {"name": "r/b", "times": 2}
        (await at.web.get("/totals/none")).problem(404)
        (await at.web.get("/broken/all")).problem(500)


async def test_a_key_that_no_store_could_hold_is_refused() -> None:
    """A NUL, or more bytes than an index takes, is a 422 that says so; nothing is recorded."""
    async with site(lab_service) as at:
        for room, wrong in (("a\0b", "NUL"), ("é" * 350, "700"), ("k" * 699, "700")):
            assert wrong in (await at.web.post("/commands/poke", poke(room))).problem(422, "Invalid")["detail"]
        assert (await at.web.post("/commands/poke", poke("é" * 349))).status == 200
        assert (await at.web.get("/ops/progress")).json()["head"] == 1


async def test_a_route_may_bring_the_key_along() -> None:
    """`Keyed` makes a part of the path the idempotency key; a header goes before it."""
    async with site(lab_service) as at:
        first = [await at.web.ask("PATCH", "/once/t1") for _ in range(3)]
        assert {one.headers["holdfast-position"] for one in first} == {"1"}
        other = await at.web.ask("PATCH", "/once/t1", headers={"Idempotency-Key": "mine"})
        assert other.headers["holdfast-position"] == "2"
        (await at.web.ask("PATCH", f"/once/{'t' * 201}")).problem(422, "Invalid")


async def test_a_route_may_sweep_every_aggregate() -> None:
    """`Every` runs one recorded command on each aggregate of a type, whatever its key; the same idempotency key
    sweeps once; where one command fails the sweep ends with what it failed of."""
    async with site(lab_service) as at:
        keys = [("r", "a"), ("r/1", "%2F"), *((f"r{number}", "b") for number in range(700))]
        for room, shelf in keys:
            await at.web.post("/commands/poke", poke(room, shelf, 2))
        assert (await at.web.ask("POST", "/everything/3")).json() == {"accepted": 702, "rejected": 0}
        (await at.web.ask("POST", "/everything/13")).problem(500, "CommandFailed")
        for _ in range(2):
            done = await at.web.ask("POST", "/everything/5", headers={"Idempotency-Key": "once"})
            assert done.json() == {"accepted": 702, "rejected": 0}
        assert (await at.web.ask("POST", "/everything/-1")).json() == {"accepted": 0, "rejected": 702}
        for room, shelf in keys[:3]:
            found = (await at.web.get(f"/ops/aggregates/Shelf/{quote(room, safe='')}/{quote(shelf, safe='')}")).json()
            assert found["state"]["times"] == 10
        (await at.web.ask("POST", "/everything/many")).problem(422, "Invalid")
        (await at.web.ask("POST", "/everything/1", headers={"Idempotency-Key": "k" * 190})).problem(422, "Invalid")


async def test_own_routes_and_views() -> None:
    """A service's own routes convert and check; a view answers by a composite key, and waits for a position."""
    async with site(lab_service) as at:
        done = await at.web.ask("POST", "/rooms/r%2F1/2")
        assert done.json()["room"] == "r/1"
        position = done.headers["holdfast-position"]
        row = await at.web.get(f"/views/Shelves/r%2F1/a?at_least=lab@{position}")
        assert row.json() == {"times": 2} and row.headers["holdfast-behind"] == "false"
        assert row.headers["holdfast-positions"] == f"lab@{position}"
        assert (await at.web.get("/rooms/r%2F1/a")).json() == {"times": 2}
        assert (await at.web.ask("HEAD", "/rooms/r%2F1/a")).body == b""
        assert (await at.web.ask("PUT", "/rooms/r", poke())).json()["times"] == 1
        (await at.web.ask("PUT", "/rooms/r", {"room": 1})).problem(422, "Invalid")
        (await at.web.ask("POST", "/rooms/r/many")).problem(422, "Invalid")
        no = await at.web.get("/rooms/r/none")
        no.problem(404, "NotFound")
        assert "holdfast-positions" in no.headers
        behind = await at.web.get("/views/Shelves/r/s?at_least=lab@999&wait=0.05")
        assert behind.headers["holdfast-behind"] == "true"
        (await at.web.get("/views/Nothing/r")).problem(404)
        for bad in ("at_least=lab", "at_least=lab@-1", "at_least=lab@9999999999999999999999", "wait=x", "wait=nan"):
            (await at.web.get(f"/views/Shelves/r/s?{bad}")).problem(422, "Invalid")
