"""Every store agrees with the memory store, whatever is done to both, and in whatever order.

A test module makes a subclass that says how its store is made, and `agreement` makes a test of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from unittest import TestCase

import hypothesis
import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lineshaft.core.batch import Batch, Blob, Change, Counters, Forgotten, Record
from lineshaft.core.commands import Filter
from lineshaft.core.task import State, Task
from lineshaft.errors import LineshaftError
from lineshaft.store.base import SORT_FIELDS, Ownership, Query, Store
from lineshaft.store.conformance.harness import SHARD, alike, finished, row
from lineshaft.store.memory import MemoryStore

Result = TypeVar("Result")

SORTS = [way + field for field in SORT_FIELDS for way in ("", "-")]

SEQS = st.integers(1, 30)
TENANTS = st.sampled_from(["a", "b"])
IDS = st.sampled_from(["one", "One", "two/2", "drei%", "vier_", "日本"])
QUEUES = st.sampled_from(["default", "mail", "q%"])
NAMES = st.sampled_from(["send", "Send", "resize"])
TAGS = st.lists(st.sampled_from(["red", "Red", "x_y", "größe"]), max_size=2, unique=True).map(tuple)
INSTANTS = st.integers(0, 9)
TEXTS = st.sampled_from(["", "e", "RED", "_", "%", "größe", "Ö", "boom", "i", "k", "drei%", "zz"])
BLOBS = st.tuples(st.sampled_from(Blob), SEQS, st.none() | st.binary(max_size=8))
RECORDS = st.builds(
    Record,
    st.sampled_from(["queue", "key"]),
    TENANTS,
    st.sampled_from(["x", "y"]),
    st.none() | st.binary(max_size=8),
)


def perhaps(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.frozensets(values, max_size=3)


FILTERS = st.builds(
    Filter,
    states=perhaps(st.sampled_from(State)),
    queues=perhaps(QUEUES),
    names=perhaps(NAMES),
    tags=TAGS,
    text=st.none() | TEXTS,
)
QUERIES = st.builds(
    Query,
    tenant=TENANTS,
    filter=FILTERS,
    sort=st.sampled_from(SORTS),
    limit=st.integers(1, 10),
    now=INSTANTS,
    max_seq=st.none() | SEQS,
)


class StoresAgree(RuleBasedStateMachine):
    """The model and another store are told the same and must answer the same, refusals too.

    `prepare` is called first, `make_store` for every object that opens what is there, `leave` at the end.
    """

    blobs_go_with_their_task = True
    """As in the conformance suite. Where False, a task that was pruned is not written or asked for again."""

    def __init__(self) -> None:
        super().__init__()
        self.pruned: set[int] = set()
        self.loop = asyncio.new_event_loop()
        self.prepare()
        self.model = MemoryStore()
        self.store = self.make_store()
        self.nonces = itertools.count()
        self.now = 0
        self.next_seq = 1
        self.ids: dict[int, tuple[str, str]] = {}
        self.owners: list[Ownership] = []
        self.last: Batch | None = None
        self.dirty = False

    def prepare(self) -> None:
        """Find a place for what is stored."""

    def make_store(self) -> Store:
        """Return a store, not yet opened, on that place."""
        raise NotImplementedError

    def leave(self) -> None:
        """Tidy up."""

    @initialize()
    def open(self) -> None:
        self.both(lambda store: store.open(address="a"))
        self.acquire(b"first")

    def teardown(self) -> None:
        self.both(lambda store: store.close())
        self.loop.close()
        self.leave()

    # -- what is done ----------------------------------------------------------------------------------

    @rule(owner=st.sampled_from([b"x", b"y"]))
    def acquire(self, owner: bytes) -> None:
        self.owners.append(self.both(lambda store: store.acquire(SHARD, owner)))

    @rule(data=st.data(), size=st.integers(0, 12))
    def commit(self, data: st.DataObject, size: int) -> None:
        tasks = {task.seq: task for task in (self.draw_task(data) for _ in range(size))}
        self.commit_rows(data, [tasks[seq] for seq in sorted(tasks)])

    @rule(data=st.data(), count=st.integers(100, 140), tenant=TENANTS)
    def commit_many(self, data: st.DataObject, count: int, tenant: str) -> None:
        """More rows than stand in one statement."""
        rows = [row(seq, f"many-{seq}", tenant=tenant) for seq in range(self.next_seq, self.next_seq + count)]
        self.ids.update({task.seq: (task.tenant, task.id) for task in rows})
        self.next_seq += count
        self.commit_rows(data, rows)

    @rule(data=st.data(), ahead=st.integers(-2, 2), stale=st.integers(0, 2))
    def commit_out_of_turn(self, data: st.DataObject, ahead: int, stale: int) -> None:
        """At a wrong position or of an old owner; refused by both alike, or accepted by both."""
        ownership = self.owners[max(0, len(self.owners) - 1 - stale)]
        batch = self.make_batch([], ahead=ahead, records=[Record("key", "a", "x", b"%d" % self.now)])
        if self.both(lambda store: store.commit(ownership, batch)) is None:
            self.last = batch

    @precondition(lambda self: self.last is not None)
    @rule(stale=st.integers(0, 1))
    def commit_again(self, stale: int) -> None:
        batch = self.last
        assert batch is not None
        ownership = self.owners[max(0, len(self.owners) - 1 - stale)]
        self.both(lambda store: store.commit(ownership, batch))

    @rule(stale=st.integers(0, 1))
    def release(self, stale: int) -> None:
        ownership = self.owners[max(0, len(self.owners) - 1 - stale)]
        self.both(lambda store: store.release(ownership))

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.make_store()
        self.run(self.store.open(address="a"))
        self.dirty = True

    @rule(before=INSTANTS, log_before=INSTANTS, limit=st.integers(1, 3), stale=st.integers(0, 1))
    def prune(self, before: int, log_before: int, limit: int, stale: int) -> None:
        ownership = self.owners[max(0, len(self.owners) - 1 - stale)]
        seqs = self.seqs_of_the_model()
        removed = self.both(
            lambda store: store.prune(ownership, before=before, log_before=log_before, limit=limit),
            key=sorted_census,
        )
        assert isinstance(removed, type) or sum(census.count for census in removed) <= limit
        if not self.blobs_go_with_their_task:
            self.pruned |= seqs - self.seqs_of_the_model()
        self.dirty = True

    # -- what is read ----------------------------------------------------------------------------------

    @rule(query=QUERIES)
    def search(self, query: Query) -> None:
        pages = 0
        while query is not None and pages < 4:
            page = self.both(lambda store, asked=query: store.search(SHARD, asked))
            query = None if page.next is None else next_page(query, page.next)
            pages += 1

    @rule(query=QUERIES)
    def count(self, query: Query) -> None:
        self.both(lambda store: store.count(SHARD, query))

    @rule(
        keys=st.lists(st.tuples(TENANTS, IDS | st.integers(1, 300).map(lambda n: f"many-{n}")), max_size=20)
    )
    def get(self, keys: list[tuple[str, str]]) -> None:
        self.both(lambda store: store.get(SHARD, keys))

    @rule(keys=st.lists(st.tuples(st.sampled_from(Blob), SEQS), max_size=20))
    def read(self, keys: list[tuple[Blob, int]]) -> None:
        keys = [(kind, seq) for kind, seq in keys if seq not in self.pruned]
        self.both(lambda store: store.read(SHARD, keys))

    @rule(after=st.integers(0, 20), limit=st.integers(1, 10))
    def log(self, after: int, limit: int) -> None:
        self.both(lambda store: store.log(SHARD, after, limit=limit))

    @invariant()
    def all_that_can_be_seen_is_the_same(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        self.both(lambda store: store.load(self.owners[-1]))
        self.both(lambda store: store.get(SHARD, [self.ids[seq] for seq in sorted(self.ids)[:50]]))
        keys = [(kind, seq) for kind in Blob for seq in range(1, 31) if seq not in self.pruned]
        self.both(lambda store: store.read(SHARD, keys))
        self.both(lambda store: store.log(SHARD, 0))
        for tenant in ("a", "b"):
            query = Query(tenant=tenant, sort=SORTS[self.now % len(SORTS)], limit=50)
            self.both(lambda store, asked=query: store.search(SHARD, asked))

    # -- how -------------------------------------------------------------------------------------------

    def draw_task(self, data: st.DataObject) -> Task:
        """Draw a new task or a new version of one that there is or was; a seq keeps its tenant and id."""
        known = [seq for seq in sorted(self.ids) if seq not in self.pruned]
        seq = data.draw(st.sampled_from([*known[:20], self.next_seq]))
        tenant, id = self.ids.get(seq) or (data.draw(TENANTS), data.draw(IDS))
        self.ids[seq] = (tenant, id)
        self.next_seq = max(self.next_seq, seq + 1)
        task = row(
            seq,
            id,
            tenant=tenant,
            queue=data.draw(QUEUES),
            name=data.draw(NAMES),
            priority=data.draw(st.integers(-1, 1)),
            run_at=data.draw(INSTANTS),
            tags=data.draw(TAGS),
            state=data.draw(st.sampled_from(State)),
        )
        if not task.state.terminal:
            return task
        return finished(
            task,
            task.state,
            prune_at=data.draw(st.none() | INSTANTS),
            result_expires_at=data.draw(st.none() | INSTANTS),
            finished_at=data.draw(INSTANTS),
            error=data.draw(st.sampled_from([None, b'{"message": "Boom"}'])),
        )

    def commit_rows(self, data: st.DataObject, rows: list[Task]) -> None:
        known = sorted(self.ids)
        gone = data.draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        rows = only_one_for_each_id(rows)
        written = {task.seq for task in rows}
        # A shard gives an id to another task only in a batch that forgets the one which had it.
        holders = self.run(self.model.get(SHARD, [(task.tenant, task.id) for task in rows]))
        gone += [task.seq for task in holders if task is not None]
        batch = self.make_batch(
            rows,
            forgotten=[Forgotten(seq, *self.ids[seq]) for seq in sorted(set(gone) - written)],
            blobs=[blob for blob in data.draw(st.lists(BLOBS, max_size=6)) if blob[1] not in self.pruned],
            records=data.draw(st.lists(RECORDS, max_size=3)),
            changes=[
                Change(task.seq, task.tenant, task.id, task.spec.name, task.spec.queue, task.state, self.now)
                for task in rows
            ],
        )
        self.both(lambda store: store.commit(self.owners[-1], batch))
        self.last = batch

    def make_batch(self, tasks: list[Task], *, ahead: int = 0, **content: Any) -> Batch:
        self.now += 1
        self.dirty = True
        position = self.run(self.position()) + 1 + ahead
        counters = Counters(self.now, self.next_seq, self.now)
        nonce = b"%d" % next(self.nonces)
        return Batch(position=position, nonce=nonce, counters=counters, tasks=tasks, **content)

    def seqs_of_the_model(self) -> set[int]:
        return set(self.model._shards[SHARD].tasks)

    async def position(self) -> int:
        log = await self.model.log(SHARD, 0, limit=10_000)
        return log.records[-1].position if log.records else log.earliest - 1

    def both(
        self, do: Callable[[Store], Awaitable[Any]], *, key: Callable[[Any], Any] = lambda answer: answer
    ) -> Any:
        """Do it to both and compare; return the answer, or the class of the error."""
        expected, actual = self.run(outcome(do(self.model))), self.run(outcome(do(self.store)))
        if isinstance(expected, type) or isinstance(actual, type):
            assert expected is actual
        else:
            assert alike(key(actual), key(expected)), (actual, expected)
        return expected

    def run(self, awaitable: Awaitable[Result]) -> Result:
        return self.loop.run_until_complete(awaitable)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except LineshaftError as error:
        return type(error)


def only_one_for_each_id(rows: list[Task]) -> list[Task]:
    """Leave out rows that would take an id from another in the same batch; a shard never does that."""
    return list({(task.tenant, task.id): task for task in rows}.values())


def sorted_census(answer: Any) -> Any:
    return sorted(answer, key=lambda census: (census.tenant, census.queue, census.state))


def next_page(query: Query, after: str) -> Query:
    return msgspec.structs.replace(query, after=after)


def agreement(machine: type[StoresAgree], *, examples: int, steps: int = 25) -> type[TestCase]:
    """Return the test of a machine."""
    test: type[TestCase] = machine.TestCase
    test.settings = hypothesis.settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    return test
