"""A coordinator's part in the roster: it joins, beats, takes the silent for dead, and leaves.

Safety rests on three facts about one member and its `lease`:

* It believes that its shards are its own until 3/5 of the lease after a beat was *sent* that succeeded.
* Another takes it for dead only when its beat has not changed for 7/10 of the lease *after it was seen*,
  which is later than it was sent; and takes its shards in the same swap, which fails if it has beaten since.
* Who is given a shard acquires it in the store after that, which fences every later commit of the old
  owner.

So no reply of the old owner leaves once a new one may have committed something. A member that finds itself
taken for dead forgets what is in its memory and joins again, under another id.

One swap is under way at a time. A swap whose outcome is unknown is settled by reading: no two members write
the same roster, since each writes its own beat. Without anything to do a member swaps once a beat, no more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from lineshaft.engine.answers import told
from lineshaft.engine.clock import Clock, lasting
from lineshaft.engine.cluster import roster as steps
from lineshaft.engine.cluster.placement import score
from lineshaft.engine.cluster.roster import Member, Roster
from lineshaft.engine.cluster.sightings import BEAT, VALID, Sightings
from lineshaft.engine.cluster.tenure import Tenure
from lineshaft.engine.limits import Limits
from lineshaft.errors import NotOwner, Unavailable
from lineshaft.store.base import Roster as Record
from lineshaft.store.base import Store, StoreInUse, StoreUnusable

Result = TypeVar("Result")
Step = Callable[[Roster], Roster]

_LOG = logging.getLogger("lineshaft.engine")
_TRIES = 5
"""Attempts to join at the start, before what the store says is raised."""


class Evicted(NotOwner):
    """The others took this coordinator for dead."""


class Observer(Protocol):
    """Whoever has the shards."""

    def marks(self) -> dict[int, int]:
        """Return a mark for each shard that separates what was computed until now from what comes."""

    def confirmed(self, marks: dict[int, int]) -> None:
        """The shards were ours when something was sent, after these marks were taken."""

    def changed(self) -> None:
        """Somebody came or went, a shard was given to another, or API keys changed."""

    def lost(self) -> None:
        """Nothing is ours any more."""

    def announce(self) -> None:
        """It was we who changed the roster: let the others know."""


class Counts(msgspec.Struct):
    """What a member has done since it started."""

    beats: int = 0
    conflicts: int = 0
    """Swaps that came second."""
    evictions: int = 0
    """Members that we took for dead."""
    evicted: int = 0
    """Times that the others took us for dead."""


class Membership(Tenure):
    """One coordinator's membership. `join`, then `begin`, then `leave`."""

    def __init__(
        self,
        store: Store,
        observer: Observer,
        *,
        clock: Clock,
        limits: Limits,
        nonces: Callable[[], bytes],
        address: str,
        version: str,
    ) -> None:
        super().__init__()
        self.until = -math.inf
        self.id = b""
        self.roster: Roster
        """As it was seen last; there after `join`."""
        self.counts = Counts()
        self.trouble: str | None = None
        """What the store said when it last failed to answer, until it answers."""
        self.lease = limits.ownership_lease
        self._store = store
        self._observer = observer
        self._clock = clock
        self._now = lasting(clock)
        self._limits = limits
        self._nonces = nonces
        self._address = address
        self._version = version
        self._record = Record(0, b"")
        self._sightings = Sightings(self.lease)
        self._lock = asyncio.Lock()
        self._life: asyncio.Task[None] | None = None
        self._next_look: asyncio.Task[None] | None = None
        """A look at the roster that has not begun: whoever wants one shares it."""
        self._looks: set[asyncio.Task[None]] = set()
        self._woken: asyncio.Future[None] | None = None
        self._due = -math.inf
        """When to beat again."""
        self._standing: list[asyncio.Future[None]] = []

    # -- joining and leaving ---------------------------------------------------------------------

    async def require_alone(self) -> None:
        """Wait until nobody takes part. Raises `StoreInUse` where somebody lives."""
        beats: dict[bytes, int] = {}
        while True:
            record = await self._ask(self._store.read_roster())
            roster, now = self._read(record), self._now()
            self._sightings.see(roster.members, now)
            for member in roster.members:
                if beats.setdefault(member.id, member.beat) != member.beat:
                    where = member.address or "an App inside another process"
                    raise StoreInUse(f"a coordinator is at work on {self._store.url}: {where}")
            dead = self._sightings.dead(now)
            if len(dead) == len(roster.members):
                if dead:
                    data = steps.encode(steps.remove(roster, dead))
                    await self._ask(self._store.swap_roster(record.version, data))
                return
            await self._clock.sleep(self.lease * BEAT / 1000)

    async def join(self) -> None:
        """Take part. Raises what the store raises where that fails."""
        attempt, self.id = 0, self._nonces()
        while True:
            try:
                await self._join()
                return
            except StoreUnusable:
                raise
            except Exception:
                attempt += 1
                if attempt == _TRIES:
                    raise
                await self._clock.sleep(self._backoff(attempt))

    def begin(self) -> None:
        """Beat from now on."""
        self._life = asyncio.get_running_loop().create_task(self._live(), name="membership")

    async def leave(self) -> None:
        """Take part no more; if the store does not answer, without telling."""
        ending = [*self._looks, *([] if self._life is None else [self._life])]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        self.until = -math.inf
        self._settle_standing("this coordinator has left")
        if not hasattr(self, "roster"):
            return  # it never took part
        try:
            await self._within(self._limits.close / 1000, self._leave())
        except Exception as error:
            _LOG.warning("this coordinator could not say that it leaves: %s", told(error))

    async def _join(self) -> None:
        async with self._lock:
            record = await self._ask(self._store.read_roster())
            roster = self._read(record)
            while True:
                member = Member(
                    id=self.id,
                    address=self._address,
                    beat=0,
                    joined_at=self._clock.now(),
                    version=self._version,
                    lease=self.lease,
                )
                sent, data = self._now(), steps.encode(steps.join(roster, member))
                answer = await self._ask(self._store.swap_roster(record.version, data))
                if _is_ours(record, data, answer):
                    break
                record, roster = answer, self._read(answer)
            # Each in a phase of its own: whoever beats at the same instant as another beats twice.
            self._due = sent + self.lease * BEAT / 1000 * (score(0, self.id) / (1 << 64))
            self.until = sent + self.lease * VALID / 1000
            self._learn(answer)
        self._observer.announce()
        self._warn_of_twins()

    async def _leave(self) -> None:
        async with self._lock:
            while self.roster.member(self.id) is not None:
                record, data = self._record, steps.encode(steps.remove(self.roster, [self.id]))
                answer = await self._store.swap_roster(record.version, data)
                self._record, self.roster = answer, self._read(answer)
        self._observer.announce()

    # -- beating ---------------------------------------------------------------------------------

    def ask(self) -> None:
        """Beat at once, unless a beat is under way."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def stand(self, shard: int, owner: bytes) -> None:
        """See `Tenure`."""
        while self.until <= self._now():
            if owner != self.id:
                break
            confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._standing.append(confirmed)
            self.ask()
            await confirmed
        if owner != self.id or self.roster.holders[shard] != owner:
            raise NotOwner(f"shard {shard} is another's")

    async def change(self, step: Step) -> Roster:
        """Make a step, as often as it takes, and return what came of it. Raises `Evicted`."""
        async with self._lock:
            attempt = 0
            while True:
                try:
                    if await self._swap(step):
                        return self.roster
                except Evicted:
                    raise
                except Exception as error:
                    self._unanswered(error)
                    await self._clock.sleep(self._backoff(attempt))
                    attempt += 1
                    await self._look_again()

    async def refresh(self) -> Roster:
        """Look at the roster as of now, and return it; where the store does not answer, as it was."""
        await asyncio.wait([self.look()])
        return self.roster

    def look(self) -> asyncio.Task[None]:
        """Look at the roster soon: somebody says that it has changed."""
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().create_task(self._look())
            self._looks.add(self._next_look)
            self._next_look.add_done_callback(self._looks.discard)
        return self._next_look

    async def _look(self) -> None:
        async with self._lock:
            self._next_look = None  # whoever asks from now on wants to see what comes after this
            await self._look_again()

    async def _live(self) -> None:
        while True:
            try:
                await self._rest()
                await self.change(self._bury)
                self.counts.beats += 1
            except Evicted:
                await self._come_back()
            except Exception:
                # Whatever it is, to beat no more would be worse.
                _LOG.exception("the membership stumbled")
                await self._clock.sleep(self.lease * BEAT / 1000)

    def _bury(self, roster: Roster) -> Roster:
        dead = self._sightings.dead(self._now())
        return steps.remove(roster, dead) if dead else roster

    async def _rest(self) -> None:
        """Wait until a beat is due or asked for, or somebody may be dead."""
        if self.roster.member(self.id) is None:
            return
        self._woken = asyncio.get_running_loop().create_future()
        due = min(self._due, self._sightings.next_death)
        timer = self._clock.call_later(max(0.0, due - self._now()), self.ask)
        if any(not standing.done() for standing in self._standing):
            self.ask()
        try:
            await self._woken
        finally:
            timer.cancel()
            self._woken = None

    async def _come_back(self) -> None:
        attempt, self.id = 0, self._nonces()
        while True:
            try:
                await self._join()
                break
            except Exception as error:
                self._unanswered(error)
            await self._clock.sleep(self._backoff(attempt))
            attempt += 1
        _LOG.warning("this coordinator takes part again")
        self._observer.changed()

    # -- swapping --------------------------------------------------------------------------------

    async def _swap(self, step: Step) -> bool:
        """Make a step on the roster as we know it, with a beat; return whether it was still that."""
        if self.roster.member(self.id) is None:
            raise Evicted("the other coordinators took this one for dead")
        record, before = self._record, self.roster
        marks, sent = self._observer.marks(), self._now()
        after = step(before)
        data = steps.encode(steps.beat(after, self.id))
        answer = await self._ask(self._store.swap_roster(record.version, data))
        ours = _is_ours(record, data, answer)
        if ours:
            self._due = sent + self.lease * BEAT / 1000
            self._count_buried(before, after)
        else:
            self.counts.conflicts += 1
        self._learn(answer)
        if ours and self.roster.member(self.id) is not None:
            self._confirm(sent, marks)
            if before.shape != after.shape:
                self._observer.announce()
        return ours

    async def _look_again(self) -> None:
        try:
            self._learn(await self._ask(self._store.read_roster()))
        except Exception as error:
            self._unanswered(error)

    def _learn(self, record: Record) -> None:
        self.trouble = None
        roster = self._read(record)
        before: Roster | None = getattr(self, "roster", None)
        self._record, self.roster = record, roster
        others = [member for member in roster.members if member.id != self.id]
        self._sightings.see(others, self._now())
        if roster.member(self.id) is None:
            self._lose()
        elif before is None or before.shape != roster.shape:
            self._observer.changed()

    def _lose(self) -> None:
        if self.until == -math.inf:
            return
        self.until = -math.inf
        self.counts.evicted += 1
        _LOG.warning("the other coordinators took this one for dead: it starts afresh")
        self._observer.lost()
        self._settle_standing("the other coordinators took this one for dead")
        self.ask()

    def _confirm(self, sent: float, marks: dict[int, int]) -> None:
        self.until = max(self.until, sent + self.lease * VALID / 1000)
        self._observer.confirmed(marks)
        self._settle_standing(None)

    def _settle_standing(self, gone: str | None) -> None:
        standing, self._standing = self._standing, []
        for waiting in standing:
            if waiting.done():
                continue
            if gone is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(NotOwner(gone))

    def _count_buried(self, before: Roster, after: Roster) -> None:
        there = {member.id for member in after.members}
        for member in before.members:
            if member.id not in there:
                self.counts.evictions += 1
                _LOG.warning("the coordinator at %s is dead", member.address or "an unknown address")

    # -- the store -------------------------------------------------------------------------------

    def _read(self, record: Record) -> Roster:
        if not record.data:
            return steps.empty(self._store.shards, self._nonces() + self._nonces())
        return steps.decode(record.data, shards=self._store.shards)

    async def _ask(self, asking: Awaitable[Result]) -> Result:
        """Give the store as long as its answer would be of use."""
        return await self._within(self.lease * VALID / 1000, asking)

    async def _within(self, seconds: float, asking: Awaitable[Result]) -> Result:
        task = asyncio.ensure_future(asking)
        timer = self._clock.call_later(seconds, lambda: _cancel(task))
        try:
            await asyncio.wait([task])
        finally:
            timer.cancel()
            task.cancel()
        if task.cancelled():
            raise Unavailable("the store did not answer in time")
        return task.result()

    def _unanswered(self, error: Exception) -> None:
        if self.trouble is None:
            _LOG.warning("the roster of coordinators cannot be kept: %s", told(error))
        self.trouble = f"the roster of coordinators cannot be kept: {told(error)}"

    def _backoff(self, attempt: int) -> float:
        most = min(self._limits.backoff_cap, self.lease // 5)
        return min(self._limits.backoff << min(attempt, 20), most) / 1000

    # -- telling ---------------------------------------------------------------------------------

    def holder(self, shard: int) -> Member | None:
        """Return who has a shard, as far as we know."""
        return self.roster.member(self.roster.holders[shard])

    @property
    def version(self) -> int:
        """Return the version of the roster as it was seen last."""
        return self._record.version

    def silent_for(self, id: bytes) -> float:
        """Return for how many seconds nothing new was seen of a member."""
        return self._sightings.silent_for(id, self._now())

    def _warn_of_twins(self) -> None:
        if self._address and any(
            member.address == self._address for member in self.roster.members if member.id != self.id
        ):
            _LOG.warning(
                "another coordinator said that it is reached at %s, too: if it has not just died, give each "
                "an address of its own (--address)",
                self._address,
            )


def _cancel(task: asyncio.Future[Result]) -> None:
    task.cancel()


def _is_ours(before: Record, data: bytes, answer: Record) -> bool:
    return answer.version == before.version + 1 and answer.data == data
