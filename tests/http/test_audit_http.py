"""`holdfast audit` and what it reads, over real HTTP: `/ops/log?brief=1`, once, and as a process that follows (G10)."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast.operator.audit
from holdfast import Client
from holdfast.cli.app import call
from holdfast.cli.verbs.audit import NICENESS, SAY_SECONDS
from holdfast.config import Settings
from holdfast.core.saga.stage import DONE
from holdfast.core.wire.signature import sign
from holdfast.errors import Pending
from holdfast.operator.audit import HttpAudit
from holdfast.runtime.ops.audit import Reading
from support.http_services import LEAK, Far, free_ports, lab_service, listening, site, until
from support.systems.reactions import Post, chained
from support.systems.sales import Faults, Sell
from support.systems.sales import system as selling
from support.systems.trades import Move, Trade
from support.systems.trades import system as trading

TOKEN, SECRET = "operate-operate", "a secret of the system, of some length"
TESTS = Path(__file__).parents[1]
_reading = msgspec.json.Decoder(Reading)


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line knows the secret."""
    monkeypatch.setenv("HOLDFAST_SECRET", SECRET)


def signed(path: str) -> dict[str, str]:
    """The header of a GET."""
    return {"Holdfast-Signature": sign(SECRET, "GET", path, b"", int(time.time()))}


def flags(urls: dict[str, str]) -> list[str]:
    """Where the services are."""
    return [flag for name, url in urls.items() for flag in ("--url", f"{name}={url}")]


async def said(capsys: pytest.CaptureFixture[str], *tokens: str) -> tuple[int, str]:
    """Exit code and all that a verb says, run beside the services."""
    capsys.readouterr()
    code = await asyncio.to_thread(call, tokens)
    out = capsys.readouterr()
    return code, out.out + out.err


async def test_a_brief_log_is_a_page_with_what_was_received() -> None:
    """`brief=1` answers records as an audit sees them, payloads only of events, answers and repairs, no more than
    `limit`, after `after`; the head, and cursors and waiting messages as they were before it; past the head nothing. A
    bad parameter is a problem, and without `brief` it is the log as ever."""
    async with Far(selling(Faults(broken={"pay:o2"}), deadline=0), SECRET) as far:
        client = Client.http(far.urls)
        await client.run(Sell("o1"))
        with contextlib.suppress(Pending):
            await client.send(Sell("o2"), wait_seconds=0.05)
        await until(lambda: bool(far.nodes["till"].waiting.slots()))
        log = far.stores["desk"]._records  # pyright: ignore[reportPrivateUsage]
        async with site(lab_service, secret=SECRET) as at:  # only its session is used
            web = type(at.web)(far.urls["desk"], at.web.session)

            async def page(query: str) -> Reading:
                path = f"/ops/log?brief=1{query}"
                return _reading.decode((await web.ask("GET", path, headers=signed(path))).body)

            whole = await page("&limit=10000")
            assert [one.position for one in whole.records] == [one.position for one in log]
            for one, record in zip(whole.records, log, strict=True):
                for name in ("kind", "type", "tx", "cause", "at", "correlation", "stream", "version", "destination"):
                    assert getattr(one, name) == getattr(record, name)
                shown = record.kind in ("event", "answer", "repair")
                assert bytes(one.data) == (record.data if shown else b"null")
                assert one.outcome == record.headers.outcome
            assert {one.kind for one in whole.records} >= {"event", "command", "saga"}
            assert whole.upto == whole.head == whole.mark.head == len(log)
            assert whole.mark.cursors["exchange:depot"] == 2
            part = await page("&after=2&limit=3")
            assert [one.position for one in part.records] == [3, 4, 5] and (part.upto, part.head) == (5, len(log))
            assert len((await page("&limit=0")).records) == 1
            past = await page("&after=1000")
            assert past.records == () and past.upto == 1000
            for bad in ("&after=-1", "&after=x", "&limit=1.5", "&limit=9999999999999999999"):
                path = f"/ops/log?brief=1{bad}"
                (await web.ask("GET", path, headers=signed(path))).problem(422)
            path = "/ops/log?brief=yes"
            assert "id" in (await web.ask("GET", path, headers=signed(path))).json()["records"][0]
            web = type(at.web)(far.urls["till"], at.web.session)
            held = (await page("")).mark
            assert held.waiting == {("desk", held.cursors["exchange:desk"])}
        await client.close()


async def test_a_brief_log_hides_what_is_sensitive() -> None:
    """Sensitive fields are `***`, in events and in what a rejection says; payloads with nothing sensitive go out byte
    by byte as they are stored; and it is shown to nobody without the secret or the operator's token."""
    async with site(lab_service, secret=SECRET, operator_token=TOKEN) as at:
        pokes = ({"room": "r", "shelf": "s", "pin": "1234"}, {"room": "r", "shelf": "s", "times": -1, "pin": "1234"})
        for body in pokes:
            await at.web.post("/commands/poke", body)
        await at.web.post("/commands/errand", {"room": "r", "shelf": "s"})
        path = "/ops/log?brief=1"
        reply = await at.web.ask("GET", path, headers=signed(path))
        assert b"1234" not in reply.body and LEAK.encode() not in reply.body
        stored = (await at.nodes["lab"].store.read(0, 100)).records
        page = _reading.decode(reply.body)
        bodies = {one.type: msgspec.json.decode(one.data) for one in page.records if one.position <= 2}
        assert bodies["lab.poked.v1"] == {"room": "r", "shelf": "s", "times": 1, "pin": "***"}
        assert bodies["holdfast.rejected"]["facts"] == {"times": -1}
        (ended,) = (one for one in page.records if one.type == "lab.ended.v1")
        assert bytes(ended.data) == stored[ended.position - 1].data
        for headers in ({}, {"Authorization": "Bearer wrong"}, signed("/ops/log?brief=1&after=1")):
            (await at.web.ask("GET", path, headers=headers)).problem(401, "Unauthorized")
        assert (await at.web.get(path, Authorization=f"Bearer {TOKEN}")).status == 200


async def test_an_audit_says_what_holds_and_what_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Once: code 0 when all holds, each invariant with how much it had to judge; 1 when something does not, with the
    records, and what to ask next; `--json` is one object. What is in flight is waited for, and then counted."""
    async with Far(selling(deadline=0), SECRET) as far:
        audits = ("audit", "support.systems.audited_sales:system", "--settle", "0", *flags(far.urls))
        client = Client.http(far.urls)
        code, text = await said(capsys, *audits)
        assert code == 0 and "--   What is sold is paid and booked, once  (paid_once: nothing to judge)" in text
        code, text = await said(capsys, *audits, "--json")
        assert code == 0 and json.loads(text)["passed"] is False
        await client.run(Sell("o1", ("tea",)))
        await client.run(Sell("o2", ("tea",)), correlation="web-o2")
        code, text = await said(capsys, "audit", "support.systems.audited_sales:system", *flags(far.urls))
        assert code == 0 and "ok   What is sold is paid and booked, once  (paid_once: 2)" in text
        assert "ok   Of each item an even number is kept  (InPairs: 1)" in text and "2 transactions judged" in text
        code, text = await said(capsys, "audit", "support.systems.audited_sales:system", *flags(far.urls), "--json")
        found = json.loads(text)
        assert code == 0 and found["passed"] and found["counted"] == {"paid_once": 2, "InPairs": 1}
        assert found["cut"] == {name: node.writer.head for name, node in far.nodes.items()}
        assert found["violations"] == [] and found["silent"] == {} and (found["settled"], found["open"]) == (2, 0)
        await client.run(Sell("odd1", ("tea",)), correlation="web-odd1")
        code, text = await said(capsys, "audit", "support.systems.audited_sales:system", *flags(far.urls))
        assert code == 1 and "NOT  What is sold is paid" in text and "InPairs tea: 3 are kept  [depot@1, " in text
        assert "paid_once: odd1 is odd  [desk@" in text and "  holdfast why web-odd1" in text
        code, text = await said(capsys, "audit", "support.systems.audited_sales:system", *flags(far.urls), "--json")
        assert code == 1 and [one["invariant"] for one in json.loads(text)["violations"]] == ["paid_once", "InPairs"]
        await far.down("till")
        with contextlib.suppress(Pending):
            await client.send(Sell("o4", ("pot",)), wait_seconds=0.05)
        code, text = await said(capsys, *audits)
        assert code == 1 and f"! till: {far.urls['till']} does not answer" in text and "in flight, the oldest" in text
        await far.up("till")
        code, text = await said(
            capsys, "audit", "support.systems.audited_sales:system", "--settle", "20", *flags(far.urls), "--json"
        )
        assert json.loads(text)["open"] == 0 and json.loads(text)["settled"] == 4
        await client.close()


async def test_an_audit_that_cannot_begin_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing or wrong is one sentence and code 2: no such target, nothing to judge, a service without a URL,
    a share that is none. Who answers with something else, or not to this secret, is named, and the code is 1."""
    async with Far(selling(deadline=0), SECRET, secrets={"till": "another secret of some length"}) as far:
        urls = flags(far.urls)
        for tokens, error in (
            (("support.systems.audited_sales", *urls), "write MODULE:NAME"),
            (("nowhere:system", *urls), "there is no module 'nowhere'"),
            (("support.systems.audited_sales:nothing", *urls), "no system or service 'nothing'; there are: "),
            (("support.systems.audited_sales:silent", *urls), "has no invariants: declare some with @silent.invariant"),
            (("support.systems.audited_sales:system",), "no service is named: give --url"),
            (
                ("support.systems.audited_sales:system", *urls[2:]),
                "an audit needs every service, and depot has no URL: give --url depot=URL",
            ),
            (("support.systems.audited_sales:system", "--url", "depot"), "write SERVICE=URL"),
            (("support.systems.audited_sales:system", *urls, "--share", "0"), "--share 0.0: give a number"),
            (("support.systems.audited_sales:system", *urls, "--share", "1.5"), "--share 1.5"),
        ):
            code, text = await said(capsys, "audit", *tokens)
            assert code == 2 and error in text and sum("holdfast: " in line for line in text.splitlines()) == 1, (
                tokens,
                text,
            )
        async with listening(hello) as other:
            there = flags({**far.urls, "depot": other})
            code, text = await said(capsys, "audit", "support.systems.audited_sales:system", "--settle", "0", *there)
        assert code == 1 and "! depot: " in text and "something" in text
        assert "! till: " in text and "answered 401" in text and "! desk" not in text


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """A site that answers, and is no service."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<h1>hello</h1>"})


@contextlib.asynccontextmanager
async def following(*tokens: str) -> AsyncGenerator["Following"]:
    """`holdfast audit --follow` as a process."""
    arguments = ("-m", "holdfast.cli", "audit", "support.systems.audited_sales:system", "--follow", *tokens)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=TESTS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield Following(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Following:
    """What a process says, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, holds: str) -> str:
        """The next line that holds a text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line.rstrip("\n"))
                if holds in line:
                    return self.lines[-1]
        raise AssertionError(f"it ended without {holds!r}: {self.lines}")

    async def end(self) -> int:
        """Its exit code after Ctrl-C; what it said last is read."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGINT)
        self.lines += (await self.process.stdout.read()).decode().splitlines()
        return await self.process.wait()


async def test_an_audit_that_follows_says_what_it_finds() -> None:
    """A process that follows says each violation once, when it is found, and when a fold holds again; a service that
    goes away is named at once, the others are judged on, and so is what it did when it is back. Ctrl-C ends it, with
    code 1 when something was wrong, also where it holds again. All the while the services go before it."""
    async with Far(selling(deadline=0), SECRET) as far, following("--share", "1", *flags(far.urls)) as audit:
        client = Client.http(far.urls)
        await audit.line("0 transactions judged, 0 in flight, 0 records behind")
        assert os.getpriority(os.PRIO_PROCESS, audit.process.pid) == min(19, os.nice(0) + NICENESS)
        await client.run(Sell("o1", ("tea",)))
        line = await audit.line("InPairs")
        assert line.startswith("InPairs tea: 1 are kept  [depot@1") and "holdfast why" in line
        await client.run(Sell("odd2", ("tea",)))
        assert {(await audit.line("a"))[:9] for _ in range(2)} == {"holds aga", "paid_once"}
        await far.down("till")
        async with asyncio.timeout(SAY_SECONDS / 2):
            assert "till does not answer" in await audit.line("till")
        with contextlib.suppress(Pending):
            await client.send(Sell("o3", ("cup",)), wait_seconds=0.05)
        await asyncio.sleep(1)
        await far.up("till")
        await audit.line("InPairs cup: 1 are kept")
        assert await audit.end() == 1
        assert sum("odd2 is odd" in line for line in audit.lines) == 1
        assert not any("Traceback" in line for line in audit.lines)
        await client.close()


async def test_an_audit_that_follows_prints_json() -> None:
    """With `--json` each line is one object: how far it is (also at the end), a violation, one that holds again. After
    `--seconds` it ends by itself, with 0 where nothing was wrong."""
    async with Far(selling(deadline=0), SECRET) as far:
        client = Client.http(far.urls)
        await client.run(Sell("o1", ("tea",)))
        async with following("--json", "--share", "1", *flags(far.urls)) as audit:
            first = json.loads(await audit.line("InPairs"))
            assert first["invariant"] == "InPairs" and first["key"] == "tea" and "holds" not in first
            far_now = json.loads(await audit.line('"behind"'))
            assert far_now["settled"] == 1 and far_now["behind"] == 0 and far_now["silent"] == {}
            await client.run(Sell("o2", ("tea",)))
            again = json.loads(await audit.line('"holds"'))
            assert again == {**first, "holds": True}
            assert await audit.end() == 1 and json.loads(audit.lines[-1])["settled"] == 2
            assert all(isinstance(json.loads(line), dict) for line in audit.lines)
        async with following("--seconds", "0.5", "--share", "1", *flags(far.urls)) as audit:
            await audit.line("2 transactions judged")
            assert await audit.process.wait() == 0
        silent = {**far.urls, "till": f"http://127.0.0.1:{free_ports(1)[0]}"}
        async with following("--seconds", "0.5", "--json", *flags(silent)) as audit:
            line = json.loads(await audit.line("silent"))
            assert list(line["silent"]) == ["till"] and line["passed"] is False
            assert await audit.process.wait() == 1
        await client.close()


async def test_what_went_on_is_read_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit that judges after each page, of a system whose reaction was taken out after it had acted, comes to an
    end: what it called settled too early is judged anew, with all of it read first."""
    monkeypatch.setattr(holdfast.operator.audit, "PAGE", 3)
    async with Far(chained(), SECRET) as far:
        client = Client.http(far.urls)
        for n in range(6):
            await client.run(Post(f"p{n}", 1))
        await until(lambda: far.nodes["porter"].writer.head >= 24 and not far.nodes["porter"].dispatch.sagas.open)
        audit = HttpAudit(chained(notes=False), far.urls, Settings(secret=SECRET), share=0.99)
        for _ in range(4):
            await asyncio.to_thread(audit.round)
        assert not audit.stale and audit.behind == 0
        assert (audit.report().settled, audit.report().open) == (6, 0)
        await client.close()


async def test_a_staged_transaction_is_judged_over_http() -> None:
    """G6: a staged transaction, its parts read page by page, is settled when it is told everywhere, once."""
    async with Far(trading(), SECRET) as far:
        client = Client.http(far.urls)
        await client.run(Move("a", 10))
        await client.run(Trade("t1", moves=(("a", -1), ("b", 1)), lists=("x",)))
        await until(lambda: not far.nodes["desk"].dispatch.sagas.open)
        audit = HttpAudit(trading(), far.urls, Settings(secret=SECRET))
        for _ in range(2):
            await asyncio.to_thread(audit.round)
        report = audit.report()
        assert (report.settled, report.open) == (2, 0) and audit.behind == 0
        assert any(one.type == DONE for one in far.stores["bank"]._records)  # pyright: ignore[reportPrivateUsage]
        await client.close()
