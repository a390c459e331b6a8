"""What a shard's memory promises to the modules of the verbs."""

from __future__ import annotations

import pytest

from lineshaft.core.batch import Counters, Snapshot
from lineshaft.core.commands import PutRecord
from lineshaft.core.loading import load
from lineshaft.core.memory import Memory
from lineshaft.core.task import Spec, State, Task
from lineshaft.core.transitions import IllegalMove
from tests.core.world import START, World


def empty() -> Memory:
    return Memory(Counters(), 0, START)


def test_a_move_that_is_not_in_the_table_is_a_bug_and_changes_nothing() -> None:
    memory = empty()
    tenant = memory.tenant("acme")
    task = Task(0, "acme", "a", Spec(name="work"), State.QUEUED, START, START)
    with pytest.raises(IllegalMove):
        memory.move(tenant, task, State.COMPLETED)
    assert task.state is State.QUEUED and not memory.ledger.dirty


def test_equal_sizes_are_one_object_whatever_else_was_seen() -> None:
    memory = empty()
    assert memory.share_size(int("1024")) is memory.share_size(int("1024"))
    assert [memory.share_size(size) for size in range(20_000)] == list(range(20_000))
    assert memory.share_size(int("1024")) is memory.share_size(int("1024"))


def test_tasks_that_come_with_one_spec_stand_in_the_lanes_of_their_tenants() -> None:
    spec = Spec(name="work")
    tasks = [
        Task(seq, tenant, f"t{seq}", spec, State.QUEUED, START, START)
        for seq, tenant in enumerate(["acme", "acme", "globex"])
    ]
    memory = load(Snapshot(position=3, counters=Counters(START, 3, 0), tasks=tasks, records=[]), START)
    sizes = {name: memory.tenant(name).lane(tasks[at].spec).size for name, at in (("acme", 0), ("globex", 2))}
    assert sizes == {"acme": 2, "globex": 1}


def test_records_of_any_kind_outlive_a_load(w: World) -> None:
    w.apply(PutRecord(tenant="acme", kind="key", key="k1", data=b"1"))
    w.reload()
    assert w.rows.records["key", "acme", "k1"].data == b"1"
    w.reload()
