"""Claims over several partitions: nothing lost, nothing twice, nothing that nobody took."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from lineshaft import wire
from lineshaft.errors import Invalid, LeaseLost, NotFound, Unavailable
from lineshaft.wire import Claim, Complete, Worker
from tests.server.partitions.split import PARTITIONS, Split, until


def worker(**given: Any) -> Worker:
    return Worker(**{"id": "w", "incarnation": "1"} | given)


async def fill(split: Split, each: int) -> list[str]:
    """Enqueue as many tasks in each partition."""
    ids = [id for partition in range(PARTITIONS) for id in split.ids_in(partition, each)]
    for id in ids:
        await split.enqueue(id)
    return ids


async def test_a_claim_takes_from_all_partitions_up_to_its_max(split: Split) -> None:
    ids = await fill(split, 4)
    first = await split.claim(max=10)
    rest = await split.claim(max=10)
    assert (len(first), len(rest)) == (10, 2)
    assert sorted(task.task_id for task in first + rest) == sorted(ids)
    assert len({task.lease_token for task in first + rest}) == len(ids)
    assert await split.claim(max=10) == []


async def test_single_claims_take_turns_over_the_partitions(split: Split) -> None:
    await fill(split, 2)
    taken = [task.task_id for _ in range(PARTITIONS) for task in await split.claim()]
    assert len({split.calls.partitioned["default"].parts.of(id) for id in taken}) == PARTITIONS


async def test_a_waiting_claim_is_given_what_comes_in_any_partition(split: Split) -> None:
    for partition in range(PARTITIONS):
        waiting = asyncio.create_task(split.claim(wait="50s"))
        await asyncio.sleep(0)
        [id] = split.ids_in(partition, 1)
        await split.enqueue(id)
        [task] = await waiting
        assert task.task_id == id
        await split.call("complete", id, body=Complete(lease_token=task.lease_token))
    assert not await split.is_waiting()


async def test_what_comes_at_the_same_time_is_taken_up_to_max_and_the_rest_given_back(split: Split) -> None:
    ids = [split.ids_in(partition, 1)[0] for partition in range(PARTITIONS)]
    waiting = asyncio.create_task(split.claim(wait="50s", max=2))
    await until(split.is_waiting)
    await asyncio.gather(*(split.enqueue(id) for id in ids))
    tasks = await waiting
    assert 1 <= len(tasks) <= 2
    held = {task.task_id for task in tasks}

    async def settled() -> bool:
        return Counter((await split.states()).values())["running"] == len(held)

    await until(settled)
    again = await split.claim(max=10)
    assert held | {task.task_id for task in again} == set(ids)
    assert all(task.attempt == 1 for task in again)


async def test_a_wait_that_is_cancelled_leaves_nothing_parked_or_leased(split: Split) -> None:
    waiting = asyncio.create_task(split.claim(wait="50s"))
    await until(split.is_waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not await split.is_waiting()
    ids = await fill(split, 1)
    assert set((await split.states()).values()) == {"queued"}
    assert len(await split.claim(max=10)) == len(ids)


async def test_a_wait_ends_with_nothing_when_time_is_up(split: Split) -> None:
    assert await split.claim(wait="30ms") == []
    assert not await split.is_waiting()


class Gone:
    """A requester who goes when it is to be handed something."""

    async def reach(self) -> None:
        raise ConnectionResetError


async def test_what_nobody_takes_is_released_unburned_in_every_partition(split: Split) -> None:
    ids = await fill(split, 2)
    with pytest.raises(ConnectionResetError):
        await split.call("claim", body=Claim(max=10), requester=Gone())
    with pytest.raises(ConnectionResetError):
        await split.call("report", body=wire.Report(items=[], claim=Claim(max=10)), requester=Gone())
    tasks = await split.claim(max=10)
    assert sorted(task.task_id for task in tasks) == sorted(ids)
    assert {task.attempt for task in tasks} == {1}


async def test_an_answer_that_came_too_late_is_given_back(split: Split) -> None:
    ids = await fill(split, 2)
    answer = await split.call("claim", body=Claim(max=10))
    split.calls.give_back(split.identity, answer)

    async def released() -> bool:
        return set((await split.states()).values()) == {"queued"}

    await until(released)
    assert len(await split.claim(max=10)) == len(ids)


# -- repeats and what a worker knows of --------------------------------------------------------------


async def test_a_repeated_claim_is_given_what_is_held_of_all_partitions(split: Split) -> None:
    await fill(split, 3)
    first = await split.claim(claim_id="c", max=5)
    again = await split.claim(claim_id="c", max=5)
    assert {task.lease_token for task in first} == {task.lease_token for task in again}
    await split.call("complete", first[0].task_id, body=Complete(lease_token=first[0].lease_token))
    third = await split.claim(claim_id="c", max=5)
    assert {task.lease_token for task in third} == {task.lease_token for task in first[1:]}
    with pytest.raises(Invalid) as caught:
        await split.call("claim", body=Claim(claim_id="c"))
    assert caught.value.field == "max"


async def test_a_repeat_takes_over_a_parked_first(split: Split) -> None:
    first = asyncio.create_task(split.claim(claim_id="c", wait="50s"))
    await until(split.is_waiting)
    again = asyncio.create_task(split.claim(claim_id="c", wait="50s"))
    assert await first == []
    await split.enqueue("a")
    assert [task.task_id for task in await again] == ["a"]


async def test_leases_that_a_worker_does_not_know_of_are_released_in_every_partition(split: Split) -> None:
    await fill(split, 2)
    held = await split.claim(max=6, worker=worker())
    known = [held[0], held[-1]]
    tasks = await split.claim(max=10, worker=worker(), holding=[task.lease_token for task in known])
    assert {task.task_id for task in tasks} == {task.task_id for task in held} - {t.task_id for t in known}
    for task in known:
        await split.call("complete", task.task_id, body=Complete(lease_token=task.lease_token))
    for task in held[1:-1]:
        with pytest.raises(LeaseLost):
            await split.call("complete", task.task_id, body=Complete(lease_token=task.lease_token))


async def test_a_token_of_another_partition_is_lost(split: Split) -> None:
    await fill(split, 1)
    tasks = await split.claim(max=3)
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        bare = task.lease_token.split("~")[1]
        for token in (other.lease_token, bare, "", "~", "0~", f"9~{bare}"):
            with pytest.raises(LeaseLost):
                await split.call("complete", task.task_id, body=Complete(lease_token=token))
        await split.call("complete", task.task_id, body=Complete(lease_token=task.lease_token))
    with pytest.raises(NotFound):
        await split.call("complete", "nobody", body=Complete(lease_token="0~1-1"))


# -- what a worker has -----------------------------------------------------------------------------------


async def test_resources_are_the_workers_and_not_each_partitions(split: Split) -> None:
    gpu = wire.WorkerAffinity(resources={"gpu": 1})
    for partition in range(PARTITIONS):
        for id in split.ids_in(partition, 2):
            await split.enqueue(id, worker_affinity=gpu)
    own = worker(resources={"gpu": 2})
    held = [*await split.claim(max=1, worker=own), *await split.claim(max=1, worker=own)]
    assert len(held) == 2
    assert await split.claim(max=5, worker=own) == []
    [info] = (await split.call("workers")).workers
    assert (info.resources, info.free, info.held) == ({"gpu": 2}, {"gpu": 0}, 2)
    waiting = asyncio.create_task(split.claim(max=5, worker=own, wait="50s", claim_id="c"))
    await until(split.is_waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await split.call("complete", held[0].task_id, body=Complete(lease_token=held[0].lease_token))
    assert len(await split.claim(max=5, worker=own)) == 1


async def test_a_worker_drains_in_partitions_that_have_not_heard_of_it(split: Split) -> None:
    await fill(split, 2)
    await split.claim(max=1, worker=worker())
    answer = await split.call("drain", "w")
    assert (answer.draining, answer.held) == (True, 1)
    for _ in range(PARTITIONS):
        told = await split.call("claim", body=Claim(max=1, worker=worker()))
        assert (told.tasks, told.directive) == ([], "drain")
    with pytest.raises(NotFound):
        await split.call("drain", "nobody")


async def test_a_partition_that_cannot_answer_is_left_out_for_a_while(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await fill(split, 2)
    parts = split.calls.partitioned["default"].parts
    lease, down = parts.lease, {0}

    async def flaky(partition: int, *args: Any, **given: Any) -> Any:
        if partition in down:
            raise Unavailable("moving")
        return await lease(partition, *args, **given)

    monkeypatch.setattr(parts, "lease", flaky)
    there = {id for id in ids if parts.of(id) != 0}
    assert {task.task_id for task in await split.claim(max=10, claim_id="c")} == there
    assert await split.claim(max=10) == []
    down |= {1, 2}
    with pytest.raises(Unavailable, match="moving"):
        await split.claim(max=10)
    down.clear()
    assert {task.task_id for task in await split.claim(max=10)} == set(ids) - there


# -- a race ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_workers_that_race_lose_nothing_and_get_nothing_twice(split: Split, seed: int) -> None:
    chance = random.Random(seed)
    total = 300
    done: Counter[str] = Counter()
    finished = asyncio.Event()

    async def produce() -> None:
        for first in range(0, total, 10):
            body = [wire.Enqueue(name="n", task_id=f"r{n}") for n in range(first, first + 10)]
            answer = await split.call("bulk", body=body)
            assert [item.status for item in answer.items] == [201] * 10
            assert [item.task_id for item in answer.items] == [item.task_id for item in body]
            await asyncio.sleep(chance.random() / 500)

    async def work(number: int) -> None:
        own = worker(id=f"w{number}") if number % 2 else None
        while not finished.is_set():
            claim = Claim(
                max=chance.randint(1, 5),
                wait=chance.choice(["0s", "20ms"]),
                worker=own,
                claim_id=f"c{number}-{chance.random()}" if chance.random() < 0.5 else None,
            )
            asked = asyncio.ensure_future(split.call("claim", body=claim))
            if chance.random() < 0.1:
                await asyncio.sleep(0)
                if asked.cancel():
                    await asyncio.gather(asked, return_exceptions=True)
                    continue
            items: list[Any] = []
            for task in (await asked).tasks:
                if chance.random() < 0.2:
                    items.append(wire.ReleaseItem(task_id=task.task_id, lease_token=task.lease_token))
                else:
                    items.append(wire.CompleteItem(task_id=task.task_id, lease_token=task.lease_token))
            reported = await split.call("report", body=wire.Report(items=items))
            assert [answer.status for answer in reported.items] == [200] * len(items)
            done.update(item.task_id for item in items if isinstance(item, wire.CompleteItem))
            if len(done) == total:
                finished.set()
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(produce(), *(work(number) for number in range(8)))
    assert set(done.values()) == {1}
    assert Counter((await split.states()).values()) == {"completed": total}
