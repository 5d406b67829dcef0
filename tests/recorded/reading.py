"""What the recorded stores say: asked over the HTTP surface, in process, which is the promised one.

`Open` starts services of the bazaar on stores of a folder; `said` asks one service all that an operator asks. Used when
it is recorded and when it is read again, so that both ask the same. Where modules move, only the imports here do.
"""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from holdfast import Running, start
from holdfast.core.declare.message import decode_stored
from holdfast.core.wire.frame import decode_frame, encode_frame
from holdfast.web.app import make_app
from recorded import bazaar

__all__ = [
    "ALL",
    "Open",
    "Reply",
    "decode_frame",
    "decode_stored",
    "dumped",
    "encode_frame",
    "loaded",
    "logged",
    "rows",
    "said",
]

ALL = ("counter", "stall", "till", "bank")
TOKEN = "operate-operate"
ALIKE = 203
"""Records with which the stall's log begins that are alike: 205 restocks of tea, past the first snapshot."""
PASSING = {"now", "peers", "incarnation", "behind_ms"}
"""Fields that are of the moment of asking."""


class Reply(NamedTuple):
    """What a service answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body of an answer that is none of an error."""
        assert self.status < 300, (self.status, self.body)
        return json.loads(self.body)


class Open:
    """Services of the bazaar on the stores of a folder, to be used with `async with`."""

    def __init__(self, folder: Path, *names: str, mended: bool = False) -> None:
        self.running: Running = start(bazaar.system(mended=mended), store=f"sqlite:{folder}/")
        for other in set(ALL) - set(names):
            del self.running.nodes[other]  # a peer that is known and never started
        self._apps = {name: make_app({name: self.running.nodes[name]}, operator_token=TOKEN) for name in names}

    async def __aenter__(self) -> "Open":
        await self.running.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.running.close()

    async def ask(self, service: str, method: str, target: str, body: bytes = b"", key: str = "") -> Reply:
        """One request of an operator."""
        path, _, query = target.partition("?")
        headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-type", b"application/json")]
        headers += [(b"idempotency-key", key.encode())] if key else []
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
        parts, status = list[bytes](), 0
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Event().wait() or {}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await self._apps[service](scope, receive, send)
        return Reply(status, b"".join(parts))

    async def get(self, service: str, target: str) -> Any:
        """What a service says, as JSON."""
        return (await self.ask(service, "GET", target)).json()

    async def repair(self, service: str, **body: Any) -> Any:
        """A person's word."""
        asked = json.dumps({"by": "on call", "why": "it is mended", **body}).encode()
        return (await self.ask(service, "POST", "/ops/repairs", asked)).json()

    async def buy(self, order: str, sku: str) -> Any:
        """A sale, asked for by the key that it had."""
        body = json.dumps({"order": order, "sku": sku}).encode()
        return (await self.ask("counter", "POST", "/commands/buy", body, f"key-{order}")).json()

    async def settled(self) -> None:
        """Wait until no saga is open and no message waits."""
        async with asyncio.timeout(30):
            while True:
                sagas = (await self.get("counter", "/ops/unsettled"))["totals"]
                waits = [(await self.get(name, "/ops/parked?all=1"))["items"] for name in self._apps]
                if not sagas and not any(waits):
                    return
                await asyncio.sleep(0.05)


async def said(opened: Open, service: str) -> dict[str, Any]:
    """All that an operator can ask of one service, without what is of the moment."""
    after = ALIKE if service == "stall" else 0
    log = (await opened.get(service, f"/ops/log?limit=1000&after={after}"))["records"]
    found: dict[str, Any] = {"log": log}
    for target in ("stuck", "parked?all=1", "unsettled", "stages", "sagas"):
        found[target] = await opened.get(service, f"/ops/{target}")
    found["why"] = {
        tx: await opened.get(service, f"/ops/why?tx={tx}") for tx in dict.fromkeys(one["tx"] for one in log)
    }
    for one in found["why"].values():
        one.pop("records")  # they are in the log
    found["trail"] = [len((await opened.get(service, f"/ops/trail?tx={tx}"))["records"]) for tx in found["why"]]
    for name in {"counter": ("Order",), "stall": ("Shelf", "Parcel"), "bank": ("Account",)}.get(service, ()):
        found[name] = await opened.get(service, f"/ops/aggregates/{name}")
    found["sagas, whole"] = {
        stream: await opened.get(service, f"/ops/sagas/{stream}")
        for stream in dict.fromkeys(one["stream"] for one in log if one["kind"] == "saga")
    }
    if service == "counter":
        found["pages"] = [await opened.get(service, f"/views/Page/o{n}") for n in (1, 5)]
    found["events"] = (await opened.ask(service, "GET", f"/events?limit=1000&after={after}")).body.decode()
    return lasting(found)


def lasting(value: Any) -> Any:
    """The same without fields that are of the moment."""
    if isinstance(value, dict):
        return {name: lasting(one) for name, one in value.items() if name not in PASSING}
    return [lasting(one) for one in value] if isinstance(value, list) else value


def rows(path: Path) -> list[tuple[Any, ...]]:
    """The log of a closed store, as it is stored."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM log ORDER BY position").fetchall()
    finally:
        connection.close()


def logged(path: Path) -> list[tuple[str, bytes]]:
    """(type, payload) of every record of a closed store."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT type, data FROM log ORDER BY position").fetchall()
        return [(stored, data if isinstance(data, bytes) else data.encode()) for stored, data in found]
    finally:
        connection.close()


def dumped(path: Path) -> str:
    """A closed store as SQL text."""
    connection = sqlite3.connect(path)
    try:
        pragmas = [
            f"PRAGMA {name}={connection.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        return "\n".join([*pragmas, *connection.iterdump()]) + "\n"
    finally:
        connection.close()


def loaded(text: str, path: Path) -> None:
    """A store made of its SQL text."""
    connection = sqlite3.connect(path)
    try:
        connection.executescript(text)
    finally:
        connection.close()
