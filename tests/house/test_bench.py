"""The bench runs: one short round of it prints a line with figures for every measurement that was asked for."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_short_round() -> None:
    """Commands at one caller, on each engine beside what that can do alone: all are measured."""
    command = [sys.executable, "-m", "bench", "--seconds", "0.5", "--rounds", "1", "--only", "command, 1 ", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found, "nothing was measured"
    assert "per_s" in done.stdout or "rate" in done.stdout or "throughput" in done.stdout, done.stdout[:500]
