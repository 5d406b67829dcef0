"""The bench runs: one short round of it prints a line with figures for every measurement that was asked for; and the
cost rule judges by paired rounds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.cost import SCENARIOS, Side, judged, paired
from bench.cost_side import SCENARIOS as RUN

ROOT = Path(__file__).parents[2]


def test_one_short_round() -> None:
    """Commands at one caller, on each engine beside what that can do alone: all are measured."""
    command = [sys.executable, "-m", "bench", "--seconds", "0.5", "--rounds", "1", "--only", "command, 1 ", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found, "nothing was measured"
    assert "per_s" in done.stdout or "rate" in done.stdout or "throughput" in done.stdout, done.stdout[:500]


def test_every_scenario_has_a_cost(tmp_path: Path) -> None:
    """Each scenario of the cost rule runs on the sources that its process is given, and says what commands cost."""
    assert set(SCENARIOS) == set(RUN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    for name in SCENARIOS:
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-m", "bench.cost_side", name, str(folder)]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input="0.3\n0.3\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for found in map(json.loads, done.stdout.splitlines()):
            assert found["commands"] > 20 and found["cpu_seconds"] > 0 and found["per_s"] > 0 and found["p99_ms"] > 0
        assert len(done.stdout.splitlines()) == 2, name


def test_other_sources_are_refused(tmp_path: Path) -> None:
    """A side whose holdfast is not the one it was given measures nothing: it would compare a revision with itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    command = [sys.executable, "-m", "bench.cost_side", "commands", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and "is imported from" in done.stderr


@pytest.mark.parametrize(
    ("ratios", "says"),
    [
        ((1.00, 0.98, 1.01, 1.02, 0.99, 1.00, 1.01), "not dearer"),
        ((1.10, 1.08, 1.12, 1.09, 1.11, 1.10, 1.13), "dearer"),
        ((0.90, 1.20, 1.00, 1.10, 0.95, 1.15, 1.02), "not known"),
    ],
)
def test_the_cost_rule(ratios: tuple[float, ...], says: str) -> None:
    """No dearer is what is shown to be: the whole interval of the paired ratios lies at 1.05 or below. What both sides
    suffer in a round, such as a neighbour's load, is in neither."""
    load = (1.0, 3.0, 1.0, 2.0, 9.0)
    rest = {"per_s": [1.0] * 5, "p99_ms": [1.0] * 5}
    old = Side(cpu_us=[40.0 * one for one in load], **rest)
    rounds = [(old, Side(cpu_us=[40.0 * one * ratio for one in load], **rest)) for ratio in ratios]
    found = judged("commands", [paired(*one) for one in rounds], rounds)
    assert found.says == says and found.low <= found.ratio <= found.high
