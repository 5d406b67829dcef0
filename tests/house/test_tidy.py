"""Style as a test: what the house rules say and a machine can see (CONTRIBUTING.md has them in words).

Each rule is a function from parsed modules to complaints, so that the tests at the end can show it a sinner.
Run as a program, this file prints what `public_api.txt` should hold.
"""

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
PACKAGE = SRC / "holdfast"

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
LONG: dict[str, tuple[int, str, str]] = {}
"""Modules that may be longer: path in src/holdfast -> (lines, date it was allowed, why)."""

FORMAT_MARKS = 1
"""How many lines of src are kept from the formatter. The number only goes down; ten are enough."""

REJECTED_WORDS = {
    "what is inside": ("util", "utils", "helper", "helpers", "common", "manager", "managers", "base", "misc"),
    "position, or version of a stream": ("offset", "offsets", "lsn", "seq", "seqno"),
    "log": ("outbox", "journal"),
    "incarnation": ("epoch", "generation"),
    "checkpoint of a feed, cursor of an exchange": ("bookmark", "watermark"),
    "feed or exchange": ("message bus",),
    "aggregate": ("entity",),
    "evolve": ("reducer",),
    "view": ("projection", "projections", "projector", "read model"),
    "saga": ("workflow", "workflows", "orchestrator"),
    "undo": ("compensate", "compensated", "compensation"),
    "stage": ("two phase", "2pc", "tcc"),
    "cancel": ("abort", "aborted", "call off", "called off", "calling off", "callingoff"),
    "parked": ("dead letter", "dlq", "poison", "quarantine"),
    "repair": ("mend", "mended", "mending"),
    "simulate": ("foretell", "foretold", "foretelling"),
    "periodic": ("chore", "chores"),
    "why": ("inquire", "inquiry"),
}
"""What a name should say -> the words that stand for it elsewhere; for modules, classes and functions."""

RINGS = {
    "errors": set[str](),
    "logs": set[str](),
    "config": {"errors"},
    "core": {"errors"},
    "ports": {"core", "errors"},
    "runtime": {"core", "ports", "errors"},
    "stores": {"core", "ports", "errors", "config"},
    "sqlalchemy": {"core", "errors"},
    "transports": {"core", "ports", "errors"},
    "compose": {"core", "ports", "errors", "config", "runtime", "stores", "transports", "web"},
    "web": {"core", "ports", "errors", "logs", "runtime", "transports"},
    "operator": {"core", "errors", "config", "runtime"},
    "client": {"core", "errors", "runtime", "web"},
    "host": {"core", "ports", "errors", "config", "logs", "runtime", "compose", "web"},
    "testing": {"core", "ports", "errors", "runtime", "stores", "transports", "client", "host"},
    "demo": {"", "core", "errors", "config", "operator", "host", "testing"},
    "cli": {"", "core", "errors", "config", "logs", "stores", "compose", "operator", "host", "demo"},
    "": {"core", "errors", "runtime", "client", "compose", "config"},
}
"""Which part of holdfast may import which others (itself always). `""` is the package face, for its version and place.
core <- ports <- {runtime, stores, transports} <- {compose, web, operator, client} <- {host, testing} <- {demo, cli}:
runtime knows no adapter, no adapter knows runtime, and what an operator asks knows no command line."""

MSGSPEC_ALONE = ("core", "ports", "errors", "runtime", "operator", "config", "")
"""The rings that import the standard library and msgspec, and nothing else."""

RUNTIME_FOLDERS = (
    ("clock", "tasks"),
    ("log",),
    ("decide",),
    ("inbox",),
    ("exchange", "feeds", "execute", "timers"),
    ("edge",),
    ("node",),
    ("ops",),
    ("system",),
)
"""The folders and lone modules of runtime, the ground first: a module imports from its own folder and from those in the
lines before it, never from one in the same line or in a later one."""

IMPURE_MODULES = {
    "asyncio", "io", "logging", "multiprocessing", "os", "random", "secrets", "select", "selectors", "shutil", "signal",
    "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
IMPURE_METHODS = {
    "now", "utcnow", "today", "exists", "is_dir", "is_file", "iterdir", "mkdir", "open", "read_bytes", "read_text",
    "rename", "resolve", "rglob", "rmdir", "stat", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
"""Of datetime: what reads a clock. Of pathlib: what touches a disk (a path as a value is welcome)."""


def sources() -> list[tuple[str, ast.Module, str]]:
    """(path in src/holdfast, tree, text) of every module."""
    found = [(path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]
    assert len(found) > 20, "found no sources: is this the repository?"
    return [(name, ast.parse(text), text) for name, text in found]


def ring_of(module: str) -> str:
    """`holdfast.core.declare.saga` -> `core`; `holdfast` -> ``."""
    return module.partition(".")[2].partition(".")[0]


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions and TYPE_CHECKING blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            # `from holdfast import core` imports holdfast.core.
            names = [f"holdfast.{alias.name}" if alias.name in RINGS else module for alias in node.names]
            yield from ((node.lineno, name) for name in (names if module == "holdfast" else [module]))


def wrong_direction(name: str, tree: ast.Module) -> list[str]:
    """Imports that go against the rings, and what core imports beside the standard library and msgspec."""
    parts = name.removesuffix("__init__.py").removesuffix(".py").strip("/").split("/")
    ring = parts[0]
    if ring not in RINGS:
        return [f"{name}: {ring!r} has no place in RINGS yet"]
    allowed = RINGS[ring] | {ring}
    found: list[str] = []
    for line, module in imports(tree):
        top = module.partition(".")[0]
        if top == "holdfast":
            if "*" not in allowed and ring_of(module) not in allowed:
                found.append(f"{name}:{line} {ring or 'the package face'} may not import {module}")
        elif ring in MSGSPEC_ALONE and top not in sys.stdlib_module_names | {"msgspec"}:
            found.append(f"{name}:{line} imports {module}: only the standard library and msgspec here")
    return found


def dotted(name: str) -> str:
    """`core/wire/frame.py` -> `holdfast.core.wire.frame`; `core/__init__.py` -> `holdfast.core`."""
    return f"holdfast.{name.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


def room_of(module: str) -> str:
    """`holdfast.core.wire.frame` -> `holdfast.core.wire`; a module that is in no room stands for itself."""
    return module.rpartition(".")[0] if module.count(".") > 2 else module


def folder_of(module: str) -> str:
    """`holdfast.runtime.log.writer` -> `log`, `holdfast.runtime.node` -> `node`; empty for what is not in runtime."""
    return module.removeprefix("holdfast.runtime.").partition(".")[0] if module.startswith("holdfast.runtime.") else ""


def arrows(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> those of `modules` that it imports, under TYPE_CHECKING and inside functions too."""
    found: dict[str, set[str]] = {}
    for module, tree in modules.items():
        named: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # `from holdfast.core.audit import cut` imports the module, if there is one of that name.
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                named |= {name if name in modules else node.module or "" for name in inner}
        found[module] = (named & modules.keys()) - {module}
    return found


def circle(steps: Mapping[str, set[str]]) -> list[str]:
    """One way that comes back to where it began, or nothing."""
    try:
        graphlib.TopologicalSorter(steps).prepare()
    except graphlib.CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def circles(modules: Mapping[str, ast.Module]) -> list[str]:
    """A circle of modules, and one of rooms: neither can be read, or moved, alone."""
    steps = arrows(modules)
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, others in steps.items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    return circle(steps) + circle(rooms)


def upward(modules: Mapping[str, ast.Module]) -> list[str]:
    """Imports within runtime that go up or sideways, and modules whose folder has no place in the order yet."""
    level = {folder: number for number, folders in enumerate(RUNTIME_FOLDERS) for folder in folders}
    found: list[str] = []
    for module, others in arrows(modules).items():
        folder = folder_of(module)
        if not folder:
            continue
        if folder not in level:
            found.append(f"{module}: {folder!r} has no place in RUNTIME_FOLDERS yet")
            continue
        for other in sorted(others):
            beneath = folder_of(other)
            if beneath not in ("", folder) and level.get(beneath, len(level)) >= level[folder]:
                found.append(f"{module} may not import {other}")
    return found


def words(name: str) -> str:
    """`_call_off`, `CalledOff` -> ` call off `, ` called off `: whole words, to look for some of them."""
    return f" {' '.join(re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+', name)).lower()} "


def rejected(name: str, tree: ast.Module) -> dict[str, str]:
    """`path:name` of what is called by a word that the glossary rejects -> a complaint that says the right one."""
    names = name.removesuffix(".py").split("/")
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names += [node.name for node in ast.walk(tree) if isinstance(node, kinds)]
    return {
        f"{name}:{one}": f"{name}:{one} says {word!r}, and should say: {better}"
        for one in names
        for better, worse in REJECTED_WORDS.items()
        for word in worse
        if f" {word} " in words(one)
    }


def twins(modules: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Name of a class, without its underscore if it is private -> the modules that define it, if they are several."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules.items():
        for name in sorted({node.name.lstrip("_") for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}):
            found[name].append(module)
    return {name: where for name, where in found.items() if len(where) > 1}


def format_marks(text: str) -> int:
    """How often a text keeps lines from the formatter."""
    return len(re.findall(r"# fmt: (?:skip|off)\b", text))


def impurities(name: str, tree: ast.Module) -> list[str]:
    """What a pure module may not do: await, read a clock, draw a random number, log, or do I/O."""
    found = [
        f"{name}:{line} imports {module}"
        for line, module in imports(tree)
        if module.partition(".")[0] in IMPURE_MODULES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"{name}:{node.lineno} is asynchronous")
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in IMPURE_CALLS:
                found.append(f"{name}:{node.lineno} calls {function.id}()")
            elif isinstance(function, ast.Attribute) and function.attr in IMPURE_METHODS:
                found.append(f"{name}:{node.lineno} calls .{function.attr}()")
    return found


def long_functions(name: str, tree: ast.Module) -> list[str]:
    """Functions over FUNCTION_LINES_MAX lines, from `def` to the last one."""
    return [
        f"{name}:{node.lineno} {node.name} has {lines} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def asserts(name: str, tree: ast.Module) -> list[str]:
    """`assert` statements: they vanish under -O, and a user's mistake deserves a sentence."""
    return [f"{name}:{node.lineno} asserts" for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def poor_header(name: str, tree: ast.Module) -> list[str]:
    """A module with content and without a header of two lines or more."""
    lines = [line for line in (ast.get_docstring(tree) or "").splitlines() if line.strip()]
    return [f"{name}: its header has {len(lines)} lines, not 3 to 12"] if tree.body and len(lines) < 2 else []


def left_open(name: str, text: str) -> list[str]:
    """Marks of unfinished work."""
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|NotImplemented)\b")
    return [
        f"{name}:{number} {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if marks.search(line) and not line.strip().startswith("return NotImplemented")
    ]


MACHINE = re.compile(r"(?<![\w.~/}*-])/(home|Users|root|work|opt|mnt|tmp)/|[A-Z]:\\+Users")
HOSTS = re.compile(
    r"pypi\.org|pythonhosted\.|npmjs\.|yarnpkg\.|crates\.io|proxy\.golang|rubygems\.|docker\.io|ghcr\.io|quay\.io"
    r"|(extra-)?index-ur[l]|find-link[s]",
    re.IGNORECASE,
)


def places(name: str, text: str) -> list[str]:
    """Paths of one machine and hosts of registries: the project is the same everywhere."""
    return [
        f"{name}:{number} {match[0]!r}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in (MACHINE.search(line), HOSTS.search(line))
        if match
    ]


def tracked() -> list[Path]:
    """Every text file of the project; where there is no git (an unpacked sdist), those that are not hidden or built."""
    try:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
        paths = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts[1:])]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def public_api() -> list[str]:
    """`module.name` of everything promised: the package faces, errors, ports and the conformance suites."""
    modules = ["holdfast", "holdfast.errors", "holdfast.sqlalchemy", "holdfast.testing"]
    modules += ["holdfast.testing.plugin", "holdfast.testing.servers"]
    for name, tree, _ in sources():
        if name.startswith(("ports/", "testing/conformance/")) and tree.body:
            modules.append("holdfast." + name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    found: list[str] = []
    for module in modules:
        names = getattr(importlib.import_module(module), "__all__", None)
        assert names is not None, f"{module} has no __all__: say there what is promised"
        found += [f"{module}.{name}" for name in names]
    return sorted(found)


def check(complaints: list[str]) -> None:
    """Fail with one line for each complaint."""
    if complaints:
        pytest.fail("\n".join(["", *complaints]), pytrace=False)


def test_imports_go_one_way() -> None:
    """Each ring imports those further in (RINGS), never the other way; the inner rings need msgspec alone."""
    check([text for name, tree, _ in sources() for text in wrong_direction(name, tree)])


def test_core_is_pure() -> None:
    """Nothing in core awaits, reads a clock, draws a random number, logs or does I/O: decisions are data."""
    check([text for name, tree, _ in sources() if name.startswith("core/") for text in impurities(name, tree)])


def test_importing_holdfast_is_cheap() -> None:
    """`import holdfast` loads nothing but the standard library and msgspec, so every extra is optional."""
    program = (
        "import sys, msgspec; before = set(sys.modules); import holdfast; print(*sorted({m.partition('.')[0] for m in"
        " set(sys.modules) - before} - set(sys.stdlib_module_names) - {'holdfast', 'msgspec'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_modules_are_short() -> None:
    """A module is at most 500 lines; the exceptions are dated, have a reason, and go when they are no longer needed."""
    sizes = {name: text.count("\n") for name, _, text in sources()}
    check(
        [
            f"{name}: {lines} lines, more than {LONG.get(name, (MODULE_LINES_MAX,))[0]}"
            for name, lines in sizes.items()
            if lines > LONG.get(name, (MODULE_LINES_MAX,))[0]
        ]
        + [f"{name}: needs no exception any more" for name in LONG if sizes.get(name, 0) <= MODULE_LINES_MAX]
    )


def test_functions_are_short() -> None:
    """A function is at most 60 lines, its docstring included."""
    check([text for name, tree, _ in sources() for text in long_functions(name, tree)])


def test_no_imports_go_round() -> None:
    """No module, and no room, imports itself by way of others, be it for types alone."""
    check(circles({dotted(name): tree for name, tree, _ in sources()}))


def test_runtime_is_built_from_the_ground_up() -> None:
    """Within runtime no folder knows one above it or beside it: what is below can be read without what is above."""
    check(upward({dotted(name): tree for name, tree, _ in sources()}))


def test_names_are_of_the_glossary() -> None:
    """No module, class or function has a name that says nothing, or a word for which the glossary has another."""
    check([text for name, tree, _ in sources() for text in rejected(name, tree).values()])


def test_a_class_name_stands_for_one_thing() -> None:
    """No two modules define a class of one name, private ones included."""
    several = twins({dotted(name): tree for name, tree, _ in sources()})
    check([f"{name}: {', '.join(where)}" for name, where in several.items()])


def test_the_formatter_formats() -> None:
    """The lines that are kept from the formatter become fewer: who takes a mark out lowers the number, too."""
    marks = sum(format_marks(text) for _, _, text in sources())
    if marks != FORMAT_MARKS:
        check([f"{marks} lines are kept from the formatter, and FORMAT_MARKS is {FORMAT_MARKS}"])


def test_nothing_is_left_open() -> None:
    """The package holds no marks of unfinished work."""
    check([text for name, _, source in sources() for text in left_open(name, source)])


def test_every_module_has_a_header() -> None:
    """Every module begins by saying what it promises, what comes before and after it, and how it fails."""
    check([text for name, tree, _ in sources() for text in poor_header(name, tree)])


def test_input_is_not_checked_with_assert() -> None:
    """Only the testing kit asserts."""
    check([text for name, tree, _ in sources() if not name.startswith("testing/") for text in asserts(name, tree)])


def test_public_names_are_pinned() -> None:
    """What is promised is what tests/house/public_api.txt lists: no public name comes or goes by accident."""
    pinned = set(Path(__file__).with_name("public_api.txt").read_text("utf-8").split())
    there = set(public_api())
    assert there, "holdfast promises nothing"
    check([f"new: {name}" for name in sorted(there - pinned)] + [f"gone: {name}" for name in sorted(pinned - there)])


def test_the_project_names_no_machine() -> None:
    """No file holds a path of one machine or the host of a registry."""
    check(
        [text for path in tracked() for text in places(str(path.relative_to(ROOT)), path.read_text("utf-8", "replace"))]
    )


def test_tests_state_their_claims() -> None:
    """Every test has a docstring that states what it proves."""
    check(
        [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and not ast.get_docstring(node)
        ]
    )


SINNER = (
    '''"""One line."""
import random
from holdfast.runtime.log.writer import Writer
import aiohttp

async def clock():
    assert datetime.now()
    raise NotImplementedError
def long():
    path.read_text(); print()
'''
    + "    pass\n" * FUNCTION_LINES_MAX
)


def test_the_rules_can_fail() -> None:
    """Each rule finds a planted sin, so a clean run means something."""
    tree = ast.parse(SINNER)
    assert len(wrong_direction("core/sinner.py", tree)) == 2
    assert wrong_direction("runtime/sinner.py", ast.parse("from holdfast.stores.memory import MemoryStore"))
    assert wrong_direction("stores/sinner.py", ast.parse("def f():\n    from holdfast import runtime"))
    assert wrong_direction("elsewhere.py", tree)
    assert not wrong_direction("compose.py", ast.parse("from holdfast.stores.memory import MemoryStore"))
    for outer in ("holdfast.cli.options", "holdfast.host.target", "cyclopts", "rich.console"):
        assert wrong_direction("operator/sinner.py", ast.parse(f"import {outer}"))
    assert wrong_direction("host/sinner.py", ast.parse("import holdfast.operator.client"))
    assert wrong_direction("testing/sinner.py", ast.parse("import holdfast.demo.run"))
    assert wrong_direction("demo/sinner.py", ast.parse("import holdfast.cli.app"))
    assert [text.partition(" ")[2] for text in impurities("x", tree)] == [
        "imports random", "is asynchronous", "calls .now()", "calls .read_text()", "calls print()",
    ]  # fmt: skip
    assert long_functions("x", tree) and asserts("x", tree) and poor_header("x", tree) and left_open("x", SINNER)
    assert places("x", "cd /" + "home/me") and places("x", "https://pypi." + "org/") and not places("x", "a/tmp/b")


MADE_UP = {
    "core/audit/audit.py": "if TYPE_CHECKING:\n    from holdfast.core.system import System",
    "core/audit/cut.py": "class Cut: ...",
    "core/system.py": "from holdfast.core.audit import cut\nclass _Cut: ...",
    "runtime/node.py": "import holdfast.runtime.ops.doubt",
    "runtime/feeds/news.py": "from holdfast.runtime import timers, wheel",
    "runtime/ops/__init__.py": "",
    "runtime/ops/doubt.py": "def f():\n    from holdfast.runtime import node",
    "runtime/ops/why.py": "from holdfast.runtime import node, timers\nfrom holdfast.runtime.ops import doubt",
    "runtime/timers.py": "",
    "runtime/wheel.py": "import holdfast.runtime.timers",
    "stores/sqlite/file.py": "class LogOffset:\n    def base32(self): ...\n    def _call_off(self): ...",
    "stores/message_manager.py": "",
}


def made_up(*names: str) -> dict[str, ast.Module]:
    """Some modules of a small tree in which each sin between modules is planted."""
    return {dotted(name): ast.parse(MADE_UP[name]) for name in names}


def test_the_rules_between_modules_can_fail() -> None:
    """Each rule over several modules finds what was planted in a small tree, and nothing else there."""
    node, doubt = "holdfast.runtime.node", "holdfast.runtime.ops.doubt"
    found = circles(made_up("runtime/node.py", "runtime/ops/__init__.py", "runtime/ops/doubt.py"))
    assert found[0] in (f"{node} <- {doubt} <- {node}", f"{doubt} <- {node} <- {doubt}")
    # Two rooms may go round where no two modules do.
    rooms = made_up("core/audit/audit.py", "core/audit/cut.py", "core/system.py")
    assert arrows(rooms)["holdfast.core.system"] == {"holdfast.core.audit.cut"}
    assert circle(arrows(rooms)) == [] and len(circles(rooms)) == 1 and "holdfast.core.audit <-" in circles(rooms)[0]
    assert circles(made_up("core/audit/cut.py", "core/system.py", "runtime/node.py")) == []
    assert sorted(upward(made_up(*MADE_UP))) == [
        "holdfast.runtime.feeds.news may not import holdfast.runtime.timers",
        "holdfast.runtime.feeds.news may not import holdfast.runtime.wheel",
        "holdfast.runtime.node may not import holdfast.runtime.ops.doubt",
        "holdfast.runtime.wheel: 'wheel' has no place in RUNTIME_FOLDERS yet",
    ]
    assert twins(made_up(*MADE_UP)) == {"Cut": ["holdfast.core.audit.cut", "holdfast.core.system"]}
    assert [key for name, text in MADE_UP.items() for key in rejected(name, ast.parse(text))] == [
        "stores/sqlite/file.py:LogOffset",
        "stores/sqlite/file.py:_call_off",
        "stores/message_manager.py:message_manager",
    ]
    assert format_marks("x = 1  # fmt: " + "skip\n# fmt: " + "off\n# fmt: on\n") == 2


if __name__ == "__main__":
    print("\n".join(public_api()))
