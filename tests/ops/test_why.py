"""`holdfast why`: the story across all services, what blocks it, whose it is, and what can be done (G7, G11)."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from holdfast import Client, Retry
from holdfast.cli.app import call
from holdfast.core.explain.status import RecordStatus, WhyAnswer
from holdfast.core.explain.story import Story, tell, trail_of
from holdfast.core.explain.timeline import draw
from holdfast.core.explain.trail import build
from holdfast.core.log.record import Record
from holdfast.errors import Pending
from support.http_services import Far, until
from support.systems.sales import Faults, Sell, system

TOKEN, SECRET = "operate-operate", "a secret of the system, of some length"
PARKS = Retry(attempts_max=1, first_seconds=0.01)
SVG = "{http://www.w3.org/2000/svg}"


async def said(capsys: pytest.CaptureFixture[str], *tokens: str, as_json: bool = True) -> tuple[int, Any]:
    """Exit code and what a verb says, run beside the services."""
    capsys.readouterr()
    code = await asyncio.to_thread(call, [*tokens, *(["--json"] if as_json else [])])
    out = capsys.readouterr()
    return code, json.loads(out.out) if as_json and out.out else out.out or out.err


async def sale(client: Client, order: str, **fields: Any) -> None:
    """A sale whose caller does not wait long."""
    try:
        await client.send(Sell(order, **fields), key=f"key-{order}", correlation=f"web-{order}", wait_seconds=0.05)
    except Pending:
        pass


def flags(far: Far) -> list[str]:
    """Where the services are."""
    return [flag for name, url in far.urls.items() for flag in ("--url", f"{name}={url}")]


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line knows the secret and the operator's token."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", TOKEN)
    monkeypatch.setenv("HOLDFAST_SECRET", SECRET)


async def test_a_parked_message_is_named_by_any_id(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By correlation id, idempotency key, saga, transaction, key of an aggregate or message the same is told: what
    happened in causal order, that a message is parked, where in the code, whose it is, what comes next, what can be
    done; with its tree and a timeline. What nobody knows is said to be so."""
    async with Far(system(Faults(broken={"pay:o1"}), retry=PARKS, deadline=0), SECRET, operator_token=TOKEN) as far:
        client = Client.http(far.urls)
        await sale(client, "o1")
        await until(lambda: far.nodes["till"].waiting.parked("Payment/o1"))
        ((saga, _),) = await far.nodes["desk"].sagas()
        (found,) = far.nodes["till"].waiting.slots()
        for id in ("web-o1", "key-o1", saga, found.message.record.tx, "o1", found.message.id):
            code, story = await said(capsys, "why", id, *flags(far))
            assert code == 1 and story["title"].endswith("waits for a person: a message of it is parked"), id
            texts = [line["text"] for line in story["happened"]]
            assert texts == [
                "desk began Sale: order o1, items [\"tea\"], post ",
                "desk asked depot for take tea (step take)",
                "depot recorded taken on Item/tea, which answers desk: item tea, order o1",
                "desk asked till for pay o1 (step pay)",
            ], id  # fmt: skip
            (block,) = story["blocks"]
            assert (
                block["owner"] == "team-till"
                and "Broken: pay of o1 in support.systems.sales.Faults.check" in block["what"]
            )
            assert story["next"] == [f"{saga}: book (the pivot), then post, then answer sold"]
            assert [one["command"].split()[1:3] for one in story["repairs"]] == [
                ["undo", saga], ["retry", found.message.id], ["skip", found.message.id],
            ]  # fmt: skip
        code, text = await said(
            capsys, "why", "web-o1", "--tree", "--svg", str(tmp_path / "o1.svg"), *flags(far), as_json=False
        )
        assert code == 1 and "what blocks it:" in text and "└─ " in text and "team-till" in text
        picture = ElementTree.parse(tmp_path / "o1.svg").getroot()
        assert {mark.get("id") for mark in picture.iter() if mark.get("id") not in (None, "to")} == {
            line["id"] for line in story["happened"]
        } | {f"desk@{n}" for n in range(1, far.nodes["desk"].writer.head + 1)}
        code, text = await said(capsys, "why", "nobody knows", *flags(far))
        assert code == 1 and "no service knows 'nobody knows'" in text
        await client.close()


async def test_a_process_that_is_down_and_what_is_settled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that does not answer is named as what blocks it, with the owner that the settings name; what is settled
    says so, and exits 0."""
    monkeypatch.setenv("HOLDFAST_SERVICES", '{"till": {"owner": "team-money"}}')
    async with Far(system(deadline=0), SECRET, operator_token=TOKEN) as far:
        client = Client.http(far.urls)
        await client.run(Sell("o0"), correlation="web-o0")
        code, story = await said(capsys, "why", "web-o0", *flags(far))
        assert (
            code == 0
            and story["settled"]
            and story["title"] == "correlation web-o0 is settled: nothing is left to happen"
        )
        assert story["happened"][-1]["text"].startswith("desk recorded sold on Sale/") and story["repairs"] == []
        await far.down("till")
        await sale(client, "o1")
        await until(lambda: far.nodes["desk"].dispatch.sagas.open == 1)
        await asyncio.sleep(0.3)
        code, story = await said(capsys, "why", "web-o1", *flags(far))
        assert code == 1 and list(story["silent"]) == ["till"] and "has not ended" in story["title"]
        assert story["blocks"][0]["what"].startswith("till does not answer")
        assert story["blocks"][0]["owner"] == "team-money"
        assert any("waits for till to answer pay" in text for text in story["stands"])
        code, story = await said(capsys, "why", "web-o0", *flags(far))
        assert code == 1 and "till did not answer" in story["title"]
        await client.close()


async def test_a_stuck_saga_and_its_repair_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What a person said is part of the story, with who and why; a rejection ends it."""
    faults = Faults(refused={"pay:o1", "return:*"})
    async with Far(system(faults), SECRET, operator_token=TOKEN) as far:
        client = Client.http(far.urls)
        await sale(client, "o1")
        await until(lambda: bool(far.nodes["desk"].dispatch.sagas.stuck), seconds=30)
        code, story = await said(capsys, "why", "web-o1", *flags(far))
        assert code == 1 and story["title"] == "correlation web-o1 is stuck: it needs a person"
        assert "till said no to desk: refused" in [line["text"] for line in story["happened"]]
        assert {one["command"].split()[1] for one in story["repairs"]} == {"retry", "skip", "resolve"}
        ((saga, _),) = await far.nodes["desk"].sagas()
        body = {"kind": "skip", "target": saga, "by": "on call", "why": "returned by hand"}
        from holdfast.cli.options import settings_of
        from holdfast.core.explain.plan import RepairResult
        from holdfast.operator.client import post

        await asyncio.to_thread(post, far.urls["desk"], "/ops/repairs", body, settings_of(None), RepairResult)
        await until(lambda: far.nodes["desk"].dispatch.sagas.open == 0)
        code, story = await said(capsys, "why", "web-o1", *flags(far))
        assert code == 0 and story["title"] == "correlation web-o1 was rejected: refused"
        assert f"on call, at desk, told {saga}: skip: returned by hand" in [one["text"] for one in story["happened"]]
        await client.close()


def answer(service: str, log: list[Record]) -> WhyAnswer:
    """What a service knows whose log this is."""
    rows = (RecordStatus.of(service, record, msgspec.json.decode(record.data)) for record in log)
    return WhyAnswer(service, records=tuple(rows))


def told(answers: list[WhyAnswer]) -> Story:
    """The story of these answers."""
    return tell("t", answers, trail_of(answers), {}, 2_000)


def test_a_cause_comes_before_what_it_caused() -> None:
    """Clocks that disagree do not turn the story round: an effect stamped before its cause is told after it; a cause
    that was not brought, or one in a circle, leaves out nothing that can be told."""

    def record(position: int, at: int, cause: str) -> Record:
        return Record(position, "event", "x.done.v1", b"{}", "t", cause, at)

    answers = [
        answer("a", [record(1, 1_000, "t"), record(2, 50, "b@1"), record(3, 60, "nobody@7")]),
        answer("b", [record(1, 10, "a@1")]),
    ]
    assert [line.id for line in told(answers).happened] == ["a@3", "a@1", "b@1", "a@2"]
    circle = [answer("a", [record(1, 10, "a@2"), record(2, 90, "a@1"), record(3, 60, "t")])]
    assert [line.id for line in told(circle).happened] == ["a@1", "a@3", "a@2"]


def test_a_long_story_is_told_and_drawn_in_little_time() -> None:
    """Three thousand records in a chain are told and drawn in seconds; the picture is XML whatever is in the names, the
    same each time; a pause is cut and said."""
    name = "a<&\"'>]]>"
    log = [
        Record(
            n, "command", "x.do.v1", b"{}", "t", f"{name}@{n - 1}" if n > 1 else "t", n * 1000 + (n > 5) * 90_000_000
        )
        for n in range(1, 3_001)
    ]
    begin = time.process_time()
    assert len(told([answer(name, log)]).happened) == 3_000
    trail = build({name: log})
    picture = draw(trail, {name: "team <x>", "idle": ""})
    assert time.process_time() - begin < 20
    assert picture == draw(trail, {name: "team <x>", "idle": ""})
    root = ElementTree.fromstring(picture)
    assert len(root.findall(f"{SVG}rect[@class='command']")) == 3_000
    assert len(root.findall(f"{SVG}line[@class='lane']")) == 2 and len(root.findall(f"{SVG}line[@class='cut']")) == 1
