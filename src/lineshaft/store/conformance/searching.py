"""Pages of tasks: every filter under every sort, compared with what going through all tasks finds."""

from __future__ import annotations

import itertools
import random
import re

import msgspec
import pytest

from lineshaft.core.commands import Filter
from lineshaft.core.task import State, Task
from lineshaft.errors import Invalid
from lineshaft.store.base import SORT_FIELDS, Query, Store
from lineshaft.store.conformance.harness import (
    NOW,
    SHARD,
    TENANT,
    Owner,
    Promises,
    acquire,
    finished,
    promise,
    row,
)

SORTS = [way + field for field in SORT_FIELDS for way in ("", "-")]
FILTERS = [
    Filter(),
    Filter(states=frozenset({State.QUEUED})),
    Filter(states=frozenset({State.SCHEDULED, State.RUNNING})),
    Filter(states=frozenset({State.FAILED, State.COMPLETED})),
    Filter(states=frozenset({State.QUEUED, State.FAILED})),
    Filter(states=frozenset()),
    Filter(queues=frozenset({"a"})),
    Filter(queues=frozenset({"a", "b/c", "never"})),
    Filter(queues=frozenset()),
    Filter(names=frozenset({"one", "two"})),
    Filter(tags=("red",)),
    Filter(tags=("red", "größe")),
    Filter(text="TASK-1"),
    Filter(text="größe"),
    Filter(text="boom"),
    Filter(states=frozenset({State.FAILED}), queues=frozenset({"a"}), tags=("red",), text="o"),
]


class SearchPromises(Promises):
    """Pages hold what the filter means, in the order of the sort, each task once."""

    @promise
    async def test_every_filter_under_every_sort_finds_what_is_there(self, store: Store) -> None:
        tasks = await _fill(await acquire(store))
        for filter, sort in itertools.product(FILTERS, SORTS):
            query = Query(tenant=TENANT, filter=filter, sort=sort, limit=1_000)
            page = await store.search(SHARD, query)
            assert [task.seq for task in page.tasks] == _expected(tasks, filter, sort), (filter, sort)
            assert page.next is None
            assert await store.count(SHARD, query) == len(page.tasks)

    @promise
    async def test_pages_of_any_size_make_up_the_whole(self, store: Store) -> None:
        tasks = await _fill(await acquire(store))
        for filter, sort, limit in itertools.product((Filter(), Filter(text="o")), SORTS, (1, 7, 50)):
            query = Query(tenant=TENANT, filter=filter, sort=sort, limit=limit)
            found = [task.seq for task in await _all_pages(store, query)]
            assert found == _expected(tasks, filter, sort), (filter, sort, limit)

    @promise
    async def test_a_page_that_is_just_full_is_the_last(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(*(row(seq) for seq in range(4)))
        page = await store.search(SHARD, Query(tenant=TENANT, limit=4))
        assert (len(page.tasks), page.next) == (4, None)
        page = await store.search(SHARD, Query(tenant=TENANT, limit=3))
        assert (len(page.tasks), page.next is None) == (3, False)

    @promise
    async def test_the_default_is_the_latest_first(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(*(row(seq) for seq in range(1, 200)))
        page = await store.search(SHARD, Query(tenant=TENANT))
        assert [task.seq for task in page.tasks] == list(range(199, 99, -1))

    @promise
    async def test_rows_come_back_whole(self, store: Store) -> None:
        owner = await acquire(store)
        task = finished(row(1, tags=("a", "b")), State.FAILED, error=b'{"type": "E"}')
        await owner.put(task)
        assert (await store.search(SHARD, Query(tenant=TENANT))).tasks == [task]

    @promise
    async def test_text_is_found_whatever_its_case(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(
            row(1, "Invoice-Kilo"),
            row(2, name="InVoIcE.kilo"),
            row(3, tags=("x", "ÜBER Kilo")),
            finished(row(4), State.FAILED, error='{"message": "Über kilo"}'.encode()),
            row(5),
        )
        for text, expected in (
            ("invoice", [1, 2]),
            ("KILO", [1, 2, 3, 4]),
            ("über", [3, 4]),
            ("Über K", [3, 4]),
            ("send-MAIL", [1, 3, 4, 5]),
            ("nothing of that", []),
        ):
            assert await _search(store, Filter(text=text)) == expected, text

    @promise
    async def test_text_is_taken_literally(self, store: Store) -> None:
        owner = await acquire(store)
        odd = ["a%b", "a_b", "aXb", "a\\b", "a'b", 'a"b', "a*b", "a[b", "a.b", "a\u0000b"]
        await owner.put(*(row(seq, tags=(text,)) for seq, text in enumerate(odd)))
        for seq, text in enumerate(odd):
            assert await _search(store, Filter(text=text)) == [seq], text
            assert await _search(store, Filter(tags=(text,))) == [seq], text
        assert await _search(store, Filter(text="%")) == [0]
        assert await _search(store, Filter(text="_")) == [1]

    @promise
    async def test_a_tag_is_matched_whole(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1, tags=("red",)), row(2, tags=("redder", "Red")), row(3, "red", name="red"))
        assert await _search(store, Filter(tags=("red",))) == [1]
        assert await _search(store, Filter(tags=("red", "redder"))) == []

    @promise
    async def test_letters_with_an_odd_lower_case_are_found(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1, tags=("\u212aelvin",)), row(2, tags=("\u0130zmir",)))
        assert await _search(store, Filter(text="kelvin")) == [1]
        assert await _search(store, Filter(text="\u212aELVIN")) == [1]
        assert await _search(store, Filter(text="zmir")) == [2]

    @promise
    async def test_one_tenant_never_finds_a_task_of_another(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1), row(2, tenant="zeta"), finished(row(3, tenant="zeta")))
        for sort in SORTS:
            query = Query(tenant="zeta", sort=sort)
            assert {task.seq for task in (await store.search(SHARD, query)).tasks} == {2, 3}
            assert await store.count(SHARD, query) == 2
        assert (await store.search(SHARD, Query(tenant="nobody"))).tasks == []
        assert await store.count(SHARD, Query(tenant="nobody")) == 0

    @promise
    async def test_what_is_past_its_retention_is_hidden(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(
            row(1),
            finished(row(2), prune_at=NOW),
            finished(row(3), prune_at=NOW + 1),
            finished(row(4), prune_at=None),
        )
        for now, expected in (
            (0, [1, 2, 3, 4]),
            (NOW - 1, [1, 2, 3, 4]),
            (NOW, [1, 3, 4]),
            (NOW + 1, [1, 4]),
        ):
            query = Query(tenant=TENANT, sort="created_at", now=now)
            assert [task.seq for task in (await store.search(SHARD, query)).tasks] == expected
            assert await store.count(SHARD, query) == len(expected)

    @promise
    async def test_what_arrived_later_is_hidden_by_max_seq(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(*(row(seq) for seq in range(1, 6)))
        query = Query(tenant=TENANT, sort="created_at", max_seq=3)
        assert [task.seq for task in (await store.search(SHARD, query)).tasks] == [1, 2, 3]
        assert await store.count(SHARD, query) == 3

    @promise
    async def test_pages_stay_in_place_while_tasks_arrive(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(*(row(seq) for seq in range(10)))
        found: list[int] = []
        after = None
        for arrival in itertools.count(10):
            page = await store.search(SHARD, Query(tenant=TENANT, limit=2, after=after))
            found += [task.seq for task in page.tasks]
            if (after := page.next) is None:
                break
            await owner.put(row(arrival))
        assert found == list(range(9, -1, -1))

    @promise
    async def test_an_update_is_found_by_what_the_task_is_now(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1, queue="a", tags=("x",)))
        await owner.put(row(1, queue="b", tags=("y",), priority=4))
        assert await _search(store, Filter(queues=frozenset({"a"}))) == []
        assert await _search(store, Filter(queues=frozenset({"b"}), tags=("y",))) == [1]
        assert await _search(store, Filter(tags=("x",))) == []

    @promise
    async def test_cursors_can_stand_in_a_url(self, store: Store) -> None:
        await _fill(await acquire(store))
        for sort in SORTS:
            page = await store.search(SHARD, Query(tenant=TENANT, sort=sort, limit=3))
            assert page.next is not None
            assert re.fullmatch(r"[A-Za-z0-9._~-]+", page.next)

    @promise
    async def test_a_cursor_that_was_not_given_is_refused(self, store: Store) -> None:
        await _fill(await acquire(store))
        query = Query(tenant=TENANT, sort="run_at", limit=3)
        given = (await store.search(SHARD, query)).next
        assert given is not None
        foreign = (await store.search(SHARD, Query(tenant=TENANT, sort="-run_at", limit=3))).next
        turned = given[:-1] + ("A" if given[-1] != "A" else "B")
        for cursor in (
            "",
            "x",
            "%",
            "日本",
            "0" * 1_000,
            given[:-1],
            given + "A",
            turned,
            given[::-1],
            foreign,
        ):
            with pytest.raises(Invalid) as refused:
                await store.search(SHARD, Query(tenant=TENANT, sort="run_at", limit=3, after=cursor))
            assert refused.value.field == "after"

    @promise
    async def test_a_sort_that_does_not_exist_is_refused(self, store: Store) -> None:
        await acquire(store)
        for sort in ("", "-", "seq", "--run_at", "run_at desc", "id"):
            with pytest.raises(Invalid) as refused:
                await store.search(SHARD, Query(tenant=TENANT, sort=sort))
            assert refused.value.field == "sort"


async def _fill(owner: Owner) -> list[Task]:
    """Commit tasks that differ in everything that a search asks for; return those of the tenant."""
    chance = random.Random(7)
    tasks = [_any_task(seq, chance) for seq in range(1, 61)]
    await owner.put(*tasks[:40])
    await owner.put(*tasks[40:], *(row(seq, tenant="zeta") for seq in range(61, 66)))
    return tasks


def _any_task(seq: int, chance: random.Random) -> Task:
    task = row(
        seq,
        queue=chance.choice(["a", "b/c", "d"]),
        name=chance.choice(["one", "two", "three"]),
        priority=chance.choice([-5, 0, 0, 7]),
        run_at=NOW + chance.randrange(5) * 1_000,
        tags=tuple(chance.sample(["red", "größe", "x%"], chance.randrange(4))),
        state=chance.choice(list(State)),
    )
    if not task.state.terminal:
        return task
    error = b'{"message": "Boom"}' if task.state is State.FAILED else None
    return finished(task, task.state, error=error, finished_at=NOW + chance.randrange(4))


def _expected(tasks: list[Task], filter: Filter, sort: str) -> list[int]:
    """Go through all tasks, in words of this file's own."""
    chosen = [task for task in tasks if _is_meant(task, filter)]
    field = sort.removeprefix("-")
    descending = sort.startswith("-")
    ordered = sorted(chosen, key=lambda task: (_value(task, field) or 0, task.seq), reverse=descending)
    known = [task.seq for task in ordered if _value(task, field) is not None]
    return known + [task.seq for task in ordered if _value(task, field) is None]


def _is_meant(task: Task, filter: Filter) -> bool:
    error = (task.run.error or b"").decode() if task.run else ""
    texts = " ".join([task.id, task.spec.name, *task.tags, error]).lower()
    return (
        (filter.states is None or task.state in filter.states)
        and (filter.queues is None or task.spec.queue in filter.queues)
        and (filter.names is None or task.spec.name in filter.names)
        and set(filter.tags) <= set(task.tags)
        and (filter.text or "").lower() in texts
    )


def _value(task: Task, field: str) -> int | None:
    values = {
        "created_at": task.seq,
        "run_at": task.run_at,
        "priority": task.spec.priority,
        "finished_at": task.run.finished_at if task.run else None,
    }
    return values[field]


async def _all_pages(store: Store, query: Query) -> list[Task]:
    tasks: list[Task] = []
    while True:
        page = await store.search(SHARD, query)
        assert len(page.tasks) <= query.limit
        tasks += page.tasks
        if page.next is None:
            return tasks
        query = msgspec.structs.replace(query, after=page.next)


async def _search(store: Store, filter: Filter) -> list[int]:
    """Return the arrival numbers of what is found, and check that the count is the same."""
    query = Query(tenant=TENANT, filter=filter, sort="created_at", limit=1_000)
    page = await store.search(SHARD, query)
    assert await store.count(SHARD, query) == len(page.tasks)
    return [task.seq for task in page.tasks]
