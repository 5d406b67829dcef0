"""`python -m marketplace.drive`: drive a marketplace that runs, measure it, and audit it.

By default the services are expected behind one listener, as `holdfast run marketplace.system:system` serves them;
`--url SERVICE=URL` names each of any other deployment. Prints a table, or with `--json` one object. Exit code 0 only
when nothing failed and, with `--audit`, every check counted something and holds.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from holdfast import start
from holdfast.demo.run import Check, judged
from holdfast.host.server import run_loop
from holdfast.web.app import make_app
from holdfast.web.serve import serve
from marketplace.answers import Reader
from marketplace.bench import SWITCH
from marketplace.data import Size
from marketplace.driver import SERVICES, Api, Driver, ingest, measured, put_back, session
from marketplace.inside import Inside
from marketplace.invariants import system
from marketplace.workload import KINDS, Mix

SHOW_SECONDS = 0.5


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m marketplace.drive", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--base", default="http://127.0.0.1:8000", help="where all services are served, each under its name")
    add("--url", action="append", default=[], metavar="SERVICE=URL", help="where one service is served; repeat")
    add("--here", action="store_true", help="start the marketplace in this process, with SQLite in a fresh folder")
    add("--seconds", type=float, default=10.0, help="how long to drive")
    add("--concurrency", type=int, default=48, help="transactions on their way at a time")
    add("--customers", type=int, default=1000)
    add("--products", type=int, default=1000)
    add("--per-seller", type=int, default=10, help="products of each seller")
    add("--fill", type=int, default=0, help="carts to fill before the clock starts; their sessions only check out")
    add("--units", type=int, default=10_000, help="of each product at the beginning")
    add("--declined", type=float, default=0.01, help="share of customers whose card is refused")
    add("--mix", default="30,35,38,40,100", help=f"cumulative shares of {', '.join(KINDS)}")
    add("--zipf", type=float, default=0.0, help="constant of the Zipf distribution of sellers and products; 0: uniform")
    add("--items", default="1-10", help="lines of a cart, from-to")
    add("--quantity", type=int, default=10, help="units of a line at most")
    add("--checkout", type=int, default=100, help="percent of sessions that check out; the others seal the cart")
    add("--voucher", type=int, default=5, help="percent of lines with a voucher of a tenth of the price")
    add("--adjust", type=int, default=10, help="a price goes up by 1 to so many percent, the last excluded")
    add("--epoch", type=float, default=0.0, metavar="SECONDS", help="with --json: measures for each such stretch too")
    add("--seed", type=int, default=1)
    add("--then", choices=("reset", "cleanup"), help="call that on every service afterwards; needs MARKETPLACE_BENCH=1")
    add("--audit", action="store_true", help="wait until all has settled, then check that everything adds up")
    add("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    asked.anomalies = None
    return asked


def urls_of(asked: argparse.Namespace) -> dict[str, str]:
    """Service -> URL. Exits where a name is none of the eight."""
    found = {name: f"{asked.base.rstrip('/')}/{name}" for name in SERVICES}
    for text in asked.url:
        name, equals, url = text.partition("=")
        if name not in found or not equals:
            sys.exit(f"--url {text!r}: write SERVICE=URL; services are {', '.join(SERVICES)}")
        found[name] = url
    return found


def mix_of(asked: argparse.Namespace) -> Mix:
    """The workload's parameters. Exits where the shares are not five rising numbers that end with 100."""
    shares = [int(text) if text.strip().isdigit() else -1 for text in asked.mix.split(",")]
    if len(shares) != len(KINDS) or sorted(shares) != shares or shares[0] < 0 or shares[-1] != 100:
        sys.exit(f"--mix {asked.mix!r}: write {len(KINDS)} rising numbers, the last 100, such as 30,35,38,40,100")
    one, two, three, four, five = shares
    low, _, high = asked.items.partition("-")
    if not (low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high)):
        sys.exit(f"--items {asked.items!r}: write FROM-TO, such as 1-10")
    if asked.quantity < 1 or asked.adjust < 2 or not (0 <= asked.checkout <= 100 and 0 <= asked.voucher <= 100):
        sys.exit("--quantity is at least 1, --adjust at least 2, --checkout and --voucher are percent")
    return Mix(
        (one, two, three, four, five), int(low), int(high), asked.quantity, asked.checkout, asked.voucher,
        asked.adjust, asked.zipf, asked.zipf,
    )  # fmt: skip


def table(found: dict[str, Any]) -> Table:
    """What was measured, a line per kind."""
    shown = Table(title=f"{found['throughput_per_s']} transactions/s in {found['seconds']} s")
    shown.add_column("transaction")
    for name in ("count", "SUCCESS", "NOT_ACCEPTED", "ERROR", "mean_ms", "p50_ms", "p90_ms", "p99_ms"):
        shown.add_column(name, justify="right")
    for kind, row in found["kinds"].items():
        shown.add_row(
            kind,
            *(
                str(row.get(name, 0))
                for name in ("count", "SUCCESS", "NOT_ACCEPTED", "ERROR", "mean_ms", "p50_ms", "p90_ms", "p99_ms")
            ),
        )
    return shown


async def here(asked: argparse.Namespace, console: Console) -> tuple[dict[str, Any], list[Check]]:
    """Start everything in this process, drive without sockets, measure; the audit goes over HTTP."""
    size = Size(asked.customers, asked.products, asked.per_seller, asked.units, asked.declined)
    with tempfile.TemporaryDirectory(prefix="marketplace-") as folder:
        async with start(system, store=f"sqlite:{folder}/") as running, session() as http:
            api = Inside(running)
            console.print(f"entering {size.customers} customers, {size.products} products of {size.sellers} sellers")
            rows = await ingest(api, size, asked.seed)
            app = make_app(running.nodes)
            ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            serving = asyncio.ensure_future(serve(app, host="127.0.0.1", port=0, ready=ready.set_result))
            urls = {name: f"http://127.0.0.1:{await ready}/{name}" for name in SERVICES}
            try:
                reader = Reader(urls, http)
                await reader.settled(seconds=120)
                driver = Driver(api, rows, size, mix_of(asked), seed=asked.seed + 1)
                since = await reader.heads()
                await driver.fill(asked.fill)
                await driver.run(asked.seconds, asked.concurrency)
                checks = await _audited(asked, driver, urls, reader, since)
                await _put_back(asked, api)
                return measured(driver, asked.epoch), checks
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


async def _put_back(asked: argparse.Namespace, api: Api) -> None:
    try:
        await (put_back(api, asked.then) if asked.then else asyncio.sleep(0))
    except RuntimeError as error:
        sys.exit(f"{error}\nis {SWITCH}=1 set where the services run?")


async def _audited(
    asked: argparse.Namespace, driver: Driver, urls: dict[str, str], reader: Reader, since: dict[str, int]
) -> list[Check]:
    """The system's invariants over all that was ever recorded, and what this driver was told and shown."""
    if not asked.audit:
        return []
    if left := await reader.settled(seconds=60):
        sys.exit(f"the marketplace does not come to rest: {'; '.join(left[:5])}")
    asked.anomalies = await reader.published_anomalies(since)
    found = await asyncio.to_thread(judged, system, urls, seconds=10.0)
    return [*found, *(Check(*one) for one in await reader.checks(driver.told(), since))]


async def drive(asked: argparse.Namespace, console: Console) -> tuple[dict[str, Any], list[Check]]:
    """Enter the data, drive, measure; audit where that was asked for."""
    size = Size(asked.customers, asked.products, asked.per_seller, asked.units, asked.declined)
    urls, mix = urls_of(asked), mix_of(asked)
    async with session() as http:
        api = Api(urls, http)
        console.print(f"entering {size.customers} customers, {size.products} products of {size.sellers} sellers")
        rows = await ingest(api, size, asked.seed)
        reader = Reader(urls, http)
        if left := await reader.settled(seconds=120):
            sys.exit(f"the marketplace has not come to rest after the data was entered: {'; '.join(left[:5])}")
        driver = Driver(api, rows, size, mix, seed=asked.seed + 1)
        since = await reader.heads()
        await driver.fill(asked.fill)
        with Live(console=console, transient=True) as live:
            showing = asyncio.ensure_future(_show(driver, live))
            await driver.run(asked.seconds, asked.concurrency)
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        checks = await _audited(asked, driver, urls, reader, since)
        await _put_back(asked, api)
        return measured(driver, asked.epoch), checks


async def _show(driver: Driver, live: Live) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SHOW_SECONDS)
        driver.ended = loop.time()
        live.update(table(measured(driver)))


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code."""
    asked = parsed(arguments)
    console = Console(stderr=asked.json)
    found, checks = run_loop((here if asked.here else drive)(asked, console))
    if asked.json:
        rows = [{"name": one.name, "passed": one.passed, "counted": one.counted} for one in checks]
        wrong = [text for one in checks for text in one.violations]
        sys.stdout.write(
            json.dumps({**found, "checks": rows, "violations": wrong, "published_anomalies": asked.anomalies}) + "\n"
        )
    else:
        console.print(table(found))
        for one in checks:
            console.print(f"{'ok ' if one.passed else 'NO '} {one.name}: {one.counted} looked at")
            for text in one.violations[:5]:
                console.print(f"      {text}")
        if checks:
            console.print(f"published anomaly count (a figure: it counts what is none too): {asked.anomalies}")
    return 0 if not found["errors"] and all(one.passed for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
