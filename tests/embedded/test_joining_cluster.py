"""Apps on a store that several coordinators share: each is one of them."""

from __future__ import annotations

import asyncio
import os

import pytest

from lineshaft import App
from lineshaft.errors import Invalid
from lineshaft.wire import CALLS
from tests.embedded.together import all_done, members


async def test_apps_of_several_processes_are_one_cluster(valkey_url: str) -> None:
    async with members(valkey_url, "a", "b", "c") as together:
        for member in together:
            member.tell("enqueue", 0, 80)
        await asyncio.gather(*(member.has_stored(20) for member in together))
        await together[1].kill()
        await together[0].heard("did")
        await together[0].end()
        await together[2].heard("did")
        ids = set().union(*(member.stored for member in together))
        done = await all_done(valkey_url, ids)
        assert ids <= set(done)
        assert set(done.values()) == {1}
        await together[2].end()
        assert [member.errors for member in together] == [[], [], []]


async def test_whoever_knows_its_address_may_call_an_app(valkey_url: str) -> None:
    async with App(valkey_url) as app:
        await app.enqueue_named("x", task_id="mine")
        root = await app.call(CALLS["ready"])
        async with App(root.owner) as other:
            assert await other.handle("mine").state() == "queued"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_is_another_member(valkey_url: str) -> None:
    app = App(valkey_url)
    app.sync.enqueue_named("x", task_id="parent")
    if (child := os.fork()) == 0:
        code = 1
        try:
            app.sync.enqueue_named("x", task_id="child")
            code = int(app.sync.handle("parent").state() != "queued")
            app.sync.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert app.sync.handle("child").state() == "queued"
    app.sync.close()


def test_where_it_listens_is_only_said_where_it_does() -> None:
    for url in ("memory://", "sqlite:///jobs.db", "http://127.0.0.1:7077"):
        with pytest.raises(Invalid, match=r"`listen` is for a store that several coordinators share"):
            App(url, listen="127.0.0.1:0")


async def test_an_app_does_not_listen_beyond_its_machine_without_a_key(valkey_url: str) -> None:
    with pytest.raises(Invalid, match="there is no API key"):
        async with App(valkey_url, listen="0.0.0.0:0"):
            raise AssertionError("it must not open")
