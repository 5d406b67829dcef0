"""Docs as a test: what no page mentions is red, what a page shows runs, what it links to is there.

Pages are README.md and docs/**/*.md. A ```python block whose first line is `# file: PATH` is a part of that file, which
has tests of its own; a ```python no-run block is only shown; every other ```python block runs: those of a page one
after another in one namespace, in an empty folder, with `examples/` importable and `await` allowed at the top level.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from support.pages import DOCS, ROOT, Block, pages, split, text_of

PAGE_SECONDS_MAX = 60
BESIDE = tuple(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"))
"""What is read beside the pages: its links lead somewhere, and what it names is there."""


def code_in(text: str) -> str:
    """All that stands as code on a page: blocks and `inline`. A common word in prose does not document a name."""
    blocks, prose = split(text)
    return "\n".join([block.code for block in blocks] + re.findall(r"`+([^`\n]+)`+", prose))


def mentions(code: str, name: str) -> bool:
    """Whether the name stands there whole."""
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", code) is not None


def unmentioned(names: list[str]) -> list[str]:
    """Those names that no page shows as code."""
    code = "\n".join(code_in(text_of(page)) for page in pages())
    return [name for name in names if not mentions(code, name)]


def part(module: str, attribute: str) -> Any:
    """`module.attribute`. A module not written yet (absent or empty) is None before the docs are there, then red."""
    path = ROOT / "src" / module.replace(".", "/")
    files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
    if any(file.read_text("utf-8").strip() for file in files):
        return getattr(importlib.import_module(module), attribute)
    if (DOCS / "README.md").exists():
        pytest.fail(
            f"{module} is not there yet, so {module}.{attribute} cannot be compared with the docs", pytrace=False
        )
    return None


def commands(app: Any, prefix: str = "holdfast") -> Iterator[str]:
    """`holdfast run`, `holdfast view rebuild`, ...: every command of a cyclopts app, those of its groups too."""
    for name in app:
        if not name.startswith("-"):
            inner = list(commands(app[name], f"{prefix} {name}"))
            yield from inner or [f"{prefix} {name}"]


def settings(cls: type[Any]) -> Iterator[str]:
    """The field names of a settings struct, those of structs inside it too, as they stand in TOML."""
    for field in msgspec.structs.fields(cls):
        yield field.encode_name
        info: Any = msgspec.inspect.type_info(field.type)
        for option in getattr(info, "types", (info,)):
            inner = getattr(option, "value_type", None) or getattr(option, "item_type", None) or option
            if isinstance(inner, msgspec.inspect.StructType):
                yield from settings(inner.cls)


def check(complaints: list[str]) -> None:
    """Fail with one line for each complaint."""
    if complaints:
        pytest.fail("\n".join(["", *complaints]), pytrace=False)


def test_every_public_name_is_documented() -> None:
    """Every name in `holdfast.__all__` stands as code on a page."""
    check([f"no page mentions holdfast.{name}" for name in unmentioned(list(holdfast.__all__))])


def test_every_command_is_documented() -> None:
    """Every command of the CLI stands as code on a page, and no page shows one that is not there."""
    make_app = part("holdfast.cli.app", "make_app")
    if make_app is None:
        return
    known = list(commands(make_app()))
    assert known, "the CLI has no command"
    found = [f"no page mentions {name}" for name in unmentioned(known)]
    for page in pages():
        shown = re.findall(r"^(?:\$ )?(holdfast(?: [a-z][a-z-]*)+)", code_in(text_of(page)), re.MULTILINE)
        found += [
            f"{page.relative_to(ROOT)} shows `{used}`, which is no command"
            for used in shown
            if not any(used == name or used.startswith(name + " ") for name in known)
        ]
    check(found)


def test_every_setting_is_documented() -> None:
    """Every field of `holdfast.config.Settings` and every HOLDFAST_* variable in the sources stands on a page."""
    cls = part("holdfast.config", "Settings")
    if cls is None:
        return
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    variables = set(re.findall(r"\bHOLDFAST_[A-Z][A-Z_]*[A-Z]\b", source))
    names = sorted(set(settings(cls)) | variables)
    check([f"no page mentions the setting {name}" for name in unmentioned(names)])


def test_every_route_is_documented() -> None:
    """Every HTTP route ("METHOD /path") stands as code on a page."""
    routes = part("holdfast.web.surface", "ROUTES")
    if routes is None:
        return
    assert routes, "there are no routes"
    check([f"no page mentions {route}" for route in unmentioned([str(route) for route in routes])])


def test_make_verbs_on_pages_exist() -> None:
    """Every `make VERB` a page shows is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    check(
        [
            f"{page.relative_to(ROOT)} shows `make {verb}`, which the Makefile does not have"
            for page in pages()
            for verb in re.findall(r"^(?:\$ )?make ([a-z]+)", code_in(text_of(page)), re.MULTILINE)
            if verb not in targets
        ]
    )


FILE = re.compile(r"# file: (\S+)\s*\n")


def python_blocks(page: Path) -> list[Block]:
    """The ```python blocks of a page."""
    return [block for block in split(text_of(page))[0] if block.info[:1] == ["python"]]


def runnable(blocks: list[Block]) -> list[Block]:
    """Those that are neither a part of a file nor marked no-run."""
    return [block for block in blocks if "no-run" not in block.info and not FILE.match(block.code)]


def differs(code: str, root: Path) -> str:
    """What is wrong with a block that says which file it is a part of; empty when nothing is."""
    match = FILE.match(code)
    if match is None:
        return ""
    path = root / match[1]
    if not path.is_file():
        return f"shows {match[1]}, which is not there"
    shown = code[match.end() :].strip("\n")
    return "" if f"\n{shown}\n" in f"\n{path.read_text('utf-8')}\n" else f"is not a part of {match[1]} any more"


def test_shown_files_are_as_shown() -> None:
    """A block that says `# file: PATH` is, line by line, that file or a part of it."""
    check(
        [
            f"{page.relative_to(ROOT)}:{block.line} {wrong}"
            for page in pages()
            for block in python_blocks(page)
            if (wrong := differs(block.code, ROOT))
        ]
    )


def run_page(page: Path, blocks: list[Block], folder: Path) -> str:
    """Run the blocks in a process of its own; the end of what it says when it fails, else nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "examples"), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", str(ROOT / "tests" / "support" / "page_runner.py")],
        input=json.dumps([str(page), [(block.line, block.code) for block in blocks]]),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=PAGE_SECONDS_MAX,
    )
    return done.stderr[-3000:] or f"exit code {done.returncode}" if done.returncode else ""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path) -> None:
    """Every Python example of a page runs as it stands there, after those above it."""
    blocks = runnable(python_blocks(page))
    if blocks and (wrong := run_page(page, blocks, tmp_path)):
        pytest.fail(wrong, pytrace=False)


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and most site builders make them."""
    heads = re.findall(r"^#{1,6} +(.+?) *#*$", split(text)[1], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "").lower()).replace(" ", "-") for head in heads}


def links(page: Path, text: str) -> Iterator[tuple[str, Path, str]]:
    """(as written, file, anchor) of every relative link, those in code left out."""
    for target in LINK.findall(re.sub(r"`[^`\n]+`", "", split(text)[1])):
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            path, _, anchor = target.partition("#")
            yield target, (page.parent / path).resolve() if path else page, anchor


def test_links_lead_somewhere() -> None:
    """Every relative link leads to a file of the project, and its anchor to a heading there."""
    found: list[str] = []
    for page in [*pages(), *BESIDE]:
        for target, file, anchor in links(page, text_of(page)):
            if not file.exists():
                found.append(f"{page.relative_to(ROOT)}: {target} leads nowhere")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
                found.append(f"{page.relative_to(ROOT)}: {target}: no such heading")
    check(found)


def test_no_page_is_orphaned() -> None:
    """Every page of docs/ is reached by links from docs/README.md."""
    reached, ahead = set[Path](), [DOCS / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead += [file for _, file, _ in links(page, text_of(page)) if file.suffix == ".md" and file.exists()]
        ahead = [file for file in ahead if file not in reached and DOCS in file.parents]
    check([f"{page.relative_to(ROOT)} is linked from nowhere" for page in pages()[1:] if page not in reached])


NAMED = re.compile(r"(?:tests/)?((?:\w+/)*test_\w+\.py)?(?:::(?:\w+::)?(test_\w+))?")


def lost_tests(text: str, folder: Path) -> Iterator[str]:
    """Tests that a text names in code, and that are not there; `::name` is of the file named before it."""
    file = ""
    for code in re.findall(r"`([^`\n]+)`", text):
        named = NAMED.fullmatch(code)
        if named is None or not any(named.groups()):
            continue
        file = named[1] or file
        path = folder / file
        known = path.read_text("utf-8") if path.is_file() else ""
        if not known or (named[2] and f"def {named[2]}(" not in known):
            yield code


def test_tests_that_pages_name_exist() -> None:
    """Which test proves a promise is looked up by its name: a page never names one that is not there."""
    check([f"{page.relative_to(ROOT)}: there is no {code}" for page in pages()
           for code in lost_tests(text_of(page), ROOT / "tests")])  # fmt: skip
    assert list(
        lost_tests("`house/test_docs.py::test_x`, `::test_links_lead_somewhere`, `nothing`", ROOT / "tests")
    ) == ["house/test_docs.py::test_x"]
    assert list(lost_tests("`tests/test_gone.py`", ROOT / "tests")) == ["tests/test_gone.py"]


PACKAGE = ROOT / "src" / "holdfast"
RINGS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
START = r"(?<![\w./*%@{-])"
DOTTED = re.compile(rf"{START}(?:holdfast|{'|'.join(RINGS)})(?:\.[a-zA-Z]\w*)+(?![\w/-])")
IN_PACKAGE = re.compile(rf"{START}(?:src/)?(?:holdfast/)?((?:{'|'.join(RINGS)})/[\w/.*]*)")
IN_PROJECT = re.compile(rf"{START}((?:src|tests|docs|examples|bench)/[\w/.*]+)")


def texts() -> set[str]:
    """Every text in the sources: names of loggers, stored types, and files are such, and look like names of modules."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str)}


def is_there(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something in one."""
    *parts, rest = f"{name.removeprefix('holdfast.')}.".split(".")
    where: Path = PACKAGE
    module = "holdfast"
    while parts and ((where / parts[0]).is_dir() or (where / f"{parts[0]}.py").is_file()):
        where, module = where / parts[0], f"{module}.{parts.pop(0)}"
    value = importlib.import_module(module) if parts else rest
    for part in parts:
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def lost_names(text: str, said: set[str]) -> Iterator[str]:
    """Names of modules, what is in them, and paths that a text shows as code, and that are not there."""
    blocks, prose = split(text)
    inline = "\n".join(re.findall(r"`+([^`\n]+)`+", prose))
    dotted = DOTTED.findall(inline)
    dotted += [name for block in blocks for name in DOTTED.findall(block.code) if name.startswith("holdfast.")]
    for name in dict.fromkeys(dotted):
        stored = any(name == one or (one.endswith(".") and name.startswith(one)) for one in said)
        if not stored and not is_there(name):
            yield name
    for root, paths in ((PACKAGE, IN_PACKAGE.findall(inline)), (ROOT, IN_PROJECT.findall(inline))):
        for path in dict.fromkeys(paths):
            name = path.rstrip("/.")
            of_a_test = name.rpartition("/")[2].startswith("test_")  # looked up by `lost_tests`
            if not of_a_test and not any(list(root.glob(f"{name}{end}")) for end in ("", ".py")):
                yield path


def test_what_pages_name_of_the_code_exists() -> None:
    """A dotted name of holdfast, or a path of the project, on a page is there: the pages follow when code moves."""
    said = texts()
    check(
        [
            f"{page.relative_to(ROOT)}: there is no {name}"
            for page in [*pages(), *BESIDE]
            for name in lost_names(text_of(page), said)
        ]
    )
    made_up = (
        "`core/wire/gone.py`, `core/wire/frame.py`, `holdfast.core.wire.frame.Frame`, `holdfast.core.wire.frame.Gone`,"
        " `core.gone`, `core.wire.frame.check(x)`, `tests/gone/x.py`, `tests/support/`, `runtime/gone`, `/ops/gone`,"
        " `stores/*/lent.py`, `holdfast.stored.type`, `holdfast.gone`, core/prose.py\n"
        "```python\nimport holdfast.astray\n```\n"
    )
    assert list(lost_names(made_up, {"holdfast.stored."})) == [
        *("holdfast.core.wire.frame.Gone", "core.gone", "holdfast.gone", "holdfast.astray"),
        *("core/wire/gone.py", "runtime/gone", "tests/gone/x.py"),
    ]


SAMPLE = """# A `page`: one
Some prose on undo, [there](b.md#x), `[not](a link)`.

```python
# file: shown.py
b = 2
```
```python no-run
this is no Python
```
````python
import asyncio
x = await asyncio.sleep(0, "```")
````
```python
assert x == "```"; `inline`
```
"""


def test_the_checks_can_fail(tmp_path: Path) -> None:
    """Each check finds a planted mistake, so a clean run means something."""
    blocks, prose = split(SAMPLE)
    assert [block.line for block in blocks] == [5, 9, 12, 16] and prose.count("\n") + 1 == SAMPLE.count("\n")
    code = code_in(SAMPLE)
    assert mentions(code, "asyncio") and not mentions(code, "undo") and not mentions(code, "sync")
    assert "not there" in differs(blocks[0].code, tmp_path)
    (tmp_path / "shown.py").write_text("a = 1\nb = 22\n")
    assert "not a part" in differs(blocks[0].code, tmp_path)
    (tmp_path / "shown.py").write_text("a = 1\nb = 2\nc = 3\n")
    assert differs(blocks[0].code, tmp_path) == ""
    page = tmp_path / "page.md"
    page.write_text(SAMPLE)
    assert runnable(blocks) == blocks[2:]
    assert f'"{page}", line 16' in run_page(page, runnable(blocks), tmp_path)
    assert run_page(page, blocks[2:3], tmp_path) == ""
    assert [(target, anchor) for target, _, anchor in links(page, SAMPLE)] == [("b.md#x", "x")]
    assert anchors(SAMPLE) == {"a-page-one"}


class Inner(msgspec.Struct):
    url: str


class Outer(msgspec.Struct, rename="kebab"):
    at_most: int
    first: Inner | None
    by_name: dict[str, Inner]


def test_all_settings_and_commands_are_found() -> None:
    """The fields of structs inside structs are settings too, and so are the commands of a group commands."""
    import cyclopts

    assert list(settings(Outer)) == ["at-most", "first", "url", "by-name", "url"]
    app, group = cyclopts.App(name="holdfast"), cyclopts.App(name="view")
    app.command(group)
    group.command(lambda: None, name="rebuild")
    app.command(lambda: None, name="run")
    assert sorted(commands(app)) == ["holdfast run", "holdfast view rebuild"]
