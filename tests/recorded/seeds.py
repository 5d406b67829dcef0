"""Seed hashes: the logs that the explorer's systems leave, one hash for each system and seed, to compare revisions.

A change that is meant to change no behaviour changes no hash. A seed decides faults, latencies, ids and the order of
everything in virtual time; the hash covers every column of every record of every log. `tests/recorded/hashes.json`
holds what the release before the restructuring left, but for five of its 840: three of `calls` and one of `chained`
since what waits is tried in the order in which it is due, and one of `chained` since a system in virtual time is not
settled while something is tried. `test_seeds.py` checks a few of them, and this program as many as one wants:

    make seeds ARGS="--check"                        against tests/recorded/hashes.json
    make seeds ARGS="--seeds 10000 --out new.json"   of this checkout; the same in another one, then
    make seeds ARGS="--compare old.json new.json"    names the first seed of each system that differs

Exits 1 where something differs. Hashes hang neither on PYTHONHASHSEED nor on the machine.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from tests.explore import test_explore_handlers as handlers
from tests.marketplace import test_marketplace_explore as marketplace
from tests.runtime import test_releases as releases
from tests.runtime import test_versions as versions

from holdfast import System
from holdfast.testing import Fault, Found, Schedule, VirtualSystem, replay
from support.scenarios import HUNTS
from support.systems import sales
from support.systems.reactions import Post, chained

RECORDED = Path(__file__).with_name("hashes.json")
NAMED = "position kind destination stream version type data tx correlation cause at"
COLUMNS = NAMED.split()
"""Of the table `log`, beside `headers`, which are hashed as they are stored."""
FAULTS_MAX = 4
BROKEN = "!"
"""Behind a hash: an invariant did not hold there, or it was not settled. It has a hash all the same."""
AT_COMMIT = "crash_before crash_after refuse doubt slow clock_ahead clock_back"
AT_FRAME = "lose_request lose_answer duplicate late_copy delay crash_receiver crash_sender partition"
AT_QUESTION = "lose_answer delay"
FAULTS = {
    "": AT_COMMIT.split(),
    ">": AT_FRAME.split(),
    "<": AT_QUESTION.split(),
    "?": AT_QUESTION.split(),
}
"""What can go wrong at a commit, a frame, a page of a feed, a question. Written here once more: a new kind of fault in
the library must not draw other faults for an old seed."""


async def in_chain(system: VirtualSystem) -> None:
    """Posts that are noted, stamped and walked: some notes fail at first, and one walk in ten is undone."""
    for post in (Post("p1", 2), Post("p10"), Post("p2", 3)):
        await system.ask(post, post.id)
    await system.settle(within_seconds=2700)


REFUSING = sales.Faults(refused={"pay:o1", "return:tea", "post:post2"})


def refusing() -> System:
    """The sale, of which one can neither go on nor back, and one not go on."""
    return sales.system(REFUSING)


async def in_refusing(system: VirtualSystem) -> None:
    """A sale that is stuck as it turns back, one that is stuck past its pivot, and one that is sold."""
    told = [sales.Sell("o1"), sales.Sell("o2", ("cup",), "post2"), sales.Sell("o3", ("mug",), "post3")]
    for sell in told:
        with suppress(TimeoutError):
            await system.ask(sell, sell.order, seconds=30)
    await system.settle(within_seconds=2700)


@contextmanager
def lending(store: type[Any] | None) -> Iterator[None]:
    """Let virtual systems have stores of this class, which lends transactions to handlers."""
    module: Any = sys.modules[VirtualSystem.__module__]
    plain = module.VirtualStore
    module.VirtualStore = store or plain
    try:
        yield
    finally:
        module.VirtualStore = plain


STUCK = {"refusing"}
"""Systems in which sagas end stuck, as they should."""
SYSTEMS: dict[str, tuple[Any, Callable[..., Any], type[Any] | None]] = {
    **{name: (*hunt, None) for name, hunt in HUNTS.items()},
    "chained": (chained, in_chain, None),
    "marketplace": (marketplace.system, marketplace.scenario, None),
    "handlers shared": (handlers.office, handlers.sales, handlers.Shared),
    "handlers own": (handlers.office, handlers.sales, handlers.Own),
    "responder first": (releases.publishing, releases.responder_first, None),
    "refusing": (refusing, in_refusing, None),
    "reader first": (versions.first_version, versions.reader_first, None),
}
"""Name -> what makes the system, what its callers do, and the store it needs."""


def hash_of(system: VirtualSystem) -> str:
    """A hash of every column of every record of every log."""
    found = hashlib.sha256()
    for name in sorted(system.services):
        for record in system.log(name):
            values = [getattr(record, column) for column in COLUMNS]
            found.update(msgspec.msgpack.encode((name, values, msgspec.json.encode(record.headers))))
    return found.hexdigest()[:16]


class Seeds:
    """The runs of one system. Seed 0 is undisturbed; every other draws up to four faults, and latencies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._made, self._scenario, self._store = SYSTEMS[name]
        _, seen = self._run(Schedule())
        self._most: dict[str, int] = {}
        for where, number in seen:
            self._most[where] = max(number, self._most.get(where, 0))

    def schedule(self, seed: int) -> Schedule:
        """What goes wrong at that seed; also a little past the points that the undisturbed run comes by."""
        if not seed:
            return Schedule()
        chance, faults = random.Random(seed), list[Fault]()
        for _ in range(chance.randint(0, FAULTS_MAX)):
            where = chance.choice(list(self._most))
            sign = next((sign for sign in "><?" if sign in where), "")
            faults.append(Fault(chance.choice(FAULTS[sign]), where, chance.randint(1, self._most[where] + 2)))
        return Schedule(tuple(faults), seed, jitter=True)

    def hash(self, seed: int) -> str:
        """The hash of the logs at that seed."""
        return self._run(self.schedule(seed))[0]

    def _run(self, schedule: Schedule) -> tuple[str, list[tuple[str, int]]]:
        systems: list[VirtualSystem] = []

        async def watched(system: VirtualSystem) -> None:
            systems.append(system)
            await self._scenario(system)

        seen, broken = list[tuple[str, int]](), ""
        with lending(self._store):
            try:
                seen = replay(self._made, watched, schedule, stuck=self.name in STUCK).seen
            except Found as error:
                broken = BROKEN
                print(f"{self.name} breaks at {schedule}: {error.violations[0]}", file=sys.stderr)
        (system,) = systems
        return hash_of(system) + broken, seen


def _hashes(part: tuple[str, int, int]) -> list[str]:
    name, first, end = part
    seeds = Seeds(name)
    return [seeds.hash(seed) for seed in range(first, end)]


def recorded(names: list[str], count: int, workers: int) -> dict[str, list[str]]:
    """System -> its hashes by seed; says how long each took."""
    found: dict[str, list[str]] = {}
    size = max(1, min(250, -(-count // workers)))
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        for name in names:
            begun = time.perf_counter()
            parts = [(name, first, min(first + size, count)) for first in range(0, count, size)]
            found[name] = [one for part in pool.map(_hashes, parts, 1) for one in part]
            taken = time.perf_counter() - begun
            print(f"{name}: {count} seeds in {taken:.1f} s, {digest(found[name])}", file=sys.stderr)
    return found


def digest(hashes: list[str]) -> str:
    """One hash of many, for the eye."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def differing(old: dict[str, list[str]], new: dict[str, list[str]]) -> list[str]:
    """For each system the first seed that differs, and how many do, among those that both sides have."""
    found = [f"{name}: only on one side" for name in sorted(set(old) ^ set(new))]
    for name in sorted(set(old) & set(new)):
        seeds = [seed for seed, (one, other) in enumerate(zip(old[name], new[name], strict=False)) if one != other]
        if seeds:
            found.append(f"{name}: seed {seeds[0]} is the first of {len(seeds)} that differ")
    return found


def load(path: Path) -> dict[str, list[str]]:
    """What a run wrote."""
    return json.loads(path.read_text("utf-8"))


def save(path: Path, hashes: dict[str, list[str]]) -> None:
    """Six hashes a line."""
    systems = [
        f'"{name}": [\n' + ",\n".join(json.dumps(found[at : at + 6])[1:-1] for at in range(0, len(found), 6)) + "\n]"
        for name, found in hashes.items()
    ]
    path.write_text("{\n" + ",\n".join(systems) + "\n}\n", "utf-8")


def main() -> int:
    """Run seeds, and compare or write."""
    parser = argparse.ArgumentParser(prog="make seeds", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=0, help="of each system: 0 to N-1; as many as are recorded")
    parser.add_argument("--only", default="", help="systems whose name holds this text")
    parser.add_argument("--out", type=Path, help="write the hashes to this file")
    parser.add_argument("--check", action="store_true", help="compare with tests/recorded/hashes.json")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="compare two files, run nothing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.compare:
        return told(differing(*map(load, asked.compare)))
    names = [name for name in SYSTEMS if asked.only in name]
    if not names or not (asked.out or asked.check):
        parser.error("name --out FILE, --check or --compare, and systems that there are")
    found = recorded(names, asked.seeds or 60, asked.workers)
    if asked.out:
        save(asked.out, found)
    old = load(RECORDED) if asked.check else found
    return told(differing({name: hashes for name, hashes in old.items() if name in names}, found))


def told(differences: list[str]) -> int:
    """Say what differs."""
    print("\n".join(differences) or "no hash differs")
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
