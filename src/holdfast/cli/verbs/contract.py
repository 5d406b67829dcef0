"""`holdfast contract`: the stored names and schemas of a system's messages, and their pin files.

A pin file holds what was released. From then on a message with the same stored name and another schema is refused when
a service is built. `--write` is the decision to release.
"""

from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.options import AsJson, say
from holdfast.host.target import check_pins, load_target, write_pin


def contract(target: str, *, write: Annotated[bool, Parameter(negative="")] = False, as_json: AsJson = False) -> int:
    """Show the messages of a system's contracts, compare them with their pin files, or write those.

    For example:
    - `holdfast contract shop.services:shop`: compare

    - `holdfast contract shop.services:shop --write`: pin what is declared now

    Parameters
    ----------
    target
        MODULE:NAME of a System or a Service.
    write
        Write the pin file of every contract that has one.
    """
    system = load_target(target, pins=not write)
    contracts = [service.contract for service in system.services.values()]
    if write:
        written = [str(write_pin(found)) for found in contracts if found.pin is not None]
        text = "\n".join(f"wrote {path}" for path in written) or "no contract has a pin: Contract(NAME, pin=Path(...))"
        say({"written": written}, as_json=as_json, text=text)
        return 0 if written else 1
    schemas = {found.name: found.schemas() for found in contracts}
    lines = [stored for found in schemas.values() for stored in found]
    pins = check_pins(system)
    lines.append(f"{pins} of {len(contracts)} contracts are pinned, each as it was released" if pins else "no pins")
    say({"schemas": schemas, "pinned": pins}, as_json=as_json, text="\n".join(lines))
    return 0
