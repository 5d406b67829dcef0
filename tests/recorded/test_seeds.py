"""The logs that a seed leaves are those of the release before the restructuring, byte for byte (see `seeds.py`)."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from holdfast.testing import Schedule, VirtualSystem, replay
from recorded.seeds import COLUMNS, RECORDED, SYSTEMS, Seeds, differing, hash_of, load
from support.scenarios import in_shop, shop

SEEDS = (0, 1, 7, 20, 41)
HASHES = load(RECORDED)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_seed_leaves_the_logs_that_it_left_before(name: str) -> None:
    """G12: undisturbed and under faults and latencies, every column of every record is what it was: no behaviour has
    changed, no stored byte, and no order. Where a change means to change them, record the hashes anew and say why."""
    seeds = Seeds(name)
    assert {seed: seeds.hash(seed) for seed in SEEDS} == {seed: HASHES[name][seed] for seed in SEEDS}


def test_every_column_is_in_the_hash() -> None:
    """One column of one record that is another gives another hash."""
    systems: list[VirtualSystem] = []

    async def watched(system: VirtualSystem) -> None:
        systems.append(system)
        await in_shop(system)

    replay(shop, watched, Schedule())
    logs = {name: systems[0].log(name) for name in systems[0].services}

    def hashed(changed: dict[str, Any]) -> str:
        first, *rest = logs["order"]
        mine = {**logs, "order": [msgspec.structs.replace(first, **changed), *rest]}
        stand_in: Any = SimpleNamespace(services=systems[0].services, log=mine.__getitem__)
        return hash_of(stand_in)

    headers = msgspec.structs.replace(logs["order"][0].headers, hop=9)
    others = [{column: "other"} for column in COLUMNS] + [{"headers": headers}]
    found = {hashed(changed) for changed in ({}, *others)}
    assert len(found) == len(COLUMNS) + 2 and set(logs["order"][0].__struct_fields__) == {*COLUMNS, "headers"}


def test_the_first_seed_that_differs_is_named() -> None:
    """A comparison names each system that differs with its first seed, and a system that one side lacks."""
    old, new = {"a": ["1", "2", "3"], "b": ["1"], "c": []}, {"a": ["1", "x", "y"], "b": ["1", "2"]}
    assert differing(old, new) == ["c: only on one side", "a: seed 1 is the first of 2 that differ"]
    assert differing(old, old) == []
