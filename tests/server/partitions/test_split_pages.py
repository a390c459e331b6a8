"""Pages and change feeds over several partitions, without any coordinator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineshaft.errors import Invalid, LineshaftError, NotOwner, Overloaded, Unavailable
from lineshaft.server.change_calls import Expired, Followed
from lineshaft.server.partitions.cursors import Mark, join_cursors, read_marks, split_cursors, write_marks
from lineshaft.server.partitions.following import follow_all
from lineshaft.server.partitions.merging import all_of
from lineshaft.server.partitions.pages import Sorting, page_of
from lineshaft.server.partitions.tokens import bare, marked, of_partition
from lineshaft.wire import Task, TaskChange, TaskPage

SORTS = [
    f"{sign}{field}" for field in ("created_at", "run_at", "finished_at", "priority") for sign in ("", "-")
]


def task(partition: int, number: int, key: int) -> Task:
    at = f"2026-01-01T00:00:00.{key:03d}Z"
    return Task(
        task_id=f"{partition}-{number}",
        name="n",
        queue="q",
        state="queued",
        priority=key,
        attempt=0,
        lost_leases=0,
        max_retries=3,
        created_at=at,
        run_at=at,
        finished_at=at if key % 2 else None,
    )


class Shelf:
    """Partitions of tasks in order; its cursors name the last task of a page."""

    def __init__(self, keys: list[list[int]], sort: str) -> None:
        self._sorting = Sorting(sort)
        self.partitions = []
        for partition, some in enumerate(keys):
            tasks = [task(partition, number, key) for number, key in enumerate(some)]
            tasks.sort(key=self._sorting.key, reverse=self._sorting.descending)
            self.partitions.append(tasks)
        self.places = {t.task_id: place for tasks in self.partitions for place, t in enumerate(tasks)}
        self.gone: set[str] = set()

    async def fetch(self, partition: int, after: str | None, size: int) -> TaskPage:
        assert 1 <= size <= 1_000
        first = -1 if after is None else int(after)
        rest = [t for t in self.partitions[partition] if self.places[t.task_id] > first]
        rest = [t for t in rest if t.task_id not in self.gone]
        page = rest[:size]
        more = len(rest) > size
        return TaskPage(
            tasks=page, as_of=partition, next=str(self.places[page[-1].task_id]) if more else None
        )


keys_of_partitions = st.lists(st.lists(st.integers(0, 5), max_size=30), min_size=2, max_size=4)


@given(keys_of_partitions, st.sampled_from(SORTS), st.integers(1, 12), st.data())
@settings(max_examples=100)
def test_pages_tell_every_task_once_and_in_order(
    keys: list[list[int]], sort: str, limit: int, data: st.DataObject
) -> None:
    shelf, sorting = Shelf(keys, sort), Sorting(sort)
    everything = {t.task_id for tasks in shelf.partitions for t in tasks}
    told: list[Task] = []
    after: str | None = None
    while True:
        page = asyncio.run(page_of(shelf.fetch, partitions=len(keys), sort=sort, limit=limit, after=after))
        assert len(page.tasks) <= limit
        told += page.tasks
        if page.next is None:
            break
        assert len(page.tasks) == limit
        after = page.next
        if everything - shelf.gone:
            # Some go between two pages, told or not.
            shelf.gone |= set(
                data.draw(st.lists(st.sampled_from(sorted(everything - shelf.gone)), max_size=2))
            )
    ids = [t.task_id for t in told]
    assert everything - set(ids) <= shelf.gone
    if not shelf.gone:
        assert len(ids) == len(set(ids))
        found = [sorting.key(t) for t in told]
        assert found == sorted(found, reverse=sorting.descending)
    for partition, tasks in enumerate(shelf.partitions):
        own = [id for id in dict.fromkeys(ids) if id.startswith(f"{partition}-")]
        assert own == [t.task_id for t in tasks if t.task_id in set(own)]


def test_a_page_goes_on_where_its_last_task_is_gone() -> None:
    shelf = Shelf([[0, 1, 2, 3], [0, 1, 2, 3]], "created_at")
    first = asyncio.run(page_of(shelf.fetch, partitions=2, sort="created_at", limit=3, after=None))
    shelf.gone |= {first.tasks[-1].task_id}
    rest = asyncio.run(page_of(shelf.fetch, partitions=2, sort="created_at", limit=9, after=first.next))
    ids = [t.task_id for t in first.tasks + rest.tasks]
    assert len(ids) == len(set(ids)) == 8


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "a" * 99])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid, match="not a cursor") as caught:
        read_marks(cursor, sort="-created_at", partitions=3)
    assert caught.value.field == "after"


def test_a_cursor_is_bound_to_its_sort_and_to_the_number_of_partitions() -> None:
    marks = [Mark("x", 3, "2026", (7, 8)), Mark(done=True), Mark()]
    cursor = write_marks("run_at", marks)
    assert read_marks(cursor, sort="run_at", partitions=3) == marks
    assert cursor.isascii() and not set(cursor) & set("+/=&?#")
    with pytest.raises(Invalid, match="sorted by 'run_at'"):
        read_marks(cursor, sort="-run_at", partitions=3)
    with pytest.raises(Invalid, match="of 3 partitions, not 4"):
        read_marks(cursor, sort="run_at", partitions=4)


def change(partition: int, number: int, at: int) -> TaskChange:
    return TaskChange(
        task_id=f"{partition}-{number}",
        state="queued",
        queue="q",
        name="n",
        at=f"2026-01-01T00:00:{at:02d}.000Z",
    )


class Feed:
    """Partitions of changes; a cursor is how many came before, and its end moves by itself."""

    def __init__(self, times: list[list[int]]) -> None:
        self.changes = [
            [change(partition, number, at) for number, at in enumerate(some)]
            for partition, some in enumerate(times)
        ]

    async def follow(self, partition: int, after: str | None, limit: int, wait: int) -> Followed:
        changes = self.changes[partition]
        if after is None:
            return Followed([], str(len(changes)))
        first = int(after)
        told = [(c, str(first + n)) for n, c in enumerate(changes[first : first + limit], 1)]
        if not told and wait:
            await asyncio.sleep(wait / 1000)
        return Followed(told, told[-1][1] if told else after)


@given(st.lists(st.lists(st.integers(0, 59), max_size=20), min_size=2, max_size=4), st.integers(1, 10))
@settings(max_examples=60)
def test_a_feed_tells_every_change_once_and_those_of_a_task_in_order(
    times: list[list[int]], limit: int
) -> None:
    feed, count = Feed(times), len(times)

    async def follow(after: str) -> Followed:
        return await follow_all(feed.follow, partitions=count, after=after, limit=limit, wait=0)

    after = join_cursors(["0"] * count)
    told: list[str] = []
    cursors: list[str] = []
    while (followed := asyncio.run(follow(after))).changes:
        assert len(followed.changes) <= limit
        told += [c.task_id for c, _ in followed.changes]
        cursors += [cursor for _, cursor in followed.changes]
        after = followed.next
        assert after == cursors[-1]
    for partition, changes in enumerate(feed.changes):
        assert [id for id in told if id.startswith(f"{partition}-")] == [c.task_id for c in changes]
    for number, cursor in enumerate(cursors):
        rest = asyncio.run(_rest(feed, cursor, count))
        assert sorted(rest) == sorted(told[number + 1 :])


async def _rest(feed: Feed, after: str, count: int) -> list[str]:
    followed = await follow_all(feed.follow, partitions=count, after=after, limit=1_000, wait=0)
    return [c.task_id for c, _ in followed.changes]


async def test_the_first_partition_that_tells_something_ends_the_wait() -> None:
    came = asyncio.Event()

    async def follow(partition: int, after: str | None, limit: int, wait: int) -> Followed:
        if not wait:
            return Followed([], "5")
        await (came.wait() if partition == 1 else asyncio.Event().wait())
        return Followed([(change(1, 0, 0), "6")], "6")

    poll = asyncio.create_task(follow_all(follow, partitions=3, after="1.2.3", limit=10, wait=50_000))
    await asyncio.sleep(0)
    came.set()
    followed = await poll
    assert [c.task_id for c, _ in followed.changes] == ["1-0"]
    assert followed.next == "5.6.5"


async def test_a_cursor_too_old_for_one_partition_names_the_earliest_of_all() -> None:
    async def follow(partition: int, after: str | None, limit: int, wait: int) -> Followed:
        if partition == 1:
            raise Expired("the log begins later", "70")
        return Followed([], str(after))

    with pytest.raises(Expired) as caught:
        await follow_all(follow, partitions=3, after="10.20.30", limit=10, wait=0)
    assert caught.value.earliest == "10.70.30"


def test_a_feed_begins_at_0_however_many_partitions_there_are() -> None:
    assert split_cursors("0", partitions=3) == ["0", "0", "0"]


@pytest.mark.parametrize("cursor", ["", "1", "1.2", "1.2.3.4"])
def test_a_feed_takes_cursors_of_as_many_partitions_as_there_are(cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        split_cursors(cursor, partitions=3)
    assert caught.value.field == "after"


def test_tokens_of_different_partitions_are_told_apart() -> None:
    told = [marked(0, "1-1"), marked(2, "1-1"), marked(12, "9-9")]
    assert len(set(told)) == 3
    assert of_partition(2, told) == ["1-1"]
    assert of_partition(1, [*told, "1-1", "", "~"]) == []
    assert bare(2, told[1]) == "1-1"
    assert bare(1, told[1]) == bare(2, "1-1") == "~"


@pytest.mark.parametrize(
    ("answers", "raised"),
    [
        ([Overloaded("o"), Unavailable("u")], Unavailable),
        ([Overloaded("o"), Overloaded("o")], Overloaded),
        ([1, Overloaded("o")], Unavailable),
        ([1, NotOwner("n")], Unavailable),
        ([1, Invalid("i")], Invalid),
        ([Invalid("i"), RuntimeError("r")], RuntimeError),
    ],
)
def test_of_several_refusals_the_worst_is_told_and_what_half_succeeded_is_to_be_repeated(
    answers: list[Any], raised: type[LineshaftError]
) -> None:
    with pytest.raises(raised):
        all_of(answers)
