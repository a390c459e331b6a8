"""Where commands meet the shard: applied the moment they arrive, journalled until durable, answered by
the barrier.

Nothing here awaits. The runner decides when to cut, says what became of the batch, and brings shards and
takes them away; the intake keeps every accepted command until it is answered, so that it can be applied
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from lineshaft.core.batch import Batch
from lineshaft.core.commands import Claim, Command, Enqueue, Get, Grace, Release, Report, Unpark
from lineshaft.core.replies import Claimed, Found
from lineshaft.core.shard import PARKED, Missing, Shard
from lineshaft.core.task import Task, lease_token
from lineshaft.engine.admission import Admission
from lineshaft.engine.answers import not_durable
from lineshaft.engine.barrier import Barrier
from lineshaft.engine.handle import Handle
from lineshaft.engine.limits import Limits
from lineshaft.engine.look_ups import LookUps
from lineshaft.engine.metrics import Metrics
from lineshaft.engine.shard_time import ShardTime
from lineshaft.errors import LineshaftError, NotFound

_LOG = logging.getLogger("lineshaft.engine")

Rows = Mapping[tuple[str, str], Task | None]


class Dropped(msgspec.Struct, frozen=True):
    """The unanswered commands of a shard whose memory was dropped, each in order of application."""

    parked: list[Handle]
    """Durable, and waiting."""
    batch: list[Handle]
    """In the batch that was in flight."""
    later: list[Handle]
    """Applied since."""


class Intake:
    """The commands of one shard."""

    def __init__(
        self,
        *,
        limits: Limits,
        metrics: Metrics,
        barrier: Barrier,
        look_ups: LookUps,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called whenever the runner may have something to do."""
        self.limits = limits
        self.metrics = metrics
        self.barrier = barrier
        self.look_ups = look_ups
        self.admission = Admission(limits)
        self.shard: Shard | None = None
        self.exclusive = False
        """Commands wait: the shard is loading, or a rejected batch is being bisected."""
        self.stalled = False
        self.unowned: str | None = None
        """Why there is no shard and will not be for a while; None where there is one or it is loading."""
        self.closed = False
        self.broken: Exception | None = None
        self.generation = 0
        self.oldest_pending: int | None = None
        """Instant before which nothing was applied that is not durable."""
        self._in_flight_since: int | None = None
        self._wake = wake
        self._time: ShardTime | None = None
        self._serial = 0
        self._parked: dict[int, Handle] = {}
        self._journal: list[Handle] = []
        self._journal_bytes = 0
        self._in_flight: list[Handle] | None = None
        self._waiting: deque[Handle] = deque()
        self._claims: WeakValueDictionary[tuple[str, str], Handle] = WeakValueDictionary()

    # -- coming in -------------------------------------------------------------------------------

    def submit(self, handle: Handle) -> None:
        """Take a command: apply it now, or as soon as the shard can."""
        handle.intake = self
        self._serial += 1
        handle.serial = self._serial
        if self.closed:
            handle.settle(not_durable("the coordinator is closing", retry_after=2.0))
            return
        if self.unowned is not None:
            handle.settle(not_durable(self.unowned, retry_after=2.0))
            return
        refusal = self.admission.refusal(handle, stalled=self.stalled or self.shard is None)
        if refusal is not None:
            self.metrics.refused += 1
            handle.settle(refusal)
            return
        self.metrics.commands += 1
        self.admission.count(handle)
        if self._must_wait():
            self._waiting.append(handle)
            self._wake()
        else:
            self.apply(handle)

    def put_back(self, handle: Handle) -> None:
        """Let a command wait whose shard went while its rows were looked up."""
        handle.keys = []
        self._waiting.append(handle)
        self.let_in()

    def let_in(self) -> None:
        """Apply what waits, as far as the next batch has room."""
        while self._waiting and not self._cannot_apply() and not self._is_full():
            self.apply(self._waiting.popleft())

    def drop_unapplied(self, handle: Handle, error: LineshaftError) -> None:
        """Answer a command that was never applied."""
        self.admission.discount(handle)
        handle.settle(error)

    def refuse_waiting(self, reason: str) -> None:
        """Answer what was never applied, since there is no shard to apply it to."""
        while self._waiting:
            self.drop_unapplied(self._waiting.popleft(), not_durable(reason, retry_after=2.0))

    def _must_wait(self) -> bool:
        return bool(self._waiting) or self._cannot_apply() or self._is_full()

    def _cannot_apply(self) -> bool:
        return self.shard is None or self.exclusive

    def _is_full(self) -> bool:
        limits = self.limits
        return len(self._journal) >= limits.batch_commands or self._journal_bytes >= limits.batch_bytes

    # -- applying --------------------------------------------------------------------------------

    def apply(self, handle: Handle, found: Rows | None = None) -> None:
        """Apply a command; its handle is answered by the barrier, later, or at once."""
        shard = self.shard
        if handle.done() or shard is None:
            self.drop_unapplied(handle, not_durable("the shard is not here"))
            return
        self._serial += 1
        handle.serial = self._serial
        command = handle.command
        waits = not self.closed and getattr(command, "wait_until", None) is not None
        try:
            now = self.now()
            if waits and type(command) is Enqueue:
                handle.created = _will_create(shard, command, now, found)
            answer = shard.apply(command, now, ticket=handle.serial if waits else 0, found=found)
        except Missing as missing:
            handle.keys = list(dict.fromkeys((*handle.keys, *missing.keys)))
            self.look_ups.add(handle, self)
            self._wake()
            return
        except LineshaftError as error:
            answer = error
        except Exception as error:
            self._break(handle, error)
            return
        self._applied(handle, shard, answer)

    def internal(self, command: Command) -> None:
        """Apply a command of the engine's own: it has no requester, and is not repeated after a bisect."""
        shard = self.shard
        if shard is None or self.broken is not None:
            return
        try:
            shard.apply(command, self.now())
        except (LineshaftError, Missing):
            return  # nothing has changed; what it was about is over
        except Exception as error:
            self._break(None, error)
            return
        self._collect(shard)
        self._wake()

    def now(self) -> int:
        """Return the shard's present. Nobody could work in what the wall clock has leapt over."""
        time, shard = self._time, self.shard
        assert time is not None
        now = time.now()
        stepped = time.take_step()
        if stepped and shard is not None:
            shard.apply(Grace(tenant="*", duration=stepped), now)
            self._wake()
        return now

    def _applied(self, handle: Handle, shard: Shard, answer: Any) -> None:
        position = shard.observed()
        if answer is PARKED:
            self._parked[handle.serial] = handle
            if handle.parked_at is None:
                handle.parked_at = position
            over = position <= self.barrier.durable
        else:
            over = self.barrier.hold(position, handle, answer)
        if isinstance(handle.command, Claim | Report):
            self._supersede(handle)
        if shard.deliveries or shard.directives:
            self._collect(shard)
        if over:
            self.admission.discount(handle)
        else:
            self._journal.append(handle)
            self._journal_bytes += handle.weight
            if self.oldest_pending is None:
                self.oldest_pending = self._last_now
        self._wake()

    @property
    def _last_now(self) -> int:
        assert self._time is not None
        return self._time.last

    def _collect(self, shard: Shard) -> None:
        """Pass on what an application has brought for others."""
        for ticket, answer in shard.take_deliveries():
            handle = self._parked.pop(ticket, None)
            if handle is not None:
                self.barrier.hold(shard.observed(), handle, _as_asked(handle, answer))
        if shard.directives:
            self.barrier.hold_directives(shard.observed(), shard.take_directives())

    def _supersede(self, handle: Handle) -> None:
        """What a repeated claim was given is its own, whatever becomes of the first requester."""
        claim_id = handle.claim_id
        if claim_id is not None:
            key = (handle.command.tenant, claim_id)
            first = self._claims.get(key)
            if first is not None and first is not handle:
                first.superseded = True
            self._claims[key] = handle

    def _break(self, handle: Handle | None, error: Exception) -> None:
        """A rule of the shard failed half-way: what is in memory cannot be trusted any more."""
        _LOG.error("a command broke the shard, its memory is dropped", exc_info=error)
        self.broken = error
        self.exclusive = True
        if handle is not None:
            self.drop_unapplied(handle, LineshaftError("internal error; the coordinator's log has more"))
        self._wake()

    # -- leaving ---------------------------------------------------------------------------------

    def forsake(self, handle: Handle) -> None:
        """The requester has gone: it waits no longer, and what it was leased is released unburned."""
        tenant = handle.command.tenant
        if self._parked.get(handle.serial) is handle:
            del self._parked[handle.serial]
            self.internal(Unpark(tenant=tenant, ticket=handle.serial))
        elif not handle.superseded:
            leased, handle.answer = handle.leased, None
            for task in leased:
                release = Release(task_id=task.id, token=lease_token(task))
                self.internal(Report(tenant=tenant, items=(release,)))

    def give_up(self, mark: int, serial: int) -> None:
        """Answer with 503 what was computed before the mark, or submitted before the serial and not
        applied.
        """
        overdue = self.barrier.overdue(mark)
        unapplied = [
            h for h in (*self._waiting, *self.look_ups.handles) if h.serial <= serial and not h.done()
        ]
        self.metrics.given_up += len(overdue) + len(unapplied)
        for handle in unapplied:
            self.drop_unapplied(handle, not_durable("the store has not answered in time", retry_after=5.0))
        for handle in overdue:
            handle.settle(not_durable("the store has not confirmed in time", retry_after=5.0))
            self.forsake(handle)

    def dismiss_parked(self) -> None:
        """Answer parked claims with nothing and waits with the state as it is; nothing parks from now on."""
        shard = self.shard
        self.closed = True
        for ticket, handle in list(self._parked.items()):
            if shard is None:
                break
            del self._parked[ticket]
            self.internal(Unpark(tenant=handle.command.tenant, ticket=ticket))
            self.barrier.hold(shard.observed(), handle, _present_state(shard, handle, self.now()))
        self._wake()

    @property
    def outstanding(self) -> bool:
        """Tell whether anybody waits for an answer that is not parked."""
        return bool(self.barrier or self._waiting or not self.look_ups.idle)

    @property
    def quiet(self) -> bool:
        """Tell whether there is nothing to do and nobody to answer."""
        return not (self.outstanding or self._parked) and (self.shard is None or not self.shard.dirty)

    @property
    def parked(self) -> int:
        """Return how many commands are parked."""
        return len(self._parked)

    @property
    def serial(self) -> int:
        """Return the serial of the last command."""
        return self._serial

    # -- committing ------------------------------------------------------------------------------

    def attach(self, shard: Shard, time: ShardTime) -> None:
        """Work on a shard that was just loaded."""
        self.shard, self._time = shard, time
        self.generation += 1
        self.broken = None

    def cut(self, nonce: bytes) -> Batch:
        """Take what has gathered as the next batch."""
        assert self.shard is not None
        batch = self.shard.cut(nonce)
        self.metrics.batch_commands.observe(len(self._journal))
        self._in_flight, self._journal, self._journal_bytes = self._journal, [], 0
        self._in_flight_since, self.oldest_pending = self.oldest_pending, None
        if self._waiting:
            asyncio.get_running_loop().call_soon(self.let_in)
        return batch

    def committed(self, batch: Batch) -> None:
        """The batch is durable: answer what waited for it."""
        assert self.shard is not None
        self.barrier.durable = batch.position
        for handle in self._in_flight or ():
            self.admission.discount(handle)
        self._in_flight = self._in_flight_since = None
        self.barrier.release()
        self.tidy()
        self.looked_up()
        self.let_in()

    def tidy(self) -> None:
        """Forget journalled commands that were answered, where there is nothing more to commit."""
        if self.shard is None or self.shard.dirty or self._in_flight is not None:
            return
        done = [handle for handle in self._journal if handle.done()]
        for handle in done:
            self.admission.discount(handle)
        self._journal = [handle for handle in self._journal if not handle.done()]
        self._journal_bytes = sum(handle.weight for handle in self._journal)
        if not self._journal:
            self.oldest_pending = None

    def looked_up(self) -> None:
        """Evict, where no read is under way that could not know of it."""
        if self.shard is not None and not self.look_ups.reading:
            self.shard.evict(self.limits.finished_in_memory)

    @property
    def oldest(self) -> int | None:
        """Return the instant before which everything applied is durable; None where everything is."""
        return self.oldest_pending if self._in_flight_since is None else self._in_flight_since

    # -- losing the shard ------------------------------------------------------------------------

    def drop(self) -> Dropped:
        """Drop the shard's memory and return whose answers went with it."""
        durable = self.barrier.durable
        journalled = [*(self._in_flight or ()), *self._journal]
        waited = {id(h): h for h in (*self._parked.values(), *self.barrier.held)}
        parked = [h for h in waited.values() if h.parked_at is not None and h.parked_at <= durable]
        repeated = {id(handle) for handle in parked}
        in_flight = {id(handle) for handle in self._in_flight or ()}
        for handle in journalled:
            handle.answer = None
            if handle.done():
                self.admission.discount(handle)
            elif id(handle) not in repeated:
                handle.parked_at = None
        rest = [h for h in journalled if not h.done() and id(h) not in repeated]
        self._detach()
        return Dropped(
            parked=sorted((h for h in parked if not h.done()), key=lambda handle: handle.serial),
            batch=[h for h in rest if id(h) in in_flight],
            later=[h for h in rest if id(h) not in in_flight],
        )

    def fail(self, handles: list[Handle], reason: str) -> None:
        """Answer commands whose outcome is not known."""
        for handle in handles:
            self.drop_unapplied(handle, not_durable(reason))

    def park_again(self, handles: list[Handle]) -> None:
        """Let durable commands wait at the newly loaded shard as they did at the old."""
        for handle in handles:
            handle.answer = None
            handle.command = _parked_command(handle)
            self.apply(handle)

    def return_to_line(self, handles: list[Handle]) -> None:
        """Put commands before all that wait, to be applied again in their order."""
        for handle in handles:
            handle.keys = []
        self._waiting.extendleft(reversed(handles))

    def _detach(self) -> None:
        self.shard = None
        self.generation += 1
        self._parked.clear()
        self.barrier.clear()
        self._in_flight = self._in_flight_since = self.oldest_pending = None
        self._journal, self._journal_bytes = [], 0


def _will_create(shard: Shard, command: Enqueue, now: int, found: Rows | None) -> bool:
    """Tell whether a waiting enqueue is about to create its task; its answer, much later, must say so."""
    [task] = command.tasks
    if not task.given:
        return True
    try:
        shard.apply(Get(tenant=command.tenant, id=task.id), now, found=found)
    except NotFound:
        return True
    return False


def _as_asked(handle: Handle, answer: Any) -> Any:
    if handle.created and isinstance(answer, Found) and not answer.created:
        return msgspec.structs.replace(answer, created=True)
    return answer


def _parked_command(handle: Handle) -> Command:
    """Return the command that waits on: what it did before it waited is done and must not be done again."""
    match handle.command:
        case Claim() as claim:
            return msgspec.structs.replace(claim, holding=None)
        case Enqueue(tenant=tenant, tasks=(task,), wait_until=until):
            return Get(tenant=tenant, id=task.id, wait_until=until)
        case command:
            return command


def _present_state(shard: Shard, handle: Handle, now: int) -> Any:
    match _parked_command(handle):
        case Get(tenant=tenant, id=id):
            try:
                return _as_asked(handle, shard.apply(Get(tenant=tenant, id=id), now))
            except LineshaftError as error:
                return error
        case _:
            return Claimed(tasks=[], position=shard.observed())
