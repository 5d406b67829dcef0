"""`python -m bench.cost --old REV --new .`: the cost rule. What a command costs the processor, beside another revision.

Counted is the processor time, user and system, of all our processes per command: of what a change does to the code it
says more than throughput, which hangs on the disk and on who else is at work. Each scenario is run on both sides in
turn, a process and a folder each, round by round, and who is first changes; each revision is a git worktree of its own,
run by this environment. Shown is the median of new/old over the rounds, with its 90 % interval (bootstrap over paired
rounds). "Not dearer": the interval ends at 1.05 or below. Throughput and p99 stand beside it and decide nothing.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCENARIOS = ("commands", "saga", "saga over HTTP", "handlers", "effects", "views")
"""What `bench.cost_side` runs."""
DEARER_FROM = 1.05
RESAMPLES = 10_000
LOW, HIGH = 0.05, 0.95
START_SECONDS = 60


@dataclass
class Side:
    """What one side's rounds came to."""

    cpu_us: list[float] = field(default_factory=list[float])
    per_s: list[float] = field(default_factory=list[float])
    p99_ms: list[float] = field(default_factory=list[float])


@dataclass
class Verdict:
    """What one scenario costs, new beside old."""

    scenario: str
    ratio: float
    low: float
    high: float
    says: str
    old_us: float
    new_us: float
    per_s: float
    p99: float
    """New/old, like `per_s`."""


@contextmanager
def checked_out(revision: str) -> Generator[Path]:
    """A revision's tree; `.` is this one, as it is."""
    if revision == ".":
        yield ROOT
        return
    folder = Path(tempfile.mkdtemp(prefix="holdfast-cost-"))
    git = ["git", "-C", str(ROOT), "worktree"]
    try:
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder / "tree"), revision], check=True)
        yield folder / "tree"
    finally:
        subprocess.run([*git, "remove", "--force", str(folder / "tree")], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def once(tree: Path, scenario: str, seconds: float) -> dict[str, float]:
    """One scenario on one side, in a process of its own. The scenarios are this tree's, so that both do the same."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-cost-"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree / "src"), str(ROOT)))}
    command = [sys.executable, "-m", "bench.cost_side", scenario, str(folder), str(seconds)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds * 3 + START_SECONDS,
            check=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(trees: tuple[Path, Path], scenario: str, rounds: int, seconds: float) -> Verdict:
    """All rounds of one scenario."""
    sides = (Side(), Side())
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            found = once(trees[which], scenario, seconds)
            sides[which].cpu_us.append(found["cpu_seconds"] / found["commands"] * 1e6)
            sides[which].per_s.append(found["per_s"])
            sides[which].p99_ms.append(found["p99_ms"])
        old, new = sides[0].cpu_us[-1], sides[1].cpu_us[-1]
        print(f"{scenario}, round {number + 1}/{rounds}: {old:.1f} µs, {new:.1f} µs, {new / old:.3f}", file=sys.stderr)
    return judged(scenario, *sides)


def judged(scenario: str, old: Side, new: Side) -> Verdict:
    """The median of new/old and its interval, and what they say."""
    ratios = [one / other for one, other in zip(new.cpu_us, old.cpu_us, strict=True)]
    low, high = interval(ratios)
    says = "not dearer" if high <= DEARER_FROM else "dearer" if low > DEARER_FROM else "not known: more rounds"
    return Verdict(
        scenario=scenario,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        says=says,
        old_us=statistics.median(old.cpu_us),
        new_us=statistics.median(new.cpu_us),
        per_s=statistics.median(new.per_s) / statistics.median(old.per_s),
        p99=statistics.median(new.p99_ms) / statistics.median(old.p99_ms),
    )


def interval(ratios: list[float]) -> tuple[float, float]:
    """Where the median lies with 90 %, by drawing as many rounds again and again."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[int(RESAMPLES * LOW)], medians[int(RESAMPLES * HIGH) - 1]


def show(verdicts: list[Verdict]) -> None:
    """The table."""
    print(
        f"{'scenario':<16}{'old µs':>9}{'new µs':>9}  {'new/old':>7}  {'90 %':<15}  verdict      (per s, p99: new/old)"
    )
    for one in verdicts:
        print(
            f"{one.scenario:<16}{one.old_us:>9.1f}{one.new_us:>9.1f}  {one.ratio:>7.3f}"
            f"  {f'{one.low:.3f} to {one.high:.3f}':<15}  {one.says:<12}"
            f" ({one.per_s:.2f}, {one.p99:.2f})"
        )


def main() -> int:
    """Compare, and print the table or JSON. Exits 1 where something is not shown to be no dearer."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--old", default="HEAD", help="a revision")
    parser.add_argument("--new", default=".", help="a revision, or . for what is checked out here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each scenario, side and round")
    parser.add_argument("--only", default="", help="scenarios whose name holds this text")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    chosen = [name for name in SCENARIOS if asked.only in name]
    if not chosen or asked.rounds < 1 or asked.seconds <= 0:
        parser.error(f"--rounds and --seconds above zero, --only one of: {', '.join(SCENARIOS)}")
    with checked_out(asked.old) as old, checked_out(asked.new) as new:
        verdicts = [compare((old, new), name, asked.rounds, asked.seconds) for name in chosen]
    if asked.json:
        print(json.dumps([asdict(one) for one in verdicts], indent=2))
    else:
        show(verdicts)
    return int(any(one.says != "not dearer" for one in verdicts))


if __name__ == "__main__":
    sys.exit(main())
