"""Repair over HTTP and from the command line: lists, plans, retry, skip, undo, resolve; one or many (G11)."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from holdfast import Attempt, Client, Command, Contract, Event, Retry, Service, System
from holdfast.cli.app import call
from holdfast.errors import Pending
from support.http_services import Far, until
from support.systems.sales import Faults, Sell, system

TOKEN, SECRET = "operate-operate", "a secret of the system, of some length"
PARKS = Retry(attempts_max=1, first_seconds=0.01)
WHO = ("--by", "on call", "--why", "release 12 mends it")

bank = Contract("bank")


@bank.event
class Sent(Event):
    id: str


@bank.command(key="id")
class Send(Command[Sent]):
    id: str


def banks() -> Service:
    """A service whose calls break off, and which has nobody to ask."""
    service = Service(bank, owner="team-bank", retry=PARKS)

    @service.effect
    async def send(command: Send, attempt: Attempt) -> Sent:
        raise OSError("the line is dead")

    return service


async def said(capsys: pytest.CaptureFixture[str], *tokens: str, as_json: bool = True) -> tuple[int, Any]:
    """Exit code and what a verb says, run beside the services."""
    capsys.readouterr()
    code = await asyncio.to_thread(call, [*tokens, *(["--json"] if as_json else [])])
    out = capsys.readouterr()
    return code, json.loads(out.out) if as_json and out.out else out.out + out.err


def logs(far: Far) -> bytes:
    """All that is in all logs."""
    return msgspec.json.encode({name: store._records for name, store in far.stores.items()})  # pyright: ignore[reportPrivateUsage]


def words(far: Far, name: str) -> list[dict[str, Any]]:
    """What persons have said to a service, as its log has it."""
    records = far.stores[name]._records  # pyright: ignore[reportPrivateUsage]
    return [msgspec.json.decode(record.data) for record in records if record.kind == "repair"]


def flags(far: Far) -> list[str]:
    """Where the services are."""
    return [flag for name, url in far.urls.items() for flag in ("--url", f"{name}={url}")]


async def ask(client: Client, command: Command[Any]) -> None:
    """Ask, and do not wait long."""
    try:
        await client.send(command, wait_seconds=0.05)
    except Pending:
        pass


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line knows the secret and the operator's token."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", TOKEN)
    monkeypatch.setenv("HOLDFAST_SECRET", SECRET)


async def test_many_are_repaired_at_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty parked messages are listed with owner, cause, totals; a dry run plans each to the saga that would be
    answered and changes no log; without the token nothing is done; with it all are retried, on record; again changes
    nothing."""
    faults = Faults(broken={"pay:*"})
    async with Far(system(faults, retry=PARKS, deadline=0), SECRET, operator_token=TOKEN) as far:
        client, till = Client.http(far.urls), far.nodes["till"]
        await asyncio.gather(*(ask(client, Sell(f"o{n}", (f"tea{n}",))) for n in range(20)))
        await until(lambda: sum(bool(slot.message.parked) for slot in till.waiting.slots()) == 20)
        code, found = await said(capsys, "parked", *flags(far))
        assert code == 1 and len(found["items"]) == 20 and len(found["totals"]) == 20
        assert {(one["service"], one["owner"]) for one in found["items"]} == {("till", "team-till")}
        (fingerprint,) = {one["fingerprint"] for one in found["items"]}
        code, text = await said(capsys, "parked", "--fingerprint", fingerprint, *flags(far), as_json=False)
        assert (
            text.count("holdfast retry desk@") == 20
            and "Broken: pay of o7 in support.systems.sales.Faults.check" in text
        )
        assert (await said(capsys, "parked", "--cause", "pay of o7", *flags(far)))[1]["totals"] == {
            "Broken: pay of o7": 1
        }
        assert (await said(capsys, "parked", "--older", "3600", *flags(far)))[0] == 0
        code, found = await said(capsys, "unsettled", *flags(far))
        assert code == 1 and len(found["items"]) == 20 and found["totals"] == {"waits for pay of till": 20}
        assert (await said(capsys, "unsettled", "--cause", "pay of till", *flags(far)))[1]["totals"] == found["totals"]
        assert (await said(capsys, "unsettled", "--cause", "pay of desk", *flags(far)))[0] == 0
        before = logs(far)
        many = ("retry", "--parked", "--fingerprint", fingerprint, *WHO, *flags(far))
        code, planned = await said(capsys, *many, "--dry-run")
        assert code == 0 and {one["does"][0].split(":")[0] for one in planned["results"]} == {"it fails again"}
        faults.broken.clear()
        code, planned = await said(capsys, *many, "--dry-run")
        assert {one["then"]["sends"][0]["what"] for one in planned["results"]} == {"book"} and logs(far) == before
        monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", "wrong")
        code, refused = await said(capsys, *many)
        assert code == 1 and refused["refused"] == 20 and logs(far) == before
        monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", TOKEN)
        code, done = await said(capsys, *many)
        assert code == 0 and [one["how"] for one in done["results"]] == ["applied"] * 20
        await until(lambda: far.nodes["desk"].dispatch.sagas.open == 0)
        assert [(one["by"], one["why"]) for one in words(far, "till")] == [("on call", "release 12 mends it")] * 20
        assert (await said(capsys, "parked", *flags(far)))[0] == 0
        targets = [one["target"] for one in done["results"]]
        code, again = await said(capsys, "retry", *targets, *WHO, *flags(far))
        assert code == 0 and {one["how"] for one in again["results"]} == {"already"} and len(words(far, "till")) == 20
        await client.close()


async def test_one_that_is_refused_does_not_stop_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """In bulk each target has its own result: a nonsense name fails before anything is done; data that does not fit, or
    is for another stream, is refused and named; a service that is away is named; a skip answers and goes on."""
    faults = Faults(broken={"pay:o1", "pay:o2"})
    async with Far(system(faults, retry=PARKS, deadline=0), SECRET, operator_token=TOKEN) as far:
        client, till = Client.http(far.urls), far.nodes["till"]
        for order in ("o1", "o2"):
            await ask(client, Sell(order))
        await until(lambda: sum(bool(slot.message.parked) for slot in till.waiting.slots()) == 2)
        first, second = sorted(slot.message.id for slot in till.waiting.slots())
        before = logs(far)
        code, text = await said(capsys, "retry", first, "nonsense", *WHO, *flags(far))
        assert code == 1 and "no service has nonsense waiting" in text
        for data, error in (('{"order": 7}', "str"), ('{"order": "o9"}', "Payment/o9"), ("{", "--data")):
            code, text = await said(capsys, "retry", first, "--data", data, *WHO, *flags(far))
            assert code in (1, 2) and error in json.dumps(text), data
        code, text = await said(capsys, "retry", first, "--parked", *WHO, *flags(far))
        assert code == 2 and "one of the two" in text
        code, text = await said(capsys, "undo", first, *WHO, *flags(far))
        assert code == 1 and "what is undone is a saga" in json.dumps(text) and logs(far) == before
        code, text = await said(capsys, "skip", first, second, *WHO, *flags(far), as_json=False)
        assert code == 0 and "2/2  till" in text and "2 of 2 repaired" in text
        await until(lambda: far.nodes["desk"].dispatch.sagas.open == 0)
        await far.down("till")
        code, text = await said(capsys, "retry", first, *WHO, *flags(far))
        assert code == 1 and "no answer from till" in text
        await client.close()


async def test_sagas_are_repaired_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """`stuck` lists a saga with its owner and cause; `resolve --undone` plans, closes and says already; `undo` turns a
    running one back, past its pivot it is refused with the reason."""
    faults = Faults(refused={"pay:o1", "return:tea"}, broken={"pay:o2", "book:o3"})
    async with Far(system(faults, retry=PARKS, deadline=0), SECRET, operator_token=TOKEN) as far:
        client, desk = Client.http(far.urls), far.nodes["desk"]
        await ask(client, Sell("o1"))
        await ask(client, Sell("o2", ("cup",)))
        await ask(client, Sell("o3", ("pot",)))
        await until(lambda: bool(desk.dispatch.sagas.stuck), seconds=30)
        code, found = await said(capsys, "stuck", *flags(far))
        (one,) = found["items"]
        assert code == 1 and one["owner"] == "team-desk" and "rejected 5 times" in one["stuck"]
        before = logs(far)
        code, planned = await said(capsys, "resolve", one["id"], "--undone", "--dry-run", *WHO, *flags(far))
        assert code == 0 and planned["results"][0]["saga"] == "undone" and logs(far) == before
        for how in ("applied", "already"):
            code, done = await said(capsys, "resolve", one["id"], "--undone", *WHO, *flags(far))
            assert code == 0 and done["results"][0]["how"] == how
        code, found = await said(capsys, "unsettled", *flags(far))
        second, third = (row["id"] for row in found["items"])
        code, done = await said(capsys, "undo", "--unsettled", *WHO, *flags(far))
        assert code == 1 and {one["target"]: one["how"] for one in done["results"]} == {
            second: "applied", third: "refused",
        }  # fmt: skip
        assert "point of no return" in json.dumps(done)
        await until(lambda: desk.dispatch.sagas.open == 1)
        await client.close()


async def test_what_became_of_an_effect_is_said_by_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    """A call that broke off and cannot be asked about is parked as unknown; it is not skipped nor tried again; a person
    says what became of it: an event that does not fit is refused, then it is done, once; another is refused."""
    async with Far(System([banks()], name="banks"), SECRET, operator_token=TOKEN) as far:
        client, node = Client.http(far.urls), far.nodes["bank"]
        for id in ("a", "b"):
            await ask(client, Send(id))
        await until(lambda: sum(bool(slot.message.parked) for slot in node.waiting.slots()) == 2)
        code, text = await said(capsys, "parked", *flags(far), as_json=False)
        assert text.count("unknown:") == 2 and "holdfast resolve bank@" in text
        first, second = (slot.message.id for slot in node.waiting.slots())
        for tokens, error in (
            (("skip", first), "resolve it as done or refused"),
            (("retry", first, "--dry-run"), "no probe"),
            (("resolve", first, "--done"), "data is a Sent"),
            (("resolve", first, "--done", "--data", '{"no": 1}'), "data is no Sent"),
            (("resolve", first, "--undone"), "done or refused"),
        ):
            code, text = await said(capsys, *tokens, *WHO, *flags(far))
            assert code == 1 and error in json.dumps(text), tokens
        assert words(far, "bank") == []
        code, _ = await said(capsys, "resolve", first, "--done", "--data", '{"id": "a"}', *WHO, *flags(far))
        assert code == 0
        code, _ = await said(capsys, "resolve", second, "--refused", *WHO, *flags(far))
        assert code == 0 and [one["outcome"] for one in words(far, "bank")] == ["done", "refused"]
        records = far.stores["bank"]._records  # pyright: ignore[reportPrivateUsage]
        ends = [record.type for record in records if record.headers.outcome]
        assert ends == ["bank.sent.v1", "holdfast.rejected"] and not node.waiting.slots()
        code, done = await said(capsys, "resolve", first, "--done", "--data", '{"id": "a"}', *WHO, *flags(far))
        assert done["results"][0]["how"] == "already"
        code, text = await said(capsys, "resolve", first, *WHO, *flags(far))
        assert code == 2 and "give one of" in text
        await client.close()
