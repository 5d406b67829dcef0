"""The page about the architecture as a test: its picture is what the imports say, its walks are what the code does."""

import re
from pathlib import Path

import pytest

from support.architecture import PACKAGE, PICTURE, draw, modules, reduced
from support.pages import DOCS, text_of
from support.walks import WALKS, Steps

PAGE = DOCS / "architecture.md"
LEFT_OUT = re.compile(r"^Left out of .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
ITEM = re.compile(r"^\d+\. `([\w/]+)`:", re.MULTILINE)


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] + "\n\n"


def left_out(text: str) -> set[str]:
    """The modules and rooms that a text says are left out."""
    return {name for said in LEFT_OUT.findall(text) for name in re.findall(r"`([\w/]+)`", said)}


def complaints(items: list[str], out: set[str], entered: list[str]) -> list[str]:
    """What is wrong with a walk: what is not entered, or in another order, and what is entered and not on the page."""
    found = [f"{name} stands there twice" for name in sorted({name for name in items if items.count(name) > 1})]
    found += [f"{name} is not entered" for name in items if name not in entered]
    walked = [name for name in entered if name in items]
    if not found and walked != items:
        found.append(f"the order is {', '.join(walked)}")
    rooms = tuple(f"{name}/" for name in out)
    found += [
        f"{name} is entered, and not on the page"
        for name in entered
        if name not in items and name not in out and not name.startswith(rooms)
    ]
    return found


@pytest.mark.parametrize("heading", WALKS)
async def test_a_walk_is_what_the_code_does(heading: str) -> None:
    """A walk names each module that does something on its way, in the order in which they are entered, and no other."""
    text = text_of(PAGE)
    walk = section(text, heading)
    items = ITEM.findall(walk)
    assert items, f"there is no walk under {heading!r}"
    out = left_out(section(text, "How to read the walks")) | left_out(walk)
    steps = await WALKS[heading]()
    found = complaints(items, out, steps.modules)
    assert not found, "\n".join(["", *found])


def test_the_picture_is_what_the_imports_say() -> None:
    """The committed picture is, byte for byte, what the script draws of the tree as it is."""
    assert PICTURE.read_text("utf-8") == draw(), "the rooms or their imports are others now: make picture"


def test_every_module_is_in_the_picture() -> None:
    """Each module of the package stands in the picture, under its name."""
    names = set(re.findall(r"[\w.]+", re.sub(r"<style>.*?</style>", "", PICTURE.read_text("utf-8"), flags=re.DOTALL)))
    assert [module for module in modules() if module and module[-1] not in names] == []


def test_the_checks_can_fail(tmp_path: Path) -> None:
    """A walk that lies is found out, and another import is another picture."""
    assert complaints(["a/b", "a/c"], {"a/d"}, ["a/b", "a/d/e", "a/c"]) == []
    assert complaints(["a/c", "a/b"], set(), ["a/b", "a/c"]) == ["the order is a/b, a/c"]
    assert complaints(["a/b", "a/b"], set(), ["a/b"]) == ["a/b stands there twice"]
    assert complaints(["a/b"], set(), ["a/c"]) == ["a/b is not entered", "a/c is entered, and not on the page"]
    assert left_out("Left out of all: `a/b`,\n`c`.\n\nNot `d`.\n\n") == {"a/b", "c"}
    assert section("# A\n\n## B\n\nb\n\n## C\n", "B").strip() == "b"
    steps = Steps()
    with steps.noted():
        reduced({"a": {"b"}, "b": set()})
    assert steps.modules == []
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    package = tmp_path / PACKAGE.name
    for name, text in {
        "__init__": "",
        "low/one": "",
        "high/two": "from holdfast.low import one",
        "high/deep/x": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    before = draw(package)
    assert before == draw(package)
    (package / "low/one.py").write_text("from holdfast.high.deep import x")
    assert draw(package) != before and "against" in draw(package).partition("</style>")[2]
