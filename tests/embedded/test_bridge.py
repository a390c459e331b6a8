"""Calls across two event loops: answered in any order, cancelled, and refused once the other loop has
ended.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from lineshaft import AppClosed
from lineshaft.embedded.bridge import Bridge, refuse_calls_to
from lineshaft.sdk.loop_thread import LoopThread


@pytest.fixture
def there() -> Iterator[LoopThread]:
    thread = LoopThread("there")
    yield thread
    thread.stop()


async def test_many_calls_are_each_answered(there: LoopThread) -> None:
    async def double(n: int) -> int:
        assert threading.current_thread().name == "there"
        await asyncio.sleep(0.001 * (n % 3))
        if n % 7 == 0:
            raise ValueError(n)
        return 2 * n

    bridge = Bridge(there.loop)
    answers = await asyncio.gather(*(bridge.run(double(n)) for n in range(200)), return_exceptions=True)
    expected = [ValueError if n % 7 == 0 else 2 * n for n in range(200)]
    assert [type(one) if isinstance(one, ValueError) else one for one in answers] == expected


async def test_cancelling_a_call_cancels_it_there(there: LoopThread) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bridge = Bridge(there.loop)
    call = asyncio.create_task(bridge.run(endless()))
    assert await asyncio.to_thread(started.wait, 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(cancelled.wait, 5)


async def test_what_is_under_way_when_the_other_loop_ends_is_refused(there: LoopThread) -> None:
    started = threading.Event()

    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    bridge = Bridge(there.loop)
    call = asyncio.create_task(bridge.run(endless()))
    assert await asyncio.to_thread(started.wait, 5)
    await asyncio.to_thread(there.stop)
    with pytest.raises(AppClosed):
        await call
    with pytest.raises(AppClosed, match="was closed"):
        await bridge.run(endless())


async def test_an_answer_that_comes_when_whoever_called_has_gone_is_given_back(there: LoopThread) -> None:
    given_back = asyncio.Queue[str]()
    here = asyncio.get_running_loop()

    def give_back(answer: str) -> None:
        here.call_soon_threadsafe(given_back.put_nowait, answer)

    bridge = Bridge(there.loop, give_back)
    ready = threading.Event()

    async def lease() -> str:
        ready.set()
        return "a lease"

    call = asyncio.create_task(bridge.run(lease()))
    await asyncio.sleep(0)
    ready.wait(5)  # the answer cannot arrive here meanwhile
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await given_back.get() == "a lease"


async def test_all_that_call_a_loop_that_has_ended_are_refused(there: LoopThread) -> None:
    bridge = Bridge(there.loop)
    await asyncio.to_thread(there.stop)

    async def never() -> None: ...

    answers = await asyncio.gather(*(bridge.run(never()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [AppClosed] * 3


async def test_calls_are_answered_or_refused_while_the_other_loop_ends() -> None:
    async def briefly() -> None:
        await asyncio.sleep(0)

    async def call_until_refused(bridge: Bridge) -> None:
        with pytest.raises(AppClosed):
            while True:
                await bridge.run(briefly())

    for _ in range(20):
        there = LoopThread("there")
        loop = there.loop
        bridge = Bridge(loop)
        callers = [asyncio.create_task(call_until_refused(bridge)) for _ in range(3)]
        await bridge.run(briefly())
        await asyncio.to_thread(there.stop)
        refuse_calls_to(loop)
        await asyncio.wait_for(asyncio.gather(*callers), 20)


async def test_a_caller_cancelled_after_the_other_loop_has_ended_hears_that_it_was_cancelled(
    there: LoopThread,
) -> None:
    bridge = Bridge(there.loop)

    async def endless() -> None:
        await asyncio.Event().wait()

    call = asyncio.create_task(bridge.run(endless()))
    await asyncio.sleep(0)
    there.stop()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(AppClosed):
        await bridge.run(endless())


def test_a_bridge_goes_with_the_loop_that_it_comes_from(there: LoopThread) -> None:
    bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()

    async def endless() -> None:
        await asyncio.Event().wait()

    async def call() -> None:
        bridge = bridges[asyncio.get_running_loop()] = Bridge(there.loop)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await bridge.run(endless())

    for _ in range(3):
        asyncio.run(call())
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), there.loop).result(5)
    gc.collect()
    assert len(bridges) == 0
