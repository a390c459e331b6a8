"""Send requests straight into the application, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from lineshaft.engine.clock import Clock
from lineshaft.engine.engine import Engine
from lineshaft.server.app import Application
from lineshaft.server.calls import Calls
from lineshaft.server.hosts import AllowedHosts
from lineshaft.server.identity import KeyRing
from lineshaft.server.settings import Limits
from lineshaft.store.memory import MemoryStore


class Answer:
    """What came back."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False

    async def take(self, message: Any) -> None:
        """Take one ASGI message of the application."""
        if message["type"] == "http.response.start":
            assert self.status == 0, "answered twice"
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body", False)

    @property
    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)


class Edge:
    """An application over an engine in memory."""

    def __init__(self, application: Application, calls: Calls, keys: KeyRing) -> None:
        self.application = application
        self.calls = calls
        self.keys = keys

    async def send(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        headers: dict[str, str] | None = None,
        protocol: Any = None,
    ) -> Answer:
        """Send one request; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        raw_path, _, query = path.partition("?")
        given = {"host": "localhost", "content-type": "application/json"} | (headers or {})
        messages = [{"type": "http.request", "body": content, "more_body": False}]
        answer = Answer()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            raise AssertionError

        scope = {
            "type": "http",
            "method": method,
            "path": raw_path,
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "http_version": "1.1",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value],
        }
        if protocol is not None:
            scope["lineshaft.protocol"] = protocol
        await self.application(scope, receive, answer.take)
        assert answer.ended or protocol is not None
        return answer


@contextlib.asynccontextmanager
async def edge(*, limits: Limits | None = None, clock: Clock | None = None) -> AsyncIterator[Edge]:
    """Give an application for the length of the block."""
    limits = limits or Limits()
    async with Engine(MemoryStore(), clock=clock) as engine:
        keys = KeyRing(engine, engine.clock.now)
        calls = Calls(engine, keys, max_payload=limits.payload)
        application = Application(calls, keys, hosts=AllowedHosts("127.0.0.1"), limits=limits)
        yield Edge(application, calls, keys)
