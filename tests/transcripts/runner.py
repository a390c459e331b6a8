"""Replay transcripts: `python -m tests.transcripts.runner URL [NAME…]`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from tests.transcripts.matching import Mismatch, match, substitute
from tests.transcripts.parsing import Expect, Send, Socket, Step, parse, transcripts

TIMEOUT = 60


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Replay:
    """One transcript against one coordinator."""

    def __init__(self, url: str, api_key: str | None = None, *, run: str | None = None) -> None:
        """`run` is what `${run}` stands for; else a new name."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._api_key = api_key
        self._variables = {"run": run or "t" + secrets.token_hex(4)}
        self._background: dict[str, tuple[threading.Thread, list[Any]]] = {}
        self._sockets: dict[str, ClientConnection] = {}
        self._exits = contextlib.ExitStack()
        self._unexpected: dict[str, list[Any]] = {}
        self._sent: Send | None = None

    def run(self, path: Path) -> None:
        """Take every step. Raises `Mismatch` that names file and line."""
        try:
            for step in parse(path):
                try:
                    self._take(step)
                except Mismatch as mismatch:
                    raise Mismatch(f"{path.name}:{step.line}: {mismatch}") from None
                except (OSError, http.client.HTTPException) as error:
                    raise Mismatch(f"{path.name}:{step.line}: {type(error).__name__}: {error}") from error
        finally:
            self._exits.close()

    def _take(self, step: Step) -> None:
        if isinstance(step, Socket):
            self._speak(step)
        elif isinstance(step, Send):
            if step.background is None:
                self._sent = step
            else:
                self._start(step)
        elif step.background is not None:
            thread, result = self._background.pop(step.background)
            thread.join()
            [answer] = result
            if isinstance(answer, Exception):
                raise Mismatch(f"{type(answer).__name__}: {answer}")
            self._compare(step, answer)
        else:
            assert self._sent is not None, "an answer without a request"
            self._compare(step, self._exchange(self._sent, step.streams))

    def _start(self, send: Send) -> None:
        result: list[Any] = []
        arrived = threading.Event()

        def exchange() -> None:
            try:
                result.append(self._exchange(send, [], arrived))
            except Exception as error:
                result.append(error)
                arrived.set()

        thread = threading.Thread(target=exchange, daemon=True)
        thread.start()
        arrived.wait(TIMEOUT)
        self._background[send.background or ""] = (thread, result)

    # -- HTTP --------------------------------------------------------------------------------------

    def _exchange(self, send: Send, streams: list[str], arrived: threading.Event | None = None) -> Answer:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            body = self._body(send)
            path, headers = substitute(send.path, self._variables), self._headers(send, body)
            says_host = any(name.lower() == "host" for name, _ in headers)
            connection.putrequest(send.method, path, skip_host=says_host, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            if arrived is not None:
                arrived.set()
            response = connection.getresponse()
            content = self._streamed(response, streams) if streams else response.read()
            return Answer(response.status, response.headers, content)
        finally:
            connection.close()

    def _headers(self, send: Send, body: bytes) -> list[tuple[str, str]]:
        given = [(name, substitute(value, self._variables)) for name, value in send.headers]
        names = {name.lower() for name, _ in given}
        if "content-type" not in names and send.method in ("POST", "PUT", "PATCH"):
            given.append(("Content-Type", "application/json"))
        if self._api_key and "authorization" not in names:
            given.append(("Authorization", f"ApiKey {self._api_key}"))
        if body or send.method in ("POST", "PUT", "PATCH"):
            given.append(("Content-Length", str(len(body))))
        return [(name, value) for name, value in given if value != "-"]

    def _body(self, send: Send) -> bytes:
        body = substitute(send.body, self._variables).encode()
        if send.raw:
            return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), body)
        return body

    def _streamed(self, response: http.client.HTTPResponse, wanted: list[str]) -> bytes:
        """Read lines until each of the texts has come, in order."""
        content = b""
        for text in wanted:
            text, _, name = substitute(text, self._variables).partition(" as ")
            while True:
                line = response.readline()
                if not line:
                    raise Mismatch(f"the stream ended before {text!r}: {content!r}")
                content += line
                if text in line.decode():
                    if name:
                        self._variables[name] = line.decode().split(text, 1)[1].strip()
                    break
        return content

    def _compare(self, expect: Expect, answer: Answer) -> None:
        text = answer.body.decode(errors="replace")
        if answer.status != expect.status:
            raise Mismatch(f"expected {expect.status}, got {answer.status}: {text[:600]}")
        for name, value in expect.headers:
            actual = answer.headers.get(name)
            match(substitute(value, self._variables), actual, self._variables, name)
        for wanted in expect.contains:
            if substitute(wanted, self._variables) not in text:
                raise Mismatch(f"the answer has no {wanted}: {text[:600]}")
        for unwanted in expect.lacks:
            if substitute(unwanted, self._variables) in text:
                raise Mismatch(f"the answer has {unwanted}: {text[:600]}")
        if expect.empty and answer.body:
            raise Mismatch(f"expected no body: {text[:600]}")
        if expect.body:
            match(json.loads(substitute(expect.body, self._variables)), json.loads(text), self._variables)

    # -- WebSocket ---------------------------------------------------------------------------------

    def _speak(self, step: Socket) -> None:
        argument = substitute(step.argument, self._variables)
        if step.verb == "open":
            headers = {"Authorization": f"ApiKey {self._api_key}"} if self._api_key else {}
            connection = connect(
                f"ws://{self._host}:{self._port}{argument}",
                subprotocols=["lineshaft.v1"],  # type: ignore[list-item]
                additional_headers=headers,
                proxy=None,
            )
            self._sockets[step.name] = self._exits.enter_context(connection)
            self._unexpected[step.name] = []
        elif step.verb == "send":
            self._sockets[step.name].send(argument)
        elif step.verb == "receive":
            self._receive(step.name, json.loads(argument))
        else:
            self._sockets.pop(step.name).close()

    def _receive(self, name: str, wanted: Any) -> None:
        seen = self._unexpected[name]
        for message in seen:
            if self._matches(wanted, message):
                seen.remove(message)
                return
        while True:
            try:
                message = json.loads(self._sockets[name].recv(timeout=TIMEOUT))
            except Exception as error:
                raise Mismatch(f"no such message came ({type(error).__name__}); others were {seen}") from None
            if self._matches(wanted, message):
                return
            seen.append(message)

    def _matches(self, wanted: Any, message: Any) -> bool:
        captured = dict(self._variables)
        try:
            match(wanted, message, captured)
        except Mismatch:
            return False
        self._variables.update(captured)
        return True


def main(arguments: list[str]) -> int:
    """Replay all transcripts or those named; the exit code is how many failed."""
    if not arguments:
        print(__doc__)
        return 2
    url, *names = arguments
    failed = 0
    for path in transcripts(names):
        try:
            Replay(url, os.environ.get("LINESHAFT_API_KEY")).run(path)
        except Mismatch as mismatch:
            failed += 1
            print(f"FAILED  {mismatch}")
        else:
            print(f"ok      {path.stem}")
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
