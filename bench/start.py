"""How long the command line takes to answer: `python bench/start.py [REPEATS]`, medians in milliseconds.

Each command runs in a process of its own, the commands in turn. Shown are the time by the clock and the processor's
time, user and system, of the whole command; and for a verb the time until the first line of its own code runs, when all
that its module imports is loaded. With a folder in PYTHONPATH another tree is measured by the same commands.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time

REPEATS = 15
CALL = "import sys; from holdfast.cli import main; sys.argv[1:] = {words!r}; main()"
# The first thing that these verbs do is to load the settings: the process ends there.
UNTIL_OWN_CODE = (
    "import os, sys, holdfast.config; from holdfast.cli import main\n"
    "holdfast.config.load = lambda *given: os._exit(0)\n"
    "sys.argv[1:] = {words!r}; main()"
)
COMMANDS = {
    "holdfast --help": CALL.format(words=["--help"]),
    "holdfast why --help": CALL.format(words=["why", "--help"]),
    "holdfast check-config": CALL.format(words=["check-config"]),
    "until the first line of why": UNTIL_OWN_CODE.format(words=["why", "order-1"]),
    "until the first line of stuck": UNTIL_OWN_CODE.format(words=["stuck"]),
    "until the first line of retry": UNTIL_OWN_CODE.format(words=["retry", "order@1", "--by", "me", "--why", "so"]),
    "until the first line of run": UNTIL_OWN_CODE.format(words=["run", "m:s"]),
}


def measured(program: str, folder: str) -> tuple[float, float]:
    """(milliseconds by the clock, milliseconds of processor) of one process."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, check=False)
    clock, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return clock * 1e3, processor * 1e3


def main() -> None:
    """Measure, and print a table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for program in COMMANDS.values():  # the first time Python compiles
            measured(program, folder)
        for _ in range(repeats):
            for name, program in COMMANDS.items():
                found[name].append(measured(program, folder))
    print("| command | ms | ms of processor |\n| --- | ---: | ---: |")
    for name, times in found.items():
        clock, processor = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {clock:.0f} | {processor:.0f} |")


if __name__ == "__main__":
    main()
