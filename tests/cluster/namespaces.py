"""Coordinators in network namespaces of their own: each has one line to the store, and one to the others.

A line that is cut lets no packet through and tells nobody: no end of a connection hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from random import Random
from urllib.parse import urlsplit

import pytest

from tests.cluster.backing import Mishap
from tests.cluster.processes import PATIENCE, Clients, Served
from tests.servers import run
from tests.store.redis.relay import Relay

PORT = 7077


class Network:
    """Namespaces, numbered from 2 on, which is also the last part of their addresses."""

    def __init__(self) -> None:
        self._tag = secrets.token_hex(3)
        self._subnet = f"10.{secrets.randbelow(50) + 200}"

    @property
    def gateway(self) -> str:
        """Return the address at which coordinators find the store."""
        return f"{self._subnet}.1.1"

    def address(self, number: int) -> str:
        """Return the address at which clients and others find a coordinator."""
        return f"{self._subnet}.2.{number}"

    def within(self, number: int) -> tuple[str, ...]:
        return ("ip", "netns", "exec", f"ls{self._tag}n{number}")

    def cut(self, number: int, line: int) -> None:
        """Let nothing through between a coordinator and the store (line 1), or clients and others (2)."""
        _ip("link", "set", f"l{self._tag}h{line}{number}", "nomaster")

    def heal(self, number: int, line: int) -> None:
        _ip("link", "set", f"l{self._tag}h{line}{number}", "master", f"l{self._tag}b{line}")

    @contextlib.contextmanager
    def made(self, count: int) -> Iterator[None]:
        made: list[tuple[str, ...]] = []
        try:
            for line in (1, 2):
                bridge = f"l{self._tag}b{line}"
                # With an address of its own, which does not change when a line is taken out.
                hardware = f"02:00:{':'.join(self._tag[n : n + 2] for n in (0, 2, 4))}:0{line}"
                _ip("link", "add", bridge, "address", hardware, "type", "bridge")
                made.append(("link", "del", bridge))
                _ip("addr", "add", f"{self._subnet}.{line}.1/24", "dev", bridge)
                _ip("link", "set", bridge, "up")
            for number in range(2, 2 + count):
                space = f"ls{self._tag}n{number}"
                _ip("netns", "add", space)
                made.append(("netns", "del", space))
                _ip("-n", space, "link", "set", "lo", "up")
                for line in (1, 2):
                    here, there = f"l{self._tag}h{line}{number}", f"l{self._tag}c{line}{number}"
                    _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
                    made.append(("link", "del", here))
                    _ip("link", "set", here, "up", "master", f"l{self._tag}b{line}")
                    _ip("-n", space, "addr", "add", f"{self._subnet}.{line}.{number}/24", "dev", there)
                    _ip("-n", space, "link", "set", there, "up")
            yield
        finally:
            for undoing in reversed(made):
                _ip(*undoing)


@contextlib.asynccontextmanager
async def parted(store: str, count: int) -> AsyncIterator[tuple[Clients, dict[str, Mishap]]]:
    """Start coordinators, each in a namespace; give their clients, and what may happen to the network."""
    import aiohttp

    needs_namespaces()
    network = Network()
    parts = urlsplit(store)
    assert parts.port is not None
    with network.made(count):
        # Test servers listen on the loopback only; the relay stands before it where the line ends.
        async with (
            Relay(parts.port, host=network.gateway) as relay,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            place = parts.netloc.rpartition("@")[0]
            place += "@" * bool(place) + f"{network.gateway}:{relay.port}"
            url = parts._replace(netloc=place).geturl()
            fleet: list[Served] = []
            try:
                for number in range(2, 2 + count):
                    listen, within = f"{network.address(number)}:{PORT}", network.within(number)
                    served = await Served.start(url, listen=listen, within=within, more=["--insecure"])
                    fleet.append(served)
                clients = Clients(fleet, http, seed=count)
                await clients.settled()
                yield clients, _mishaps(network, clients)
            finally:
                for served in fleet:
                    served.process.kill()
                    await served.process.communicate()


def _mishaps(network: Network, clients: Clients) -> dict[str, Mishap]:
    async def part(random: Random, lines: tuple[int, ...]) -> None:
        """Cut one off until others have all its shards."""
        victim = random.choice(clients.fleet)
        number = int(str(urlsplit(victim.url).hostname).rpartition(".")[2])
        others = [served for served in clients.fleet if served is not victim]
        for line in lines:
            network.cut(number, line)
        try:
            await _taken_over(clients, others)
            await asyncio.sleep(random.uniform(0, 2))
        finally:
            for line in lines:
                network.heal(number, line)
        await clients.settled()

    async def from_the_store(random: Random) -> None:
        await part(random, (1,))

    async def from_all(random: Random) -> None:
        await part(random, (1, 2))

    async def from_the_others(random: Random) -> None:
        """Part one from clients and others for a while; it keeps its place in the roster by the store."""
        number = int(str(urlsplit(random.choice(clients.fleet).url).hostname).rpartition(".")[2])
        network.cut(number, 2)
        try:
            await asyncio.sleep(random.uniform(1, 7))
        finally:
            network.heal(number, 2)
        await clients.settled()

    return {
        "cut off from the store": from_the_store,
        "cut off from everything": from_all,
        "cut off from the others": from_the_others,
    }


async def _taken_over(clients: Clients, others: list[Served]) -> None:
    """Wait until these have all shards."""
    there = sorted(served.url for served in others)
    async with asyncio.timeout(PATIENCE):
        while True:
            told = await clients.shards(others[0])
            if told is not None and sorted(told) == there:
                return
            await asyncio.sleep(0.05)


def needs_namespaces() -> None:
    """End the test where there are no network namespaces to be had."""
    if os.getuid() != 0:
        pytest.skip("network namespaces are made by root only")
    if shutil.which("ip") is None:
        pytest.skip("ip is missing here: apt-get install iproute2")
    tried = subprocess.run(
        ["ip", "netns", "add", name := f"ls{secrets.token_hex(3)}"],
        check=False,
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        run.missing(f"this system has no network namespaces for us: {tried.stderr.strip()}")
    _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
