"""An App across event loops, threads and forks."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from typing import Any

import pytest

from lineshaft import App, AppClosed, ForkedApp
from lineshaft.sdk.client import Client
from lineshaft.wire import CALLS


class CountingTransport:
    """Knows which loop it was used in."""

    def __init__(self) -> None:
        self.loops: set[int] = set()
        self.closed = False

    async def call(self, call: Any, **_: Any) -> int:
        self.loops.add(id(asyncio.get_running_loop()))
        return len(self.loops)

    async def session(self, hello: Any) -> None:
        return None

    async def close(self) -> None:
        self.closed = True


def client() -> tuple[Client, list[CountingTransport]]:
    opened: list[CountingTransport] = []

    def opener() -> CountingTransport:
        opened.append(CountingTransport())
        return opened[-1]

    return Client(opener), opened


async def test_each_event_loop_has_a_transport_of_its_own() -> None:
    own, opened = client()
    assert opened == []
    await own.call(CALLS["root"])
    await own.call(CALLS["root"])
    await asyncio.to_thread(lambda: asyncio.run(own.call(CALLS["root"])))
    await asyncio.to_thread(lambda: own.sync.wait_for(lambda: own.call(CALLS["root"])))
    assert [len(one.loops) for one in opened] == [1, 1, 1]
    await own.close()
    assert opened[0].closed
    assert opened[2].closed
    own.sync.end_thread()


def test_transports_do_not_pile_up_where_a_script_runs_one_loop_after_another() -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Bound(CountingTransport):
        """Holds on to its loop, as sockets do."""

        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.get_running_loop()
            alive.add(self)

    own = Client(Bound)

    async def use() -> None:
        await own.call(CALLS["root"])

    for _ in range(5):
        asyncio.run(use())
    gc.collect()
    assert len(alive) == 1


async def test_a_closed_app_says_so() -> None:
    own, _ = client()
    await own.close()
    await own.close()
    with pytest.raises(AppClosed, match="open it again"):
        await own.call(CALLS["root"])


async def test_a_closed_app_may_be_opened_again() -> None:
    own, opened = client()
    for _ in range(2):
        async with own:
            await own.call(CALLS["root"])
    assert [one.closed for one in opened] == [True, True]


async def test_the_synchronous_facade_does_not_block_a_running_loop() -> None:
    own, _ = client()
    with pytest.raises(RuntimeError, match="would block this event loop"):
        own.sync.wait_for(lambda: own.call(CALLS["root"]))


def in_child(question: Any) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(question())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    answer = os.read(reader, 10_000).decode()
    os.close(reader)
    os.waitpid(child, 0)
    return answer


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_an_app_that_was_open_at_a_fork_opens_anew_in_the_child() -> None:
    own, opened = client()
    own.sync.wait_for(lambda: own.call(CALLS["root"]))
    before = len(opened)

    for use in (
        lambda: (own.sync.wait_for(lambda: own.call(CALLS["root"])), len(opened))[1],
        lambda: (asyncio.run(own.call(CALLS["root"])), len(opened))[1],
    ):
        assert in_child(use) == str(before + 1)
    assert own.sync.wait_for(lambda: own.call(CALLS["root"])) == 1
    assert len(opened) == before
    own.sync.close()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_an_app_that_was_not_used_before_a_fork_works_in_the_child() -> None:
    own, _ = client()
    assert in_child(lambda: asyncio.run(own.call(CALLS["root"]))) == "1"


def test_a_forked_app_is_a_runtime_error() -> None:
    assert issubclass(ForkedApp, RuntimeError)


def test_an_app_takes_its_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINESHAFT_URL", raising=False)
    assert App().url == "http://127.0.0.1:7077"
    monkeypatch.setenv("LINESHAFT_URL", "http://elsewhere:1")
    assert App().url == "http://elsewhere:1"
    assert App("memory://").url == "memory://"
