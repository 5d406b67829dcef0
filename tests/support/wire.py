"""The network between a store and its server, which can be cut at a chosen byte: before it, after it, or too late."""

import asyncio
import contextlib
from collections.abc import Callable

from holdfast.testing.servers import Server


class Wire:
    """The network between a store and its server, which can be cut at a chosen moment."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.port = 0
        self.cut_before: bytes = b""
        """Cut when the client sends this: the server never gets it."""
        self.cut_after: bytes = b""
        """Cut when the server answers what was sent with this in it: the client never hears of it."""
        self.cut_late: bytes = b""
        """Cut when the client sends this, but the server gets it, half a second later."""
        self.hold: bytes = b""
        """Keep back the answer to what was sent with this in it, for half a second."""
        self.cuts = 0
        self.then: Callable[[], None] = lambda: None
        """Called when a connection has been cut, before its client is told."""
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Wire":
        self._listener = await asyncio.start_server(self._began, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, name: str) -> str:
        """The store URL of a database by this way."""
        return self._server.url(name).replace(f":{self._server.port}/", f":{self.port}/")

    def _began(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(client, back))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            server, forth = await asyncio.open_connection("127.0.0.1", self._server.port)
        except OSError:
            back.close()
            return
        answers = asyncio.ensure_future(self._answers(server, back))
        self._tasks.add(answers)
        try:
            while data := await client.read(1 << 20):
                if self._hit(data, "cut_before"):
                    self.then()
                    break
                if self._hit(data, "cut_after"):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    forth.write(data)
                    await server.read(1)
                    await asyncio.sleep(0.1)  # of several statements the first is answered before the last
                    self.then()
                    break
                if self._hit(data, "cut_late"):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    back.close()
                    await asyncio.sleep(0.5)
                    forth.write(data)
                    await forth.drain()
                    await server.read(1)
                    break
                if self._hit(data, "hold"):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    forth.write(data)
                    await asyncio.sleep(0.5)
                    answers = asyncio.ensure_future(self._answers(server, back))
                    self._tasks.add(answers)
                    continue
                forth.write(data)
        except OSError:
            pass
        finally:
            answers.cancel()
            back.close()
            forth.close()

    def _hit(self, data: bytes, name: str) -> bool:
        wanted = getattr(self, name)
        if not wanted or wanted not in data:
            return False
        setattr(self, name, b"")
        self.cuts += 1
        return True

    async def _answers(self, server: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(1 << 20):
                back.write(data)
        back.close()
