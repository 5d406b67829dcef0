"""`holdfast demo`: an example as processes under load; some are killed with SIGKILL, and then all are audited.

`demo.run` does the work; this module shows it on a terminal. Exit code 0 only if everything settled, every check
counted something and nothing was violated.
"""

import asyncio
import json
import random
import sys
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from holdfast import logs
from holdfast.cli.options import AsJson
from holdfast.demo.run import Demonstration, DemoReport, Example, Stores
from holdfast.host.server import run_loop

FRAMES_PER_S = 5
VIOLATIONS_SHOWN = 10
EXAMPLES = "The Online Marketplace (eight services), or a small shop (four)."
KILLS_MIN = 2
"""This many kills hit the coordinator and a service that it sends commands to."""


def demo(
    *,
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=86400))] = 15.0,
    kills: Annotated[int, Parameter(validator=Number(gte=0, lte=1000))] = 3,
    seed: int | None = None,
    sabotage: Literal["cursor", "send", "undo"] | None = None,
    example: Annotated[Example, Parameter(help=EXAMPLES)] = "marketplace",
    stores: Stores = "sqlite",
    as_json: AsJson = False,
) -> int:
    """Run a marketplace of eight processes under load, kill some of them, and audit what is left.

    For example:
    - `holdfast demo`

    - `holdfast demo --example shop`

    - `holdfast demo --seconds 60 --kills 20 --seed 7`

    - `holdfast demo --stores mixed`: SQLite, PostgreSQL and MariaDB; the servers are killed too

    - `holdfast demo --sabotage cursor`: one protection taken out; the audit must find what breaks

    Parameters
    ----------
    seconds
        How long the load lasts.
    kills
        How many times a service is killed with SIGKILL during the load.
    seed
        Decides orders, moments and victims; a random one if it is not given.
    sabotage
        Which protection is taken out: the receivers' cursors, some sent records, or undos. A cursor is missed only
        after a kill, so there are two kills at least.
    stores
        The engines that keep the services' logs; mixed: each engine in turn. Database servers are started here
        (`pip install holdfast[servers]`; MariaDB from Debian's package), and are killed too.
    """
    chosen = random.SystemRandom().randrange(10_000) if seed is None else seed
    logs.configure(level="error")
    if sabotage == "cursor":
        kills = max(kills, KILLS_MIN)
    report, folder = run_loop(_run(seconds, kills, chosen, sabotage or "", example, stores, as_json=as_json))
    bad = report.violations
    if as_json:
        print(json.dumps(report.as_value()), flush=True)
    if bad and folder:
        print(f"stores and logs are kept in {folder}", file=sys.stderr)
    return 1 if bad else 0


async def _run(
    seconds: float, kills: int, seed: int, sabotage: str, example: Example, stores: Stores, *, as_json: bool
) -> tuple[DemoReport, str]:
    shown = Demonstration(seconds=seconds, kills=kills, seed=seed, sabotage=sabotage, example=example, stores=stores)
    keep = False
    try:
        report = await (shown.run() if as_json else _watched(shown, seed))
        keep = bool(report.violations)
        if not as_json:
            await _tell(report, shown)
    finally:
        await shown.close(keep=keep)
    return report, str(shown.folder)


async def _watched(shown: Demonstration, seed: int) -> DemoReport:
    """Run it with a live table, if there is a terminal to show it on."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    missing = f", without: {shown.sabotage}" if shown.sabotage else ""
    console.print(f"[bold]{shown.title}[/], each with a log of its own ({shown.stores}). Seed {seed}{missing}.")
    running = asyncio.create_task(shown.run())
    with ExitStack() as stack:
        live = stack.enter_context(Live(_table(shown), console=console)) if console.is_terminal else None
        while not running.done():
            await asyncio.wait({running}, timeout=1 / FRAMES_PER_S)
            if live is not None:
                live.update(_table(shown))
    return running.result()


def _table(shown: Demonstration) -> Any:
    from rich.table import Table

    status = shown.status
    title = (
        f"{status.phase}, {status.seconds:.0f} s: {status.submitted} {shown.noun}, {status.completed} done,"
        f" {status.undone} undone, {len(status.kills)} kills"
    )
    table = Table("service", "process", "state", "records", "open sagas", "killed", title=title, title_justify="left")
    for column in table.columns[3:]:
        column.justify = "right"
    for name in shown.services:
        one = status.services.get(name, {})
        state = "[green]up[/]" if one.get("up") else "[red]down[/]"
        table.add_row(
            name,
            str(one.get("pid") or "-"),
            state,
            f"{one.get('head', 0):,}",
            str(one.get("sagas_open", 0)),
            str(status.kills.count(name) or ""),
        )
    return table


async def _tell(report: DemoReport, shown: Demonstration) -> None:
    """Show the audit, one order's trail, and what to try next."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("check", "counted", "", title="Audit, from what the services show alone", title_justify="left")
    table.columns[1].justify = "right"
    for check in report.checks:
        table.add_row(check.name, f"{check.counted:,}", "[green]holds[/]" if check.passed else "[red]violated[/]")
    console.print(table)
    console.print(
        f"{report.submitted:,} {shown.noun}: {report.completed:,} done, {report.undone:,} refused or undone,"
        f" {report.in_flight} without an answer; {report.kills} kills; {report.throughput_per_s:,.0f} {shown.noun}/s,"
        f" p50 {report.latency_ms['p50']:.0f} ms, p99 {report.latency_ms['p99']:.0f} ms",
        soft_wrap=True,
    )
    for text in report.violations[:VIOLATIONS_SHOWN]:
        console.print(f"[red]![/] {escape(text)}")
    if (more := len(report.violations) - VIOLATIONS_SHOWN) > 0:
        console.print(f"[red]![/] and {more:,} more")
    if report.correlation_id:
        console.print(f"\n[bold]One trail[/], as `holdfast trail {report.correlation_id}` shows it while services run:")
        console.print(
            await asyncio.to_thread(_trail, report.correlation_id, shown), markup=False, highlight=False, soft_wrap=True
        )
    if not report.violations:
        console.print("\n[bold]Try next[/]: holdfast demo --kills 20    holdfast demo --sabotage cursor")
        console.print("             holdfast run --help             the services are in examples/")


def _trail(id: str, shown: Demonstration) -> str:
    """The tree of one id, over all services."""
    from holdfast.config import Settings
    from holdfast.core.explain.trail import build
    from holdfast.core.explain.tree import render
    from holdfast.operator.records import gather_records

    found, _ = gather_records(shown.supervisor.urls, id, Settings())
    return render(build(found))
