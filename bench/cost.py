"""`python -m bench.cost --old REV --new .`: the cost rule. What a command costs the processor, beside another revision.

Counted is the processor time, user and system, of all our processes per command: of what a change does to the code it
says more than throughput, which hangs on the disk and on who else is at work. A round is three pairs of processes,
one a side, which work in turn, a quarter of a second at a time, so that a busy neighbour is in both; several, since
one process is faster than another of the same code. Each revision is a git worktree of its own, run by this
environment. Shown is the median of new/old over the rounds, with its 90 % interval (bootstrap over paired rounds).
"Not dearer": the interval ends at 1.05 or below. Throughput and p99 stand beside it and decide nothing.
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
PAIRS = 3
"""Of processes in a round."""
SLICE_SECONDS, WARM_SECONDS, END_SECONDS = 0.25, 0.5, 60


@dataclass
class Side:
    """What one side's slices came to, in the order of the turns."""

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


class Working:
    """One side of a round: a process that works when it is told to. The scenarios are this tree's: both do the same."""

    def __init__(self, tree: Path, scenario: str, seed: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-cost-"))
        sources = os.pathsep.join((str(tree / "src"), str(ROOT)))
        environment = {**os.environ, "PYTHONPATH": sources, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-m", "bench.cost_side", scenario, str(self._folder)]
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def work(self, seconds: float) -> dict[str, float]:
        """Let it work for so long; what that cost."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("a side has ended: see above")
        return json.loads(line)

    def end(self) -> None:
        """Let it end, and forget what it stored."""
        self._process.communicate(timeout=END_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def compare(trees: tuple[Path, Path], scenario: str, rounds: int, seconds: float) -> Verdict:
    """All rounds of one scenario."""
    found, ratios = list[tuple[Side, Side]](), list[float]()
    for number in range(rounds):
        pairs = [pair_of(trees, scenario, number * PAIRS + one, seconds / PAIRS) for one in range(PAIRS)]
        found += pairs
        ratios.append(statistics.fmean(paired(old, new) for old, new in pairs))
        print(f"{scenario}, round {number + 1}/{rounds}: {ratios[-1]:.3f}", file=sys.stderr)
    return judged(scenario, ratios, found)


def pair_of(trees: tuple[Path, Path], scenario: str, number: int, seconds: float) -> tuple[Side, Side]:
    """Each side in a new process, in turn; who is first changes."""
    sides = (Side(), Side())
    working = [Working(tree, scenario, number) for tree in trees]
    turns = max(1, round(seconds / SLICE_SECONDS))
    try:
        for one in working:
            one.work(WARM_SECONDS)
        for turn in range(turns):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                cost = working[which].work(min(seconds, SLICE_SECONDS))
                sides[which].cpu_us.append(cost["cpu_seconds"] / cost["commands"] * 1e6)
                sides[which].per_s.append(cost["per_s"])
                sides[which].p99_ms.append(cost["p99_ms"])
    finally:
        for one in working:
            one.end()
    return sides


def paired(old: Side, new: Side) -> float:
    """New/old of one pair: the median over its turns, so that what disturbs one turn decides nothing."""
    return statistics.median(one / other for one, other in zip(new.cpu_us, old.cpu_us, strict=True))


def judged(scenario: str, ratios: list[float], pairs: list[tuple[Side, Side]]) -> Verdict:
    """The median of the rounds' new/old and its interval, and what they say."""
    low, high = interval(ratios)
    says = "not dearer" if high <= DEARER_FROM else "dearer" if low > DEARER_FROM else "not known"
    olds, news = [old for old, _ in pairs], [new for _, new in pairs]
    return Verdict(
        scenario=scenario,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        says=says,
        old_us=statistics.median(us for one in olds for us in one.cpu_us),
        new_us=statistics.median(us for one in news for us in one.cpu_us),
        per_s=statistics.median(r for one in news for r in one.per_s)
        / statistics.median(r for one in olds for r in one.per_s),
        p99=statistics.median(ms for one in news for ms in one.p99_ms)
        / statistics.median(ms for one in olds for ms in one.p99_ms),
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
