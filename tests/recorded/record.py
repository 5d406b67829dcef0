"""Records the stores, answers and frames of the bazaar. Ran on 0.1.0 at revision 128cba0, before modules moved.

    PYTHONPATH=tests:examples python -m recorded.record

writes `bazaar-SERVICE.sql` (each store as SQL text), `bazaar.json` (what each service said of itself, opened alone) and
`wire.json` (frames, commands and what was answered, as on the wire). Run anew it records another run: that is for a new
release, whose recordings lie beside these. It uses internals of that revision; what reads the recordings does not.
"""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from holdfast import compose
from holdfast.errors import Unreachable
from holdfast.transports.local import LocalTransport
from recorded.reading import ALL, Open, Reply, dumped, encode_frame, said

HERE = Path(__file__).parent
frames: list[dict[str, str]] = []
commands: list[dict[str, Any]] = []
CONFIRM = "holdfast.confirm"


def confirms(frame: Any) -> bool:
    """Whether a frame tells a decision."""
    return any(one.type == CONFIRM for one in frame.records)


class Listening(LocalTransport):
    """Writes down each frame, and cuts the bank off as it is told."""

    mutes = False
    """Nothing that the bank says arrives."""
    deafens = False
    """The bank does not hear that a swap is decided, nor anything after that."""

    async def exchange(self, peer: str, frame: Any) -> Any:
        if self.mutes and frame.sender == "bank":
            raise Unreachable("the line is cut")
        if self.deafens and peer == "bank" and confirms(frame):
            raise Unreachable("the line is cut")
        answer = await super().exchange(peer, frame)
        if (self.mutes and peer == "bank") or (self.deafens and frame.sender == "bank" and confirms(answer)):
            raise Unreachable("the line is cut")
        if frame.records or answer.records:
            said = {"frame": encode_frame(frame).decode(), "answer": encode_frame(answer).decode()}
            frames.append({"from": frame.sender, "to": peer, **said})
        return answer


async def ask(opened: Open, service: str, command: str, key: str, **fields: Any) -> Reply:
    """A command, written down with what was answered."""
    body = json.dumps(fields)
    reply = await asyncio.wait_for(opened.ask(service, "POST", f"/commands/{command}", body.encode(), key), 60)
    asked = {"service": service, "command": command, "key": key, "body": body}
    commands.append({**asked, "status": reply.status, "answer": reply.body.decode()})
    return reply


async def sent(opened: Open, service: str, command: str, key: str, **fields: Any) -> None:
    """A command whose answer will not come."""
    body = json.dumps(fields).encode()
    task = asyncio.ensure_future(opened.ask(service, "POST", f"/commands/{command}", body, key))
    await asyncio.wait([task], timeout=0.4)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(opened: Open, service: str, target: str, count: int) -> list[Any]:
    """So many items in a list."""
    for _ in range(600):
        items = (await opened.get(service, target))["items"]
        if len(items) == count:
            return items
        await asyncio.sleep(0.05)
    raise AssertionError(f"{service} {target}: {items}")


async def run(opened: Open) -> None:
    """Everything that is recorded."""
    for number in range(205):  # past the first snapshot
        await opened.ask("stall", "POST", "/commands/restock", b'{"sku": "tea", "quantity": 1}', f"tea-{number}")
    for sku in ("brick", "glass", "plank"):
        await ask(opened, "stall", "restock", f"restock-{sku}", sku=sku, quantity=5)
    await ask(opened, "stall", "restock", "restock-no", sku="tea", quantity=0)
    frames.clear()
    await ask(opened, "counter", "buy", "key-o1", order="o1", sku="tea", quantity=2)
    await ask(opened, "counter", "buy", "key-o2", order="o2", sku="tea")
    for account in ("ann", "bob"):
        await ask(opened, "bank", "move", f"open-{account}", account=account, amount=100, deal="opened")
    await ask(opened, "counter", "swap", "key-s1", deal="s1", giver="ann", taker="bob", amount=30)
    await ask(opened, "counter", "swap", "key-s0", deal="s0", giver="ann", taker="bob", amount=300)
    await ask(opened, "counter", "save", "key-p0", deal="p0", account="ann")
    await sent(opened, "counter", "buy", "key-o8", order="o8", sku="glass")
    (glass,) = await until(opened, "stall", "/ops/parked", 1)
    await opened.repair("stall", kind="skip", target=glass["message"], why="there is no glass")
    for order, sku in (("o3", "brick"), ("o4", "brick"), ("o5", "tea"), ("o6", "tea"), ("o7", "plank")):
        await sent(opened, "counter", "buy", f"key-{order}", order=order, sku=sku)
    await until(opened, "till", "/ops/parked", 1)
    await until(opened, "stall", "/ops/parked?all=1", 3)
    await until(opened, "counter", "/ops/stuck", 1)
    Listening.mutes = Listening.deafens = True
    await sent(opened, "counter", "swap", "key-s2", deal="s2", giver="ann", taker="bob", amount=5)
    assert len((await opened.get("bank", "/ops/stages"))["held"]) == 2
    await sent(opened, "counter", "save", "key-p1", deal="p1", account="ann")
    await until(opened, "bank", "/ops/parked?all=1", 1)
    Listening.mutes = False
    await until(opened, "counter", "/ops/sagas?status=committed", 1)
    await asyncio.sleep(2)  # views and cursors are written down


def lines(value: Any, depth: int = 3) -> str:
    """JSON with a line for each item, so that a difference can be read."""
    if depth and isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"{json.dumps(name)}: {lines(one, depth - 1)}" for name, one in value.items()) + "\n}"
    if depth and isinstance(value, list) and value:
        return "[\n" + ",\n".join(lines(one, depth - 1) for one in value) + "\n]"
    return json.dumps(value)


async def main() -> None:
    """Run, dump, and ask each service alone what it says."""
    with tempfile.TemporaryDirectory() as made:
        folder, copy = Path(made) / "run", Path(made) / "copy"
        compose.LocalTransport = Listening  # type: ignore[misc]
        async with Open(folder, *ALL) as opened:
            await run(opened)
        for name in ALL:
            (HERE / f"bazaar-{name}.sql").write_text(dumped(folder / f"{name}.sqlite"), "utf-8")
        shutil.copytree(folder, copy)
        found: dict[str, Any] = {}
        for name in ALL:
            async with Open(copy, name) as alone:
                found[name] = await said(alone, name)
        (HERE / "bazaar.json").write_text(lines(found) + "\n", "utf-8")
        wire = {"commands": commands, "frames": frames}
        (HERE / "wire.json").write_text(lines(wire) + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(main())
