"""One hostile exchange: what is sent in which steps, and what may come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from lineshaft.errors import BY_TYPE
from tests.hostile.target import AT_MOST

RESET = "reset"
"""A step: end the connection as a crash does, with what is unread still on the line."""
ANSWERED = "answered"
"""A step: wait until something has come back."""
HALF_CLOSE = "half close"
"""A step: say that no more will be sent."""
Step = bytes | float | str
"""Bytes to send, seconds to let pass, or one of the words above."""
_ERRORS = {error.status for error in BY_TYPE.values()} | {431}


@dataclass
class Attack:
    """What one client does. `refused`: it must not succeed; `kind` and `number` name it in a failure."""

    steps: list[Step]
    refused: bool = False
    reads: bool = True
    """Whether the client reads what comes; one that does not leaves after its steps."""
    kind: str = ""
    number: int = 0


Kind = Callable[[random.Random], Attack]


@dataclass
class Outcome:
    """What came back, and whether the coordinator ended the connection (or the client)."""

    attack: Attack
    received: bytes = b""
    ended: bool = False
    problems: list[str] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def __str__(self) -> str:
        steps = [step if isinstance(step, str | float) else step[:300] for step in self.attack.steps[:6]]
        name = f"{self.attack.kind} (number {self.attack.number})"
        return f"{name}: {'; '.join(self.problems)}\n  sent {steps}\n  received {self.received[:600]!r}"


async def carry_out(port: int, attack: Attack) -> Outcome:
    """Do what the attack says and collect what comes back, until the connection ends or hangs."""
    outcome = Outcome(attack)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(_collect(reader, outcome) if attack.reads else asyncio.sleep(0))
    try:
        left = await _send(writer, outcome)
        if left or not attack.reads:
            outcome.ended = True
            return outcome
        async with asyncio.timeout(AT_MOST):
            await reading
    except TimeoutError:
        outcome.problems.append(f"neither answered nor closed within {AT_MOST:g} s")
    finally:
        reading.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return outcome


async def _send(writer: asyncio.StreamWriter, outcome: Outcome) -> bool:
    """Send step by step; return whether the client has left before the end of the connection."""
    try:
        for step in outcome.attack.steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif step == ANSWERED:
                async with asyncio.timeout(AT_MOST):
                    await outcome.heard.wait()
            elif step == HALF_CLOSE:
                writer.write_eof()
            else:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return True
    except OSError:
        pass  # it was closed under us, which is an answer too
    return False


async def _collect(reader: asyncio.StreamReader, outcome: Outcome) -> None:
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(1 << 16):
            outcome.received += data
            outcome.heard.set()
    outcome.ended = True
    outcome.heard.set()


def judge(outcome: Outcome) -> list[int]:
    """Note what is wrong with the answers; return their statuses."""
    statuses: list[int] = []
    rest = outcome.received
    while rest:
        head, found, rest = rest.partition(b"\r\n\r\n")
        if not found:
            outcome.problems.append(f"half a head: {head[:100]!r}")
            break
        status, headers = _parsed(head)
        statuses.append(status)
        if status == 101:
            break
        size = int(headers.get("content-length", "0"))
        body, rest = rest[:size], rest[size:]
        if status in (100, 204):
            continue
        if "transfer-encoding" in headers or headers.get("content-type", "").startswith("text/event-stream"):
            break
        _judge_answer(outcome, status, headers, body, size)
    if outcome.attack.refused and outcome.received and min(statuses, default=400) < 400:
        outcome.problems.append(f"it was not refused: {statuses}")
    return statuses


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    line, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return int(line.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


def _judge_answer(outcome: Outcome, status: int, headers: dict[str, str], body: bytes, size: int) -> None:
    if status >= 500:
        outcome.problems.append(f"status {status}: {body[:200]!r}")
    if len(body) < size:
        outcome.problems.append(f"half a body: {len(body)} of {size} bytes")
        return
    if status < 400:
        return
    if status not in _ERRORS or not headers.get("content-type", "").startswith("application/json"):
        outcome.problems.append(f"not an error of the protocol: {status}, {headers}")
        return
    error = json.loads(body)["error"]
    if not error["type"] or not error["reason"]:
        outcome.problems.append(f"an error that does not say what is wrong: {error}")
