"""The pages of the docs, parted into what is code and what is prose: for the tests that run them.

Pages are README.md and docs/**/*.md. A page that is missing fails the test that asks for it, by name.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """A fenced block: the page's line its code begins on, the words behind the fence, the code."""

    line: int
    info: list[str]
    code: str


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def text_of(page: Path) -> str:
    """The page, or a failure that says which one is missing."""
    if not page.exists():
        pytest.fail(f"{page.relative_to(ROOT)} is not there yet", pytrace=False)
    return page.read_text("utf-8")


FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")


def split(text: str) -> tuple[list[Block], str]:
    """A page's fenced blocks, and the page without them (each line of them empty, so that line numbers hold)."""
    blocks: list[Block] = []
    prose: list[str] = []
    fence, info, start, code = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if not fence and match:
            fence, info, start, code = match[1], match[2], number + 1, []
        elif fence and match and match[1].startswith(fence) and not match[2].strip():
            blocks.append(Block(start, info.split(), "\n".join(code) + "\n"))
            fence = ""
        elif fence:
            code.append(line)
        prose.append("" if fence or match else line)
    assert not fence, f"the fence before line {start} never ends"
    return blocks, "\n".join(prose)
