"""Staged commit over HTTP and from the command line: who holds what, who waits, and a person's word on it."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from holdfast import Client
from holdfast.cli.app import call
from support.http_services import Far, until
from support.systems.trades import Move, Moved, Trade, Traded, system

TOKEN, SECRET = "operate-operate", "a secret of the system, of some length"
TRADE = Trade("d1", (("a", -30),), (), ("tea",))


async def said(capsys: pytest.CaptureFixture[str], *tokens: str) -> tuple[int, Any]:
    """Exit code and JSON of a verb, run beside the services."""
    capsys.readouterr()
    code = await asyncio.to_thread(call, [*tokens, "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else out.err


async def test_who_holds_what_and_a_person_resolves_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6, G10: `/ops/stages` and `holdfast stages` show who holds what, since when, and who waits for it; `holdfast
    resolve` cancels it on record, says so again, and refuses the contrary; the waiting command then runs."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", TOKEN)
    monkeypatch.setenv("HOLDFAST_SECRET", SECRET)
    async with Far(system(), secret=SECRET, operator_token=TOKEN) as far:
        client = Client.http(far.urls)
        urls = [flag for name, url in far.urls.items() for flag in ("--url", f"{name}={url}")]
        await client.run(Move("a", 100))
        await far.down("shop")
        trade = asyncio.ensure_future(client.send(TRADE, correlation="order-17"))
        bank = far.nodes["bank"]
        await until(lambda: bool(bank.dispatch.stages.held))
        waits = asyncio.ensure_future(client.run(Move("a", -1)))
        await until(lambda: bool(bank.turns.waiters()))
        code, found = await said(capsys, "stages", *urls)
        (row,) = found["held"]
        assert code == 1 and list(found["silent"]) == ["shop"], "shop is away"
        assert (row["stream"], row["coordinator"], row["correlation"]) == ("Account/a", "desk", "order-17")
        assert row["began"] <= row["since"] and [one["type"] for one in row["waiting"]] == ["bank.move.v1"]
        who = ("--by", "on call", "--why", "shop is away")
        code, refused = await said(capsys, "resolve", row["tx"], "--commit", *who, *urls)
        assert code == 1 and "not all have voted" in refused["refused"]["desk"]
        code, done = await said(capsys, "resolve", row["tx"], "--cancel", *who, *urls)
        assert code == 0 and [one["how"] for one in done["resolved"]] == ["decided"]
        assert (await trade).answer.code == "resolved" and await waits == Moved("a", -1)
        code, done = await said(capsys, "resolve", row["tx"], "--cancel", *who, *urls)
        assert code == 0 and [one["how"] for one in done["resolved"]] == ["already"]
        code, refused = await said(capsys, "resolve", row["tx"], "--commit", *who, *urls)
        assert code == 1 and "was cancelled" in json.dumps(refused)
        code, text = await said(capsys, "resolve", "nobody", "--cancel", *who, *urls)
        assert code == 1 and "no service that answers knows" in text
        await far.up("shop")
        again = await client.send(TRADE)
        assert again.answer == Traded("d1")
        await client.close()


async def test_a_lost_coordinator_is_resolved_at_the_participants(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: the coordinator gone, `holdfast resolve` is carried out by those who hold something, as forced."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", TOKEN)
    async with Far(system(), operator_token=TOKEN) as far:
        client = Client.http(far.urls)
        urls = [flag for name, url in far.urls.items() for flag in ("--url", f"{name}={url}")]
        await client.run(Move("a", 100))
        await far.down("shop")
        trade = asyncio.ensure_future(client.send(TRADE, wait_seconds=1))
        bank = far.nodes["bank"]
        await until(lambda: bool(bank.dispatch.stages.held))
        ((_, hold),) = bank.dispatch.stages.items()
        await far.down("desk")
        code, done = await said(capsys, "resolve", hold.tx, "--cancel", "--by", "on call", "--why", "gone", *urls)
        assert code == 0 and [(one["service"], one["how"]) for one in done["resolved"]] == [("bank", "forced")]
        assert not bank.dispatch.stages.held
        trade.cancel()
        await client.close()


async def test_what_is_asked_wrongly_is_refused() -> None:
    """Resolving needs the operator's token, a decision, and who and why; a standing needs the system's signature."""
    async with Far(system(), secret=SECRET, operator_token=TOKEN) as far, aiohttp.ClientSession() as http:
        url = far.urls["bank"]
        body = {"kind": "resolve", "tx": "x", "decision": "commit", "by": "me", "why": "so"}
        operator = {"Authorization": f"Bearer {TOKEN}"}
        for headers, change, status in (
            ({}, {}, 401), (operator, {"decision": "maybe"}, 422), (operator, {"why": ""}, 422), (operator, {}, 404),
        ):  # fmt: skip
            async with http.post(f"{url}/ops/repairs", json=body | change, headers=headers) as answer:
                assert answer.status == status, await answer.text()
        async with http.get(f"{url}/exchange/x", headers=operator) as answer:
            assert answer.status == 401
        async with http.get(f"{url}/ops/stages", headers=operator) as answer:
            assert await answer.json() == {"held": [], "resolved": []}
