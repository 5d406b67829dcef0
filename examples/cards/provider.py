"""A payment provider: a program of somebody else, with a ledger of its own and faults by chance.

`python -m cards.provider --port 8099 --ledger ledger.jsonl --lose-answer 0.2 --seed 1`. What it has charged, declined
and given back is a line in the ledger, durable before the answer leaves. `POST /charges` and `POST /refunds` honour
the Idempotency-Key; with `--no-keys` every request is a charge of its own, and only who asks `GET /charges/{key}`
first is safe. Each fault is a probability per request. Ends by SIGTERM, or as `--down` has it: whoever started it
starts it again on the same ledger.
"""

import argparse
import asyncio
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = {
    "lose-request": "the connection breaks before anything is done",
    "lose-answer": "the connection breaks when it is done",
    "double": "the request is handled twice, as behind a proxy that tries again (use it with keys)",
    "slow": "it is done, and answered, after --slow-seconds",
    "busy": "503: nothing is done",
    "down": "the whole provider ends, half of the time before it is done, half of the time after",
}
DECLINED = "0002"
"""How the numbers of cards end that are declined."""

Answer = tuple[int, dict[str, Any]]


class Ledger:
    """What the provider knows: a file of JSON lines, each durable before it counts."""

    def __init__(self, path: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        path.touch()
        whole = path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]  # half a line was never acknowledged
        self.lines = [json.loads(line) for line in kept.splitlines()]
        self._file = path.open("r+b")
        self._file.truncate(len(kept))
        self._file.seek(len(kept))

    def append(self, line: dict[str, Any]) -> dict[str, Any]:
        """Write a line and wait until it is durable."""
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines.append(line)
        return line

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        """The first line with those values."""
        return next((line for line in self.lines if wanted.items() <= line.items()), None)


class Provider:
    """The provider's business, and its faults."""

    def __init__(
        self, ledger: Ledger, faults: Mapping[str, float], *, seed: int, keys: bool, slow_seconds: float
    ) -> None:
        self.ledger, self.faults, self.keys, self.slow_seconds = ledger, faults, keys, slow_seconds
        self._random = random.Random(f"{seed}/{len(ledger.lines)}")
        self._working: set[str] = set()
        """Keys of the requests that are not done yet."""

    async def charges(self, request: web.Request) -> web.StreamResponse:
        """POST /charges: 200 charged, 402 declined."""
        return await self._serve(request, self.charge)

    async def refunds(self, request: web.Request) -> web.StreamResponse:
        """POST /refunds: 200 given back, 404 no such charge."""
        return await self._serve(request, self.refund)

    async def look_up(self, request: web.Request) -> web.StreamResponse:
        """GET /charges/{key}: as the charge was answered; 404 none; 409 it is at work on it."""
        if self._hit("busy"):
            return web.json_response({"error": "come back later"}, status=503)
        key = request.match_info["key"]
        if key in self._working:
            return web.json_response({"error": "still at work on it"}, status=409)
        found = self.ledger.find(key=key)
        status, said = self._answer(found) if found else (404, {"error": "no charge has that key"})
        return web.json_response(said, status=status)

    def charge(self, key: str, body: dict[str, Any]) -> Answer:
        """Charge a card, once for each key."""
        found = self.ledger.find(key=key) if self.keys else None
        if found and found["amount_cents"] != body["amount_cents"]:
            return 422, {"error": "the key was used for another amount"}
        if not found:
            kind = "declined" if body["card"].endswith(DECLINED) else "charge"
            found = self.ledger.append(
                {"kind": kind, "charge": f"ch{len(self.ledger.lines) + 1}", "key": key,
                 "amount_cents": body["amount_cents"], "reference": body["reference"]}
            )  # fmt: skip
        return self._answer(found)

    def refund(self, key: str, body: dict[str, Any]) -> Answer:
        """Give a charge back, once."""
        charge = self.ledger.find(kind="charge", charge=body["charge"])
        if charge is None:
            return 404, {"error": "there is no such charge"}
        if not self.ledger.find(kind="refund", charge=body["charge"]):
            self.ledger.append({**charge, "kind": "refund", "key": key})
        return 200, {"charge": charge["charge"], "amount_cents": charge["amount_cents"]}

    def _answer(self, line: dict[str, Any]) -> Answer:
        if line["kind"] == "declined":
            return 402, {"error": "the card is declined"}
        return 200, {"charge": line["charge"], "amount_cents": line["amount_cents"]}

    async def _serve(self, request: web.Request, handle: Any) -> web.StreamResponse:
        key, body = request.headers.get("Idempotency-Key", ""), await request.json()
        if self._hit("busy"):
            return web.json_response({"error": "come back later"}, status=503)
        if self._hit("lose-request"):
            return _break(request)
        down = self._random.choice(("before", "after")) if self._hit("down") else ""
        if down == "before":
            os._exit(1)
        if key in self._working:
            return web.json_response({"error": "still at work on it"}, status=409)
        self._working.add(key)
        if self._hit("slow"):
            await asyncio.sleep(self.slow_seconds)
        self._working.discard(key)
        status, said = handle(key, body)
        if self._hit("double"):
            status, said = handle(key, body)
        if down == "after":
            os._exit(1)
        return _break(request) if self._hit("lose-answer") else web.json_response(said, status=status)

    def _hit(self, fault: str) -> bool:
        return self._random.random() < self.faults.get(fault, 0.0)


def _break(request: web.Request) -> web.Response:
    """End the connection instead of an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--ledger", type=Path, default=Path("ledger.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-keys", action="store_true", help="charge every request, whatever its key")
    parser.add_argument("--slow-seconds", type=float, default=3.0)
    for fault, what in FAULTS.items():
        parser.add_argument(f"--{fault}", type=float, default=0.0, metavar="CHANCE", help=what)
    given = parser.parse_args()
    faults = {fault: getattr(given, fault.replace("-", "_")) for fault in FAULTS}
    provider = Provider(
        Ledger(given.ledger), faults, seed=given.seed, keys=not given.no_keys, slow_seconds=given.slow_seconds
    )
    app = web.Application()
    app.add_routes(
        [
            web.post("/charges", provider.charges),
            web.get("/charges/{key}", provider.look_up),
            web.post("/refunds", provider.refunds),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=given.port, print=None)


if __name__ == "__main__":
    main()
