"""The feed and the exchange over real HTTP: pages, long-polls, server-sent events, and what happens to rubbish."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import Headers, Record
from holdfast.core.wire.cloudevent import from_batch, to_batch
from holdfast.core.wire.frame import Frame, WireRecord, encode_frame
from holdfast.errors import Garbled
from shop.services import shop
from support.http_services import Site, Web, lab_service, site, until


async def poked(web: Web, count: int) -> None:
    """Events in the lab's log."""
    for number in range(count):
        await web.post("/commands/poke", {"room": "r", "shelf": "s", "times": number})


async def test_pages_follow_one_another() -> None:
    """Every event once and in order by `upto`, a CloudEvents batch each; a filter skips and still comes on (G9)."""
    async with site(lab_service) as at:
        await poked(at.web, 7)
        await at.web.post("/commands/poke", {"room": "r", "shelf": "s", "times": -1})
        after, times, pages = 0, [], 0
        while True:
            page = await at.web.get(f"/events?after={after}&limit=3")
            assert page.headers["content-type"].startswith("application/cloudevents-batch+json")
            assert page.headers["holdfast-head"] == "8"
            after, pages = int(page.headers["holdfast-upto"]), pages + 1
            times += [event["data"]["times"] for event in page.json()]
            if not page.json():
                break
        assert times == list(range(7)) and after == 8 and pages == 4
        first = (await at.web.get("/events?limit=1")).json()[0]
        assert (first["specversion"], first["id"], first["source"], first["type"], first["subject"]) == (
            "1.0", "lab@1", "/lab", "lab.poked.v1", "Shelf/r/s",
        )  # fmt: skip
        assert first["streamversion"] == 1 and first["transaction"] == first["cause"] and first["time"].endswith("Z")
        none = await at.web.get("/events?types=lab.other.v1,lab.third.v1")
        assert none.json() == [] and none.headers["holdfast-upto"] == "8"
        for bad in ("after=-1", "after=x", "limit=1.5", "wait=soon", f"after={'9' * 19}"):
            (await at.web.get(f"/events?{bad}")).problem(422, "Invalid")


async def test_a_long_poll_is_woken_by_a_commit() -> None:
    """A reader that waits gets the event when it is durable; one for whom nothing comes gets an empty page in time."""
    async with site(lab_service) as at:
        waiting = asyncio.ensure_future(at.web.get("/events?after=0&wait=20"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await poked(at.web, 1)
        async with asyncio.timeout(3):
            assert len((await waiting).json()) == 1
        assert (await at.web.get("/events?after=1&wait=0.05")).json() == []


async def test_a_checkpoint_of_another_log_is_refused() -> None:
    """A position past the end, or of an incarnation that wrote nothing there, is Forked: never a silent gap."""
    async with site(lab_service) as at:
        await poked(at.web, 2)
        known = (await at.web.get("/events?after=2")).headers["holdfast-incarnation"]
        assert (await at.web.get(f"/events?after=2&incarnation={known}")).status == 200
        (await at.web.get("/events?after=3")).problem(409, "Forked")
        (await at.web.get("/events?after=1&incarnation=other")).problem(409, "Forked")


async def lines(at: Site, path: str, count: int, **headers: str) -> list[tuple[str, Any]]:
    """(id, event) of the first server-sent events."""
    found: list[tuple[str, Any]] = []
    named = {"Accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with asyncio.timeout(10), at.web.session.get(at.web.base + path, headers=named) as answer:
        assert answer.status == 200 and answer.headers["content-type"] == "text/event-stream"
        number = ""
        async for line in answer.content:
            if line.startswith(b"id: "):
                number = line[4:].decode().strip()
            elif line.startswith(b"data: "):
                found.append((number, msgspec.json.decode(line[6:])))
                if len(found) == count:
                    break
    return found


async def test_server_sent_events_go_on_where_they_were() -> None:
    """Events as they come, the position as id; `Last-Event-ID` goes on behind it; nothing stays when one leaves."""
    async with site(lab_service) as at:
        await poked(at.web, 3)
        tasks = len(asyncio.all_tasks())
        first = await lines(at, "/events", 2)
        assert [number for number, _ in first] == ["1", "2"]
        reading = asyncio.ensure_future(lines(at, "/events?after=1", 4, Last_Event_ID="2"))
        await asyncio.sleep(0.1)
        await poked(at.web, 3)
        rest = await reading
        assert [number for number, _ in rest] == ["3", "4", "5", "6"]
        assert [event["data"]["times"] for _, event in rest] == [2, 0, 1, 2]
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 1)


async def test_who_waits_is_answered_when_the_server_stops() -> None:
    """At a stop a long-poll gets its page and a stream ends at once, well within the time a stop may take."""
    async with site(lab_service) as at:
        polling = asyncio.ensure_future(at.web.get("/events?wait=20"))
        streaming = asyncio.ensure_future(lines(at, "/events", 1))
        await asyncio.sleep(0.2)
        at.app.stop()
        async with asyncio.timeout(2):
            assert (await polling).json() == [] and await streaming == []


def frame(**more: Any) -> Frame:
    """A frame as stock would send it to order."""
    start: dict[str, Any] = {
        "sender": "stock", "receiver": "order", "incarnation": "i", "first": 1, "after": 0, "upto": 0,
        "ack": Cursor("", 0), "have": 0,
    }  # fmt: skip
    return Frame(**(start | more))


def wire(position: int) -> WireRecord:
    """A record that nobody waits for."""
    return WireRecord(position, "event", "stock.reserved.v1", msgspec.Raw(b"{}"), "t", "c", 1)


GARBAGE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "Garbled"),
    "no json": (b"\x00\xff{", "Garbled"),
    "no object": (b"[1]", "Garbled"),
    "deep": (b'{"a":' * 50_000, "Garbled"),
    "no frame": (b'{"protocol":1}', "Garbled"),
    "other protocol": (encode_frame(frame(protocol=2)), "ProtocolMismatch"),
    "no protocol": (b"{}", "ProtocolMismatch"),
    "protocol not said": (encode_frame(frame()).replace(b',"protocol":1', b""), "ProtocolMismatch"),
    "for another": (encode_frame(frame(receiver="payment")), "Misdirected"),
    "from a stranger": (encode_frame(frame(sender="stranger")), "Misdirected"),
    "from itself": (encode_frame(frame(sender="order")), "Misdirected"),
    "backwards": (encode_frame(frame(after=5, upto=2)), "Garbled"),
    "negative": (encode_frame(frame(after=-1)), "Garbled"),
    "out of order": (encode_frame(frame(upto=3, records=(wire(2), wire(1)))), "Garbled"),
    "past its end": (encode_frame(frame(upto=1, records=(wire(2),))), "Garbled"),
    "a gap": (encode_frame(frame(first=901, after=900, upto=901, records=(wire(901),))), "Gap"),
    "from the future": (encode_frame(frame(ack=Cursor("i", 10**6))), "Forked"),
}


async def test_rubbish_on_the_wire_harms_nothing() -> None:
    """Whatever comes to /exchange: a named problem, nothing in the log, and the conversations go on (G11)."""
    async with site(shop) as at:
        await at.web.post("/stock/commands/restock", {"sku": "tea", "quantity": 2})
        for number in range(2):
            for what, (data, name) in GARBAGE.items():
                before = at.nodes["order"].writer.head
                reply = await at.web.ask(
                    "POST", "/order/exchange", data=data, headers={"Content-Type": "application/json"}
                )
                assert 400 <= reply.status < 500, (number, what)
                assert reply.problem(reply.status)["type"].endswith(f"/{name}"), (what, reply.body)
                assert at.nodes["order"].writer.head == before, what
            body = {
                "order_id": f"o{number}", "customer_id": "c",
                "items": [{"sku": "tea", "quantity": 1, "price_cents": 1}],
            }  # fmt: skip
            done = await at.web.post("/order/commands/checkout", body, Prefer="wait=5")
            assert done.json()["amount_cents"] == 1


texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(0, 2**53)
records = st.builds(
    Record,
    st.integers(1, 2**62), st.just("event"), texts, st.sampled_from([b"{}", b'{"a":[1,"x",null]}', b"[]", b'""']),
    texts, texts, st.integers(0, 4 * 10**15), texts, texts, numbers, texts,
    st.builds(
        Headers, st.integers(0, 9), st.booleans(), texts, st.just(""), texts, st.booleans(),
    ),
)  # fmt: skip


@given(st.lists(records, max_size=5))
def test_cloud_events_lose_nothing(found: list[Record]) -> None:
    """To a batch and back: the same records."""
    assert from_batch("lab", to_batch("lab", found)) == tuple(found)


@given(st.binary(max_size=60) | st.sampled_from([b"[{}]", b'[{"specversion":"1.0"}]', b"[" * 9999]))
def test_what_is_no_batch_is_garbled(data: bytes) -> None:
    """Any bytes that are no batch are Garbled, nothing else."""
    if data.strip() == b"[]":
        return
    with pytest.raises(Garbled):
        from_batch("lab", data)
