"""What a handler under measurement says, and how the driver hears it. The standard library alone.

A payload is 98 letters, which are 100 bytes of JSON: what it is for, when it was sent, and a filling. The
handler says what the driver needs to know in datagrams to the loopback, after it has taken the time: nothing
of it is in a figure. Clocks are CLOCK_MONOTONIC, which all processes of a machine share, Node.js's included.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

LETTERS = 98
QUIET = "q"
"""Just runs."""
PICK_UP = "p"
"""Says how long it took from the stamp to the handler."""
DRAIN = "d"
"""Counts; the first and the last of BENCH_DRAIN say the time."""


def payload(kind: str = QUIET) -> str:
    """Return a payload stamped with the present."""
    return f"{kind}{time.perf_counter_ns():020d}".ljust(LETTERS, "x")


class Handler:
    """The no-op handler of every Python contender: call it with the payload."""

    def __init__(self) -> None:
        host, _, port = os.environ.get("BENCH_TELL", "127.0.0.1:9").rpartition(":")
        self._address = (host, int(port))
        self._expected = int(os.environ.get("BENCH_DRAIN", "0"))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._count = 0

    def __call__(self, payload: str) -> None:
        """Do nothing, and say so where it matters."""
        kind = payload[0]
        if kind == DRAIN:
            self._count += 1
            if self._count in (1, self._expected):
                self._tell(time.perf_counter_ns())
        elif kind == PICK_UP:
            self._tell(time.perf_counter_ns() - int(payload[1:21]))

    def close(self) -> None:
        """Say no more."""
        self._socket.close()

    def _tell(self, number: int) -> None:
        self._socket.sendto(b"%d" % number, self._address)


class Ear:
    """Hears what handlers say; `address` is for BENCH_TELL."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    async def hear(self, timeout: float = 60.0) -> int:
        """Return the next number (nanoseconds). Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        return int(await asyncio.wait_for(loop.sock_recv(self._socket, 64), timeout))

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
