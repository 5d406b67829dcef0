"""All routes that an app has mounted, and a request of one, without a network, by whoever knows a secret or a token."""

import time
from typing import Any

import msgspec

from holdfast.core.wire.signature import sign
from holdfast.web.app import App
from holdfast.web.routes import Route

SECRET, TOKEN = "a secret of services", "a token of operators"


async def ask(app: App, method: str, path: str, secret: str = "absent", token: str = "absent") -> tuple[int, str]:
    """Status and kind of problem of one request, from a caller who has this secret and this token."""
    headers: list[tuple[bytes, bytes]] = []
    if secret != "absent":
        known = SECRET if secret == "right" else "another secret 12"
        headers.append((b"holdfast-signature", sign(known, method, path, b"", int(time.time())).encode()))
    if token != "absent":
        headers.append((b"authorization", f"Bearer {TOKEN if token == 'right' else 'another'}".encode()))
    scope = {"type": "http", "method": method, "path": "", "raw_path": path.encode(), "headers": headers}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = sent[1]["body"]
    kind = msgspec.json.decode(body)["type"] if sent[0]["status"] >= 400 and body else ""
    return sent[0]["status"], kind


def mounted(app: App, service: str) -> list[Route]:
    """All routes of a service: holdfast's, its commands', its own."""
    return [route for route, _ in app.sites[service].table.mounted]


def plain_path(route: Route) -> str:
    """A path of a route, its parameters filled in."""
    return "".join("/x" if part.startswith("{") else f"/{part}" for part in route.path.split("/")[1:])
