"""Calls across two event loops: answered in any order, cancelled, and refused once the other loop has
ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from lineshaft import AppClosed
from lineshaft.embedded.bridge import Bridge
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
