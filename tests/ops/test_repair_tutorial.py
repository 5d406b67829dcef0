"""The tutorial of docs/repair.md, run as it stands: five ways to break the shop, and the repairs (G4, G5, G11)."""

import os
import sys
from pathlib import Path

from support.console import Shell, holds, told
from support.http_services import free_ports
from support.pages import DOCS, ROOT, text_of


def test_the_tutorial_breaks_the_shop_and_repairs_it(tmp_path: Path) -> None:
    """Each command of the page ends well and says what the page shows; at the end the books of all four agree."""
    text = text_of(DOCS / "repair.md")
    ports = free_ports(4)
    for number, port in zip(range(8401, 8405), ports, strict=True):
        text = text.replace(str(number), str(port))
    commands = told(text)
    assert sum(len(one.lines) for one in commands) > 45 and text.count("\n## ") >= 6
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}
    shell = Shell(tmp_path, Path(sys.executable).parent, environment)
    try:
        for one in commands:
            output, code = shell.run(one.command)
            logs = "".join(file.read_text()[-2000:] for file in tmp_path.glob("*.log"))
            assert code == 0, f"$ {one.command}\n{output}\n{logs}"
            assert not (missing := holds(output, one.lines)), f"$ {one.command}\n{output}\nlacks: {missing}"
    finally:
        shell.close()
