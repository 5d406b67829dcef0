"""What an audit costs: the shop as four processes over HTTP, bought at by many callers, without and with
`holdfast audit shop.invariants:shop --follow` beside it, by turns; how fast it catches up; a record with no I/O.

How far an auditor is behind when the load ends is said on standard error: a service's head then, less what was judged.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.load import WARM_SHARE, Measured, closed_loop, measured
from holdfast import Client, start
from holdfast.config import Settings
from holdfast.demo.run import examples_folder
from holdfast.host.supervisor import Supervisor
from holdfast.operator.audit import HttpAudit
from holdfast.operator.client import get

sys.path.insert(0, str(examples_folder()))
from shop.contracts import Checkout, Item, Restock
from shop.invariants import shop

SKUS = ("apple", "bread", "cheese", "dates", "eggs")
CALLERS = 64
TURNS = 4
"""Of the auditor: it follows, stands still, follows."""
LATEST = 10**17
DECLINED = "4000000000000002"


@asynccontextmanager
async def shop_in_processes(folder: Path) -> AsyncGenerator[tuple[Client, dict[str, str]]]:
    """A process per service, its shelves full; a client, and the URLs."""
    supervisor = Supervisor(
        "shop.services:shop", list(shop.services), folder=folder, environ={"PYTHONPATH": str(examples_folder())}
    )
    await supervisor.start()
    client = Client.http(supervisor.urls)
    try:
        await asyncio.gather(*(client.run(Restock(sku, 1_000_000_000)) for sku in SKUS))
        yield client, supervisor.urls
    finally:
        await client.close()
        await supervisor.stop()


async def _buy(client: Client, number: int) -> None:
    chance = random.Random(number)
    items = tuple(Item(sku, 1, 250) for sku in chance.sample(SKUS, chance.choice((1, 1, 2, 3))))
    await client.send(Checkout(f"o{number}", "c1", items, DECLINED if number % 7 == 0 else "4111111111111111"))


class Alternating:
    """Orders from many callers, while an auditor follows and stands still by turns: one run, of which both rows of the
    table are halves, so that what else the machine does falls on both."""

    def __init__(self) -> None:
        self._kept: dict[bool, Measured] = {}

    async def measure(self, folder: Path, seconds: float, *, audited: bool) -> Measured:
        """One half of a run; the other one is kept for who asks next."""
        if audited not in self._kept:
            self._kept = await _alternated(folder, 2 * seconds)
        return self._kept.pop(audited)


async def _alternated(folder: Path, seconds: float) -> dict[bool, Measured]:
    waited: dict[bool, list[float]] = {True: [], False: []}
    follows = True
    async with shop_in_processes(folder) as (client, urls):
        auditor = await _follow(urls)

        async def one(number: int) -> None:
            begun = time.perf_counter()
            await _buy(client, number)
            waited[follows].append(time.perf_counter() - begun)

        load = asyncio.ensure_future(closed_loop(one, CALLERS, seconds * (1 + WARM_SHARE)))
        try:
            await asyncio.sleep(seconds * WARM_SHARE)
            for several in waited.values():
                several.clear()
            for turn in range(TURNS):
                follows = turn % 2 == 0
                auditor.send_signal(signal.SIGCONT if follows else signal.SIGSTOP)
                await asyncio.sleep(seconds / TURNS)
            found = {half: measured(list(several), seconds / 2) for half, several in waited.items()}
            await load
        finally:
            auditor.send_signal(signal.SIGCONT)
            await _said_last(auditor, urls)
    return found


async def _follow(urls: dict[str, str]) -> asyncio.subprocess.Process:
    flags = [flag for name, url in urls.items() for flag in ("--url", f"{name}={url}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast.cli", "audit", "shop.invariants:shop", "--follow", "--json", *flags,
        cwd=examples_folder(), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _said_last(auditor: asyncio.subprocess.Process, urls: dict[str, str]) -> None:
    heads = {name: _log(url)["head"] for name, url in urls.items()}
    auditor.send_signal(signal.SIGINT)
    out, _ = await auditor.communicate()
    last: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    behind = sum(head - last["cut"][name] for name, head in heads.items())
    wrong = f", {len(last['violations'])} violations" if last["violations"] else ""
    text = (
        f"  the auditor: {last['settled']} transactions judged, {behind} of {sum(heads.values())} records behind{wrong}"
    )
    print(text, file=sys.stderr)
    if wrong:
        raise RuntimeError(f"{last['violations'][0]}")


def _log(url: str) -> Any:
    return get(url, "/ops/log", {"brief": 1, "after": LATEST, "limit": 1}, Settings())


async def catching_up(folder: Path, seconds: float) -> Measured:
    """Records a second that one who has read nothing yet judges over HTTP, as fast as it can, of a shop at rest."""
    async with shop_in_processes(folder) as (client, urls):
        await closed_loop(lambda number: _buy(client, number), CALLERS, seconds)
        audit = HttpAudit(shop, urls, Settings())
        begin = time.perf_counter()
        await asyncio.to_thread(audit.round)
        taken = time.perf_counter() - begin
        records = sum(audit.report().cut.values())
        if audit.behind or audit.report().violations:
            raise RuntimeError(f"{audit.behind} records behind, {audit.report().violations}")
    return Measured(records / taken, 0.0, 0.0, records)


async def judged(folder: Path, seconds: float) -> Measured:
    """Records a second through an audit alone: pages that are in memory; the shop's five invariants."""
    from holdfast.core.audit.audit import Audit
    from holdfast.runtime.ops.audit import Reading, reading

    pages: list[tuple[str, Reading]] = []
    async with start(shop, store=f"sqlite:{folder}/") as running:
        client = Client.of(running)
        await asyncio.gather(*(client.run(Restock(sku, 1_000_000_000)) for sku in SKUS))
        await closed_loop(lambda number: _buy(client, number), CALLERS, seconds / 2)
        for name, node in running.nodes.items():
            page = await reading(node, 0)
            pages.append((name, page))
            while page.upto < page.head:
                page = await reading(node, page.upto)
                pages.append((name, page))
        await client.close()
    records, runs, begin = sum(len(page.records) for _, page in pages), 0, time.process_time()
    while time.process_time() < begin + seconds / 2 or not runs:
        audit = Audit(shop)
        for name, page in pages:
            audit.take(name, page.records, page.upto, head=page.head, mark=page.mark)
        audit.check()
        runs += 1
    taken = (time.process_time() - begin) / runs
    print(f"  an audit alone: {taken / records * 1e6:.1f} us a record", file=sys.stderr)
    return Measured(records / taken, 0.0, 0.0, records)
