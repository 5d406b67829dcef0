"""Stores and frames that an earlier release wrote are read, believed and gone on from (see `recorded/`)."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recorded import bazaar
from recorded.reading import ALL, Open, decode_frame, decode_stored, encode_frame, loaded, logged, rows, said

RECORDED = Path(__file__).parent
SAID = json.loads((RECORDED / "bazaar.json").read_text("utf-8"))
WIRE = json.loads((RECORDED / "wire.json").read_text("utf-8"))
CONTRACTS = {one.name: one for one in (bazaar.counter, bazaar.stall, bazaar.till, bazaar.bank)}


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    """A folder with a copy of every store that was recorded."""
    for name in ALL:
        loaded((RECORDED / f"bazaar-{name}.sql").read_text("utf-8"), tmp_path / f"{name}.sqlite")
    return tmp_path


@pytest.mark.parametrize("service", ALL)
async def test_a_store_says_what_it_said(service: str, stores: Path) -> None:
    """G7, G12: opened alone, so that nothing goes on, every answer of an operator's is the one that was recorded: log,
    trail, why, stuck, parked and waiting, holds, sagas, aggregates, views, events; and no stored row has changed."""
    before = rows(stores / f"{service}.sqlite")
    async with Open(stores, service) as opened:
        found = await said(opened, service)
    for name, one in SAID[service].items():
        assert found[name] == one, name
    assert set(found) == set(SAID[service]) and rows(stores / f"{service}.sqlite") == before


def test_what_was_recorded_has_everything_in_it() -> None:
    """The recordings are worth reading: each kind of record and each state that something can hang in is there."""
    kinds = {one["kind"] for service in ALL for one in SAID[service]["log"]}
    assert kinds == {"event", "command", "answer", "saga", "effect", "repair"}
    assert [one["status"] for one in SAID["counter"]["sagas"]["items"]].count("stuck") == 1
    totals = [SAID[service]["parked?all=1"]["totals"] for service in ALL]
    assert [sum(one.values()) for one in totals] == [0, 3, 1, 1]
    assert len(SAID["bank"]["stages"]["held"]) == 2 and any(one["waiting"] for one in SAID["bank"]["stages"]["held"])
    assert any(saga["timers"] for one in SAID["counter"]["why"].values() for saga in one["sagas"])
    assert "'snapshot'" in (RECORDED / "bazaar-stall.sql").read_text("utf-8")


@pytest.mark.parametrize("service", ALL)
def test_every_record_decodes(service: str, stores: Path) -> None:
    """G12: each message in the log decodes as its own type, and encodes to the bytes that are stored."""
    count = 0
    for stored, data in logged(stores / f"{service}.sqlite"):
        contract = CONTRACTS.get(stored.partition(".")[0])
        if contract is not None:
            assert msgspec.json.encode(decode_stored(contract, stored, data)) == data, stored
            count += 1
    assert count >= 5


async def test_everything_goes_on(stores: Path) -> None:
    """G3, G4, G6, G11: started again by a release in which the handlers are mended, what is decided is confirmed and
    what waited for it goes on; what is parked, lost or stuck takes its repair; all ends, as the log says; and every
    command of then has the answer of then."""
    before = {name: rows(stores / f"{name}.sqlite") for name in ALL}
    async with Open(stores, *ALL, mended=True) as opened:
        for service, parked in [(name, SAID[name]["parked?all=1"]["items"]) for name in ("stall", "till")]:
            for one in parked:
                if not one["error"]:
                    continue  # it waits behind another
                done = {"kind": "resolve", "decision": "done", "data": {"order": "o6", "cents": 100}}
                how = done if one["unknown"] else {"kind": "retry"}
                assert (await opened.repair(service, target=one["message"], **how))["how"] == "applied"
        (stuck,) = SAID["counter"]["stuck"]["items"]
        await opened.repair("counter", target=stuck["id"], kind="retry")
        await opened.settled()
        for one in WIRE["commands"]:
            reply = await opened.ask(
                one["service"], "POST", f"/commands/{one['command']}", one["body"].encode(), one["key"]
            )
            assert (reply.status, reply.body.decode()) == (one["status"], one["answer"]), one
        for order, sku in (("o3", "brick"), ("o4", "brick"), ("o5", "tea"), ("o6", "tea")):
            assert await opened.buy(order, sku) == {"order": order, "cents": 100}
        assert await opened.buy("o9", "plank") == {"order": "o9", "cents": 100}
        shelf = await opened.get("stall", "/ops/aggregates/Shelf/plank")
        assert shelf["state"] == {"on_hand": 4, "held": {"o9": 1}}
        accounts = (await opened.get("bank", "/ops/aggregates/Account"))["items"]
        assert {one["key"]: one["state"]["balance"] for one in accounts} == {"ann": 67, "bob": 135}
        sent = (await opened.get("stall", "/ops/log?limit=1"))["head"]
        page = await opened.get("counter", f"/views/Page/o5?at_least=stall@{sent}")
        assert page == {"cents": 100, "sent": True, "seen": ["charged", "booked", "sent"]}
    for name in ALL:
        assert rows(stores / f"{name}.sqlite")[: len(before[name])] == before[name]


def test_frames_are_read_and_written_as_they_were() -> None:
    """Each frame, from either side, is the same bytes once more when it is decoded and encoded."""
    found = [frame for one in WIRE["frames"] for frame in (one["frame"], one["answer"])]
    assert len(found) > 50 and {one["from"] for one in WIRE["frames"]} == set(ALL)
    for frame in found:
        assert encode_frame(decode_frame(frame.encode())).decode() == frame


async def test_frames_of_then_are_taken_once(stores: Path) -> None:
    """G3: every frame that a service was sent then and has received changes nothing when it comes again; it is answered
    with a frame from the service to its sender."""
    for name in ("stall", "till", "bank"):
        before = rows(stores / f"{name}.sqlite")
        async with Open(stores, name) as opened:
            for one in WIRE["frames"]:
                if one["to"] == name:
                    reply = await opened.ask(name, "POST", "/exchange", one["frame"].encode())
                    answer = decode_frame(reply.body) if reply.status == 200 else None
                    assert answer is not None, reply
                    assert (answer.sender, answer.receiver) == (name, one["from"])
        assert rows(stores / f"{name}.sqlite") == before


async def test_a_frame_of_then_is_decided_as_it_was(tmp_path: Path) -> None:
    """A service that has nothing yet answers the first frame of then with what it answered then: type, payload, stream
    and headers of each record."""

    def shown(frame: Any) -> list[Any]:
        return [(one.kind, one.type, bytes(one.data), one.stream, one.version, one.headers) for one in frame.records]

    (first, *_) = [one for one in WIRE["frames"] if one["to"] == "bank" and decode_frame(one["frame"].encode()).records]
    async with Open(tmp_path, "bank") as opened:
        for account in ("ann", "bob"):
            body = json.dumps({"account": account, "amount": 100, "deal": "opened"}).encode()
            (await opened.ask("bank", "POST", "/commands/move", body)).json()
        reply = await opened.ask("bank", "POST", "/exchange", first["frame"].encode())
        assert reply.status == 200, reply
        recorded = shown(decode_frame(first["answer"].encode()))
        assert len(recorded) == 2 and shown(decode_frame(reply.body)) == recorded
