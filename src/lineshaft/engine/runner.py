"""The life of one shard: taken over, loaded, served by group commit, lost and taken over again, given back.

One commit is in flight at a time; what gathers meanwhile is the next batch. An unknown outcome is settled
by sending the same batch again, a rejected batch is bisected (`bisect.py`), and a fence drops the shard's
memory: whoever waits is told to repeat, and life begins anew under a new epoch.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import Callable

import msgspec

from lineshaft.core.batch import Batch
from lineshaft.core.commands import Grace
from lineshaft.core.shard import Overtaken, Shard
from lineshaft.engine.answers import told
from lineshaft.engine.barrier import Barrier
from lineshaft.engine.bisect import settle_rejected
from lineshaft.engine.blob_cache import BlobCache, CacheRoom
from lineshaft.engine.changes import Changes
from lineshaft.engine.clock import Clock, lasting
from lineshaft.engine.cluster.tenure import Tenure
from lineshaft.engine.handle import Handle
from lineshaft.engine.health import ShardHealth
from lineshaft.engine.housekeeping import Housekeeping
from lineshaft.engine.inbox import InboxDrain
from lineshaft.engine.intake import Intake
from lineshaft.engine.limits import Limits
from lineshaft.engine.look_ups import LookUps
from lineshaft.engine.metrics import Metrics
from lineshaft.engine.ownership import give_back
from lineshaft.engine.pruning import Pruning
from lineshaft.engine.shard_time import ShardTime
from lineshaft.errors import Fenced, LineshaftError, NotOwner
from lineshaft.store.base import Ownership, Rejected, Store
from lineshaft.values.instants import format_instant

_LOG = logging.getLogger("lineshaft.engine")

_LONG_LIFE = 60.0
"""Seconds after which a loss is thought to have nothing to do with the one before."""

LOST = "the coordinator has lost the shard and loads it again"


class Interrupted(Exception):
    """The shard's memory must go, for a reason that is not the store's."""


class Runner:
    """One shard of one engine."""

    def __init__(
        self,
        store: Store,
        shard: int,
        *,
        clock: Clock,
        limits: Limits,
        nonces: Callable[[], bytes],
        owner: bytes,
        tenure: Tenure,
        tell: Callable[..., None],
        room: CacheRoom,
        tune_gc: bool = False,
    ) -> None:
        self.shard_number = shard
        self.store = store
        self.clock = clock
        if store.largest_commit is not None:
            limits = msgspec.structs.replace(
                limits, batch_bytes=min(limits.batch_bytes, store.largest_commit)
            )
        self.limits = limits
        self.metrics = Metrics(shard=shard)
        self.barrier = Barrier(lasting(clock), tell, tenure)
        self.look_ups = LookUps(store, shard, self.metrics)
        self.intake = Intake(
            limits=limits,
            metrics=self.metrics,
            barrier=self.barrier,
            look_ups=self.look_ups,
            wake=self.wake,
            congestion=lambda: store.congestion(shard),
        )
        self.cache = BlobCache(room)
        self.changes = Changes()
        self.ownership: Ownership | None = None
        self.state = "loading"
        self.reason: str | None = None
        self.not_answering_since: int | None = None
        self.time: ShardTime | None = None
        """The present of the shard; None until it was loaded first."""
        self._nonces = nonces
        self.owner = owner
        self._tenure = tenure
        self._tune_gc = tune_gc
        self._pruning = Pruning(self)
        self._inbox = InboxDrain(self)
        self._housekeeping = Housekeeping(self, confirm=tenure.ask)
        self._life: asyncio.Task[None] | None = None
        self._woken: asyncio.Future[None] | None = None
        self._interruption: Exception | None = None
        self._losses = 0
        self._taken_over_at = -math.inf

    # -- for the engine --------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the shard over and serve it. Raises what the store raises if that fails."""
        try:
            await self.take_over()
        except BaseException:
            await give_back(self)
            raise
        self._life = asyncio.get_running_loop().create_task(self._live(), name=f"shard-{self.shard_number}")

    def begin(self, *, served: Callable[[], None]) -> None:
        """Take the shard over as soon as it can be had, and serve it; commands wait meanwhile."""
        self._life = asyncio.get_running_loop().create_task(
            self._begin(served), name=f"shard-{self.shard_number}"
        )

    async def _begin(self, served: Callable[[], None]) -> None:
        try:
            await self.take_over_patiently()
        except NotOwner as error:
            self.state, self.reason = "unowned", error.reason
            return
        served()
        await self._live()

    async def stop(self, *, moves: bool = False) -> None:
        """Refuse what comes, flush what is pending, answer everybody, give the shard back.

        Where the shard `moves` to another coordinator, what comes is answered with `NotOwner`.
        """
        intake, life = self.intake, self._life
        if moves:
            intake.refusal = _moves
        intake.dismiss_parked()
        if life is not None and intake.shard is None:
            life.cancel()  # nothing is pending, and whoever waits is to repeat it elsewhere
        impatience = self.clock.call_later(self.limits.close / 1000, self._give_up_closing)
        if life is not None:
            await asyncio.wait([life])
        impatience.cancel()
        dropped = intake.drop()
        waiting = [*dropped.parked, *dropped.batch, *dropped.later]
        intake.fail(waiting, "the coordinator closed before the store had confirmed")
        await self.wind_up()
        await give_back(self)

    def forgo(self) -> None:
        """The shard is another's: forget it at once. `wind_up` is to follow."""
        intake = self.intake
        intake.refusal, intake.closed = _moves, True
        if self._life is not None:
            self._life.cancel()
        dropped = intake.drop()
        intake.fail_parked(dropped.parked, LOST)
        intake.fail([*dropped.batch, *dropped.later], LOST)
        intake.refuse_waiting()
        self.state, self.reason = "closed", "the shard is another coordinator's"

    async def wind_up(self) -> None:
        """End what is under way, where nothing is pending any more."""
        if self._life is not None:
            await asyncio.wait([self._life])
        await self._inbox.stop()
        await self._pruning.stop()
        self._housekeeping.stop()
        self.intake.fail(self.look_ups.handles, "the coordinator closed before the store had confirmed")
        self.intake.refuse_waiting()
        await self.look_ups.stop()
        self.changes.wake_all(self.barrier.durable)
        self.state = "closed"

    def submit(self, handle: Handle) -> None:
        """Take a command."""
        self.intake.submit(handle)
        if not handle.done():
            self._housekeeping.watch_over_request()

    def interrupt(self, error: Exception) -> None:
        """Let the shard's memory be dropped."""
        self._interruption = error
        self.intake.exclusive = True
        self.wake()

    def wake(self) -> None:
        """Commit in the next iteration of the event loop, if there is something, and look at the
        deadlines.
        """
        woken = self._woken
        if woken is not None and self._has_work():
            self._woken = None
            if not woken.done():
                woken.set_result(None)
        if not self._housekeeping.planned:
            self._housekeeping.plan()

    @property
    def health(self) -> ShardHealth:
        """Return how the shard is."""
        time = self.time
        if time is not None and self.intake.shard is not None:
            self.intake.now()
        return ShardHealth(
            shard=self.shard_number,
            state="stalled" if self.state == "serving" and self.intake.stalled else self.state,
            reason=self.reason,
            epoch=None if self.ownership is None else self.ownership.epoch,
            durable=self.barrier.durable,
            not_answering_since=self.not_answering_since,
            pending_commands=self.intake.admission.commands,
            pending_bytes=self.intake.admission.bytes,
            clock_jump=None if time is None else time.refused_jump,
        )

    @property
    def resting(self) -> bool:
        """Tell whether it serves and waits for something to do; then memory is what the store holds."""
        intake, woken = self.intake, self._woken
        return (
            self.state == "serving"
            and woken is not None
            and not woken.done()
            and not intake.exclusive
            and intake.shard is not None
            and not intake.shard.dirty
        )

    @property
    def present_at_least(self) -> int:
        """Return a bound below the shard's present (ms), which does not ask for the time."""
        return 0 if self.time is None else self.time.at_least

    # -- life ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            try:
                await self._serve()
                return
            except Rejected as rejection:
                if not await self._bisect(rejection):
                    return
            except Exception as error:
                self._lose(error)
                if not await self._come_back():
                    return

    async def _bisect(self, rejection: Rejected) -> bool:
        try:
            await settle_rejected(self, rejection)
        except Exception as error:
            self._lose(error)
            return await self._come_back()
        return True

    async def _serve(self) -> None:
        intake = self.intake
        while True:
            self._require_sound()
            if self._interruption is not None:
                raise self._interruption
            assert intake.shard is not None
            if intake.shard.dirty:
                await self.commit()
            elif intake.closed and intake.quiet:
                return
            else:
                self._woken = asyncio.get_running_loop().create_future()
                await self._woken

    async def commit(self) -> None:
        """Commit what has gathered. Raises `Fenced` and `Rejected`."""
        self._require_sound()
        intake, clock = self.intake, self.clock
        mark, began = self.barrier.mark, clock.monotonic()
        batch = intake.cut(self._nonces())
        stall = clock.call_later(self.limits.stall / 1000, self._stall)
        try:
            await self._send(batch)
        finally:
            stall.cancel()
            self.not_answering_since = self.reason = intake.trouble = None
            stalled, intake.stalled = intake.stalled, False
        took = clock.monotonic() - began
        self._count_commit(batch, took)
        self.barrier.confirm(mark)
        if stalled:
            intake.internal(Grace(tenant="*", duration=int(took * 1000)))
        self.cache.add(batch)
        intake.committed(batch)
        self.changes.tell(batch)
        self.wake()

    def _require_sound(self) -> None:
        broken = self.intake.broken
        if isinstance(broken, Overtaken):
            raise Fenced(str(broken))
        if broken is not None:
            raise Interrupted(f"a command broke the shard: {broken!r}") from broken

    async def _send(self, batch: Batch) -> None:
        """Send the batch until its outcome is known."""
        assert self.ownership is not None
        attempt = 0
        while True:
            try:
                await self.store.commit(self.ownership, batch)
                return
            except (Fenced, Rejected):
                raise
            except Exception as error:
                self._unanswered(error)
            self.metrics.commit_retries += 1
            await self.clock.sleep(self.backoff(attempt))
            attempt += 1

    def backoff(self, attempt: int) -> float:
        """Return how many seconds to wait after so many failures."""
        return min(self.limits.backoff << min(attempt, 20), self.limits.backoff_cap) / 1000

    def confirmed(self, mark: int) -> None:
        """The shard was ours after the mark was taken: show what was computed before."""
        self.barrier.confirm(mark)
        self.barrier.release()
        self.intake.tidy()
        self.wake()

    def _count_commit(self, batch: Batch, took: float) -> None:
        metrics = self.metrics
        metrics.commits += 1
        metrics.committed_rows += len(batch.tasks)
        metrics.commit_seconds.observe(took)

    def _unanswered(self, error: Exception) -> None:
        if self.not_answering_since is None:
            self.not_answering_since = self.clock.now()
            _LOG.warning("shard %d: the store does not answer: %s", self.shard_number, error)
        since = format_instant(self.not_answering_since)
        self.reason = self.intake.trouble = f"the store has not answered since {since}: {told(error)}"

    # -- taking over and losing ------------------------------------------------------------------

    async def take_over(self, *, exclusive: bool = False, new_outage: bool = True) -> None:
        """Acquire the shard under a new epoch and load it; where `exclusive`, commands go on waiting.

        About `new_outage` see `core.loading.load`.
        """
        await self._tenure.stand(self.shard_number, self.owner)
        self.ownership = await self.store.acquire(self.shard_number, self.owner)
        await self._pruning.settled()
        snapshot = await self.store.load(self.ownership)
        await self._tenure.stand(self.shard_number, self.owner)
        if self.time is None:
            self.time = ShardTime(self.clock, max_ahead=self.limits.max_ahead)
        time = self.time
        time.reach(snapshot.counters.now)
        self.barrier.durable = snapshot.position
        self.changes.loaded(snapshot.position)
        self.intake.attach(Shard(snapshot, time.now(), new_outage=new_outage), time)
        self.metrics.loads += 1
        self._interruption = None
        self._taken_over_at = self.clock.monotonic()
        self.state, self.reason, self.not_answering_since = "serving", None, None
        if self._tune_gc:
            _keep_loaded_from_collector()
        self._pruning.start()
        self._inbox.start()
        if not exclusive:
            self.open_for_all()

    def open_for_all(self) -> None:
        """Let commands in again, those that waited first."""
        self.intake.exclusive = False
        self.intake.let_in()
        self.wake()

    def _lose(self, error: Exception) -> None:
        """Drop the shard's memory; whoever waits is to repeat."""
        if isinstance(error, Fenced):
            self.metrics.fences += 1
        bug = None if isinstance(error, LineshaftError | Interrupted) else error
        _LOG.warning("shard %d is lost and will be loaded again: %s", self.shard_number, error, exc_info=bug)
        self.state, self.reason = "unowned", str(error)
        dropped = self.intake.drop()
        self.intake.fail([*dropped.parked, *dropped.batch, *dropped.later], LOST)
        self.cache.clear()

    async def _come_back(self) -> bool:
        """Take the shard over again; return False where it is another's."""
        recent = self.clock.monotonic() - self._taken_over_at < _LONG_LIFE
        self._losses = self._losses + 1 if recent else 1
        if self._losses > 1:
            await self._pause(self._losses - 2)
        try:
            await self.take_over_patiently()
        except NotOwner as error:
            self.state, self.reason = "unowned", error.reason
            return False
        return True

    async def take_over_patiently(self, *, exclusive: bool = False, new_outage: bool = True) -> None:
        """Take the shard over, trying until it can be had; commands that come meanwhile answer 503.

        Raises `NotOwner` where it is another's.
        """
        attempt = 0
        while True:
            try:
                await self.take_over(exclusive=exclusive, new_outage=new_outage)
                return
            except NotOwner:
                raise
            except Exception as error:
                self.state = "unowned"
                self.reason = f"the shard cannot be taken over: {told(error)}"
                _LOG.warning("shard %d: %s", self.shard_number, self.reason)
            await self._pause(attempt)
            attempt += 1

    async def _pause(self, attempt: int) -> None:
        self.intake.refuse_waiting(self.reason or LOST)
        self.intake.unowned = self.reason or LOST
        try:
            await self.clock.sleep(self.backoff(attempt))
        finally:
            self.intake.unowned = None

    def _give_up_closing(self) -> None:
        _LOG.warning("shard %d: the store did not confirm in time, closing without", self.shard_number)
        if self._life is not None:
            self._life.cancel()

    def _has_work(self) -> bool:
        intake = self.intake
        if intake.shard is not None and intake.shard.dirty:
            return True
        return intake.broken is not None or self._interruption is not None or (intake.closed and intake.quiet)

    def _stall(self) -> None:
        self.intake.stalled = True
        self.metrics.stalls += 1
        if self.not_answering_since is None:
            self.not_answering_since = self.clock.now() - self.limits.stall
            self.reason = f"the store has not answered since {format_instant(self.not_answering_since)}"
        _LOG.warning("shard %d: a commit takes long, leases are suspended", self.shard_number)
        self.wake()


def _moves() -> LineshaftError:
    return NotOwner("the shard is another coordinator's now")


def _keep_loaded_from_collector() -> None:
    """A full pass over a million entries that stay anyway would stop everything for a while."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
