"""The interface of a store: the memory of Lineshaft, which decides nothing.

A store can do one hard thing, `commit`: make a batch durable, whole or not at all, if and only if the
caller still owns the shard and the batch is the next in line. All else is reading. Semantics (order,
leases, retries, limits) are the shard's; so a store is small, and every store behaves the same.

Outcomes of `commit`, and what the engine does with them:

* returns: durable at the store's `tier`.
* `Fenced`: another owner or epoch was found. Final; the shard's memory is dropped.
* `Rejected`: this batch can never be stored (a row too large, unmappable). Nothing of it was; the engine
  bisects it.
* `Unavailable` or any other error: the outcome is unknown. The engine commits *the same batch at the same
  position* again until one of the above; a store therefore answers the batch that it has applied last (same
  position, same nonce, same owner) with success.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from lineshaft.core.batch import Batch, Blob, Census, Change, Snapshot
from lineshaft.core.commands import Filter, NewTask
from lineshaft.core.task import Task
from lineshaft.errors import LineshaftError


class Rejected(LineshaftError):
    """The store refuses this batch for good, because of what is in it."""

    type = "rejected"
    status = 422


class StoreInUse(LineshaftError):
    """Another process owns the store; `reason` names its pid and address."""

    type = "store_in_use"
    status = 409


class SchemaTooNew(LineshaftError):
    """The store was written by a newer Lineshaft; `reason` says which and what to do."""

    type = "schema_too_new"
    status = 409


class StoreUnusable(LineshaftError):
    """The store cannot be where it is said to be; `reason` says why and what to do."""

    type = "store_unusable"
    status = 503


class StoreCorrupt(LineshaftError):
    """The store cannot be read; `reason` says what was found and how to recover."""

    type = "store_corrupt"
    status = 503


class Ownership(msgspec.Struct, frozen=True):
    """The right to commit to a shard: void as soon as anybody acquires it again."""

    shard: int
    epoch: int
    owner: bytes


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A page of tasks of one tenant. `sort` is a field with "-" before it for descending order.

    Fields: created_at (order of arrival), run_at, finished_at (unfinished last), priority. Ties by arrival,
    in the direction of the sort. An unknown sort is `Invalid` (field "sort").
    `now` hides finished tasks past their retention; `max_seq` hides what arrived after (inclusive bound).
    """

    tenant: str
    filter: Filter = Filter()
    sort: str = "-created_at"
    limit: int = 100
    after: str | None = None
    now: int = 0
    max_seq: int | None = None


SORT_FIELDS = ("created_at", "run_at", "finished_at", "priority")


class Page(msgspec.Struct, frozen=True):
    """Tasks of a query, and the URL-safe cursor of the next page (None on the last)."""

    tasks: list[Task]
    next: str | None


class LogRecord(msgspec.Struct, frozen=True, array_like=True):
    """One commit as the log tells it."""

    position: int
    at: int
    changes: list[Change]


class Log(msgspec.Struct, frozen=True):
    """Records after a position, in order.

    `earliest` is the first position that the log still holds: 1 while it is whole, the next position to come
    where it holds nothing.
    """

    records: list[LogRecord]
    earliest: int


class Roster(msgspec.Struct, frozen=True):
    """The one record by which coordinators agree who has which shard; `version` 0 before the first.

    What is in it is the engine's; a store only swaps it.
    """

    version: int
    data: bytes


class Store(Protocol):
    """What a store must do. All methods but `open` and `close` may be called concurrently."""

    url: str
    """As shown to people: without secrets."""
    tier: str
    """What a 2xx survives: "none", "process crash", "power loss", "asynchronous replica"."""
    shards: int
    """Fixed when the store was made; known after `open`."""
    exclusive: bool
    """Whether this process alone has the store for as long as it is open; else coordinators share it."""
    largest_commit: int | None
    """About how many bytes of payloads and results one commit should carry at most; None where it is all the
    same. A single command that is larger is committed all the same."""

    async def open(self, *, address: str) -> None:
        """Open or create; `address` is told to whoever is refused later.

        Raises `StoreInUse`, `SchemaTooNew`, `StoreCorrupt`, `StoreUnusable`.
        """

    async def close(self) -> None:
        """Close; idempotent. What was committed stays."""

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        """Take the shard under a new epoch, larger than all before; all earlier ownerships are fenced.

        The same owner may acquire again at once. That only the right one does is the engine's care.
        """

    async def renew(self, ownership: Ownership) -> None:
        """Confirm the ownership. Raises `Fenced`."""

    async def release(self, ownership: Ownership) -> None:
        """Give the shard back, so that a successor need not wait; silent where it is not ours any more."""

    async def load(self, ownership: Ownership) -> Snapshot:
        """Read what the shard holds in memory. Raises `Fenced`."""

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        """Make the batch durable, once; see the module for the outcomes."""

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        """Read rows by (tenant, id), open or finished, in order of `keys`; None where there is none."""

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        """Read blobs by (kind, seq of the task), in order of `keys`; None where there is none."""

    async def search(self, shard: int, query: Query) -> Page:
        """Find tasks. Raises `Invalid` (field "after") for a cursor it did not make."""

    async def count(self, shard: int, query: Query) -> int:
        """Count what `search` would find over all pages."""

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        """Read commits with a position above `after`, at most `limit`."""

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        """Delete finished tasks with `prune_at <= before` (first those due first), results past their time,
        and the beginning of the log that is older than `log_before`.

        At most `limit` of each a call, so that commits are not held up; call again while tasks were removed.
        A row whose result was deleted stays as it was written; its result reads as None. The blobs of a
        task that was deleted may go later: nobody reads them, since a `seq` never names another task.
        Raises `Fenced`, for whoever prunes counts what is left.
        """

    async def read_roster(self) -> Roster:
        """Read the roster as of now: never an older one than somebody has been answered."""

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        """Replace the roster if its version is still `expected`; return what is there then.

        It is ours where the version is `expected + 1` and the data are those given: give data that nobody
        else would.
        """

    def congestion(self, shard: int) -> str | None:
        """Say why nothing more should be accepted for now (it is answered 429); None where all is well."""

    def gauges(self) -> dict[str, float]:
        """Return what the store measures of itself, by the name of the metric without its prefix."""


class InboxItem(msgspec.Struct, frozen=True):
    """A task that a user's own transaction has enqueued, and that no shard has taken yet."""

    number: int
    tenant: str
    task: NewTask


@runtime_checkable
class Inbox(Protocol):
    """What a store may be besides: a place where users enqueue within their own transactions.

    The shard takes an item by an ordinary enqueue. The commit that makes the task durable also deletes the
    item, so that it comes into being once, whenever anybody dies.
    """

    def watch_inbox(self, shard: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake`, in the event loop, whenever there may be something for the shard; return what ends
        that.
        """

    async def read_inbox(self, ownership: Ownership, *, limit: int) -> list[InboxItem]:
        """Read what is there for the shard, the oldest first; also where the ownership is void, for then no
        commit can follow.
        """

    async def clear_inbox(self, ownership: Ownership, numbers: Sequence[int]) -> None:
        """Delete items whose tasks there were before; silent where they are gone."""


@runtime_checkable
class Continues(Protocol):
    """What a store may be besides: one whose shards can take over where another store's left off."""

    async def continue_from(self, ownership: Ownership, position: int) -> None:
        """Let the next commit be that after `position`, and the log begin with it; what was in the log goes.

        For a shard of which nobody has been told a position. Raises `Fenced`.
        """


@runtime_checkable
class Inspectable(Protocol):
    """What a store on a server can do besides: say how its server is, and what people should know of it."""

    async def inspect(self) -> str:
        """Look at the servers without opening or changing anything; return the tier.

        Raises what `open` raises.
        """

    def notices(self) -> list[str]:
        """Return what could not be checked, and what was found to be lost; it is shown, whatever happens."""


def notices_of(store: Store) -> list[str]:
    """Return what people should know of a store."""
    return store.notices() if isinstance(store, Inspectable) else []
