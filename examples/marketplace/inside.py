"""The whole marketplace in the driver's own process: no sockets, the same ASGI app, the same answers.

What is measured so is what the services cost, without the cost of HTTP on the wire. `Inside` stands in the place of
`driver.Api`.
"""

import json
from typing import Any

from holdfast import Running
from holdfast.web.app import App, make_app
from marketplace.driver import Api


class Inside(Api):
    """The API of services that run here."""

    def __init__(self, running: Running) -> None:
        super().__init__({}, None)
        self._apps: dict[str, App] = {name: make_app({name: node}) for name, node in running.nodes.items()}

    async def ask(self, service: str, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        """One request, handed to the service's app."""
        data = json.dumps(body).encode() if body is not None else b""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if data:
            named.append((b"content-type", b"application/json"))
        raw, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http", "method": method, "path": raw, "raw_path": raw.encode(), "query_string": query.encode(),
            "headers": named, "root_path": "",
        }  # fmt: skip
        await self._apps[service](scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])
