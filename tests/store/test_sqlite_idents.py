"""Finding tasks by their ids in SQLite, where the index knows ids as numbers, and rows share specs."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lineshaft.core.task import Task
from lineshaft.store import sqlite_idents, sqlite_specs
from lineshaft.store.conformance.harness import SHARD, TENANT, acquire, finished, row
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.values.ids import TimeOrderedIds


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "x.db")
    await store.open(address="a")
    yield store
    await store.close()


async def found(store: SQLiteStore, *ids: str) -> list[int | None]:
    """Return the arrival numbers of tasks by their ids."""
    tasks = await store.get(SHARD, [(TENANT, id) for id in ids])
    return [None if task is None else task.seq for task in tasks]


def test_ids_of_our_own_making_lie_in_the_order_of_time() -> None:
    ids = TimeOrderedIds(random.Random(1).getrandbits)
    made = [ids.next(1_767_312_245_678 + n // 3) for n in range(30)]
    places = [sqlite_idents.ident("t", id, seq) for seq, id in enumerate(made)]
    assert [at for at, _, _ in places] == [1_767_312_245_678 + n // 3 for n in range(30)]
    assert len({place[:2] for place in places}) == 30


@pytest.mark.parametrize(
    "id",
    [
        "order-17",
        "a" * 25,
        "0" * 26,
        "-" + "1" * 25,
        "1_" * 13,
        "g" * 26,
        "9c1185a5-c5e9-fc54-6128-08977ee8f5",
    ],
)
def test_other_ids_lie_in_the_generation_of_their_arrival(id: str) -> None:
    generation = sqlite_idents.GENERATION
    assert [sqlite_idents.ident("t", id, seq)[0] for seq in (0, generation - 1, generation)] == [-1, -1, -2]


async def test_ids_are_found_in_every_generation(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sqlite_idents, "GENERATION", 10)
    owner = await acquire(store)
    await owner.put(*(row(seq) for seq in range(1, 35)))
    assert await found(store, "task-1", "task-34", "task-35", "task-19") == [1, 34, None, 19]
    await store.close()
    await store.open(address="again")
    assert await found(store, "task-1", "task-34", "task-35", "task-19") == [1, 34, None, 19]


async def test_a_generation_that_was_pruned_is_not_asked_any_more(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_idents, "GENERATION", 10)
    owner = await acquire(store)
    await owner.put(*(finished(row(seq), prune_at=seq) for seq in range(1, 25)))
    await store.prune(owner.ownership, before=9, log_before=0)
    assert store._opened is not None
    assert len(store._opened.rules.generations.places(TENANT, "task-20")) == 2
    assert await found(store, "task-9", "task-10") == [None, 10]


async def test_ids_that_share_a_place_are_told_apart(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_idents, "_digest", lambda tenant, id: 7)
    owner = await acquire(store)
    elsewhere = row(3, id="task-1", tenant="another")
    await owner.put(row(1), row(2), elsewhere)
    assert await found(store, "task-1", "task-2", "task-3") == [1, 2, None]
    assert await store.get(SHARD, [("another", "task-1"), ("another", "task-2")]) == [elsewhere, None]


async def test_upper_and_lower_case_are_different_ids(store: SQLiteStore) -> None:
    owner = await acquire(store)
    id = f"{1_767_312_245_678:012x}{0xABCDEF:014x}"
    await owner.put(row(1, id=id))
    assert await found(store, id, id.upper()) == [1, None]


async def test_specs_that_no_task_has_any_more_go_where_there_are_many(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def various(seq: int) -> Task:
        return row(seq, priority=seq)

    owner = await acquire(store)
    await owner.put(*(various(seq) for seq in range(10)), finished(row(10, priority=10), prune_at=1))
    await store.prune(owner.ownership, before=1, log_before=0)
    await store.close()
    monkeypatch.setattr(sqlite_specs, "_MANY", 11)
    await store.open(address="again")
    specs = await store._look(lambda connection: connection.execute("SELECT priority FROM spec").fetchall())
    assert sorted(specs) == [(priority,) for priority in range(10)]
    owner = await acquire(store)
    assert (await owner.load()).tasks == [various(seq) for seq in range(10)]


async def test_more_specs_than_are_remembered(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_specs, "_KEPT", 3)
    owner = await acquire(store)
    tasks = [row(seq, priority=seq % 7) for seq in range(30)]
    await owner.put(*tasks)
    assert await store.get(SHARD, [(TENANT, task.id) for task in tasks]) == tasks
