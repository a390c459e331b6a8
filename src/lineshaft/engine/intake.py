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
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from lineshaft.core.batch import Batch
from lineshaft.core.commands import Claim, Command, Enqueue, Grace, Release, Report, Unpark
from lineshaft.core.shard import PARKED, Missing, Overtaken, Shard
from lineshaft.core.task import lease_token
from lineshaft.engine.admission import Admission
from lineshaft.engine.answers import not_durable
from lineshaft.engine.barrier import Barrier
from lineshaft.engine.handle import Handle
from lineshaft.engine.journal import Dropped, Journal
from lineshaft.engine.limits import Limits
from lineshaft.engine.look_ups import LookUps
from lineshaft.engine.metrics import Metrics
from lineshaft.engine.parking import Rows, as_asked, may_wait, present_state, waiting_part, will_create
from lineshaft.engine.shard_time import ShardTime
from lineshaft.errors import LineshaftError

_LOG = logging.getLogger("lineshaft.engine")
_CLAIMING = frozenset({Claim, Report})


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
        congestion: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`wake` is called whenever the runner may have something to do; `congestion` see `Admission`."""
        self.limits = limits
        self.metrics = metrics
        self.barrier = barrier
        self.look_ups = look_ups
        self.admission = Admission(limits, congestion)
        self.shard: Shard | None = None
        self.exclusive = False
        """Commands wait: the shard is loading, or a rejected batch is being bisected."""
        self.stalled = False
        self.unowned: str | None = None
        """Why there is no shard and will not be for a while; None where there is one or it is loading."""
        self.trouble: str | None = None
        """What the store said when it last failed to answer, until it answers."""
        self.closed = False
        self.refusal: Callable[[], LineshaftError] = _closing
        """Makes the answer to what comes after it was closed, and to what was never applied."""
        self.broken: Exception | None = None
        self.generation = 0
        self.journal = Journal()
        self._wake = wake
        self._time: ShardTime | None = None
        self._serial = 0
        self._parked: dict[int, Handle] = {}
        self._waiting: deque[Handle] = deque()
        self._claims: WeakValueDictionary[tuple[str, str], Handle] = WeakValueDictionary()

    # -- coming in -------------------------------------------------------------------------------

    def submit(self, handle: Handle) -> None:
        """Take a command: apply it now, or as soon as the shard can."""
        handle.intake = self
        self._serial += 1
        handle.serial = self._serial
        if self.closed:
            handle.settle(self.refusal())
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
        while self._waiting and not self._cannot_apply() and not self.journal.is_full(self.limits):
            self.apply(self._waiting.popleft())

    def drop_unapplied(self, handle: Handle, error: LineshaftError) -> None:
        """Answer a command that was never applied."""
        self.admission.discount(handle)
        handle.settle(error)

    def refuse_waiting(self, reason: str | None = None) -> None:
        """Answer what was never applied, since there is no shard to apply it to; without a reason it is
        closed.
        """
        while self._waiting:
            error = self.refusal() if reason is None else not_durable(reason, retry_after=2.0)
            self.drop_unapplied(self._waiting.popleft(), error)

    def _must_wait(self) -> bool:
        return bool(self._waiting) or self._cannot_apply() or self.journal.is_full(self.limits)

    def _cannot_apply(self) -> bool:
        return self.shard is None or self.exclusive

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
        waits = may_wait(command) and not self.closed
        now = self.now()
        try:
            if waits and type(command) is Enqueue:
                handle.created = will_create(shard, command, now, found)
            answer = shard.apply(command, now, ticket=handle.serial if waits else 0, found=found)
        except Missing as missing:
            handle.keys = list(dict.fromkeys((*handle.keys, *missing.keys)))
            self.look_ups.add(handle, self)
            self._wake()
            return
        except Overtaken as overtaken:
            self.broken, self.exclusive = overtaken, True
            self.put_back(handle)
            self._wake()
            return
        except LineshaftError as error:
            answer = error.with_traceback(None)
        except Exception as error:
            self._break(handle, error)
            return
        self._applied(handle, shard, answer, now)

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
        time = self._time
        assert time is not None
        now = time.now()
        stepped = time.take_step()
        if stepped:
            self.internal(Grace(tenant="*", duration=stepped))
        return now

    def expect_beats(self) -> bool:
        """Ask for the time; return whether it is to be asked again soon, for the sake of live leases."""
        time, shard = self._time, self.shard
        if time is None:
            return False
        if shard is None:
            time.beating = False
            return False
        self.now()
        time.beating = shard.open_leases() > 0
        return time.beating

    def _applied(self, handle: Handle, shard: Shard, answer: Any, now: int) -> None:
        position = shard.observed()
        if answer is PARKED:
            self._parked[handle.serial] = handle
            if handle.parked_at is None:
                handle.parked_at = position
            over = position <= self.barrier.durable
        else:
            over = self.barrier.hold(position, handle, answer)
        if type(handle.command) in _CLAIMING:
            self._supersede(handle)
        if shard.deliveries or shard.directives:
            self._collect(shard)
        if over:
            self.admission.discount(handle)
        else:
            self.journal.add(handle, now)
        self._wake()

    def _collect(self, shard: Shard) -> None:
        """Pass on what an application has brought for others."""
        for ticket, answer in shard.take_deliveries():
            handle = self._parked.pop(ticket, None)
            if handle is not None:
                self.barrier.hold(shard.observed(), handle, as_asked(handle, answer))
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
        if self.is_parked(handle):
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
            reason = self.trouble or "the store has not answered in time"
            self.drop_unapplied(handle, not_durable(reason, retry_after=5.0))
        for handle in overdue:
            reason = self.trouble or "the store has not confirmed in time"
            handle.settle(not_durable(reason, retry_after=5.0))
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
            self.barrier.hold(shard.observed(), handle, present_state(shard, handle, self.now()))
        self._wake()

    @property
    def outstanding(self) -> bool:
        """Tell whether anybody waits for an answer that is not parked."""
        return bool(self.barrier or self._waiting or not self.look_ups.idle)

    @property
    def quiet(self) -> bool:
        """Tell whether there is nothing to do and nobody to answer."""
        return not (self.outstanding or self._parked) and (self.shard is None or not self.shard.dirty)

    def is_parked(self, handle: Handle) -> bool:
        """Tell whether a command has no answer yet, not even one that is held back."""
        return self._parked.get(handle.serial) is handle

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
        self.metrics.batch_commands.observe(len(self.journal))
        self.journal.cut()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self.let_in)
        return batch

    def committed(self, batch: Batch) -> None:
        """The batch is durable: answer what waited for it."""
        assert self.shard is not None
        self.barrier.durable = batch.position
        for handle in self.journal.landed():
            self.admission.discount(handle)
        self.barrier.release()
        self.tidy()
        self.looked_up()
        self.let_in()

    def tidy(self) -> None:
        """Forget journalled commands that were answered, where there is nothing more to commit."""
        if self.shard is not None and not self.shard.dirty:
            for handle in self.journal.take_answered():
                self.admission.discount(handle)

    def looked_up(self) -> None:
        """Evict, where no read is under way that could not know of it."""
        if self.shard is not None and not self.look_ups.reading:
            self.shard.evict(self.limits.finished_in_memory)
        self._wake()

    # -- losing the shard ------------------------------------------------------------------------

    def drop(self) -> Dropped:
        """Drop the shard's memory and return whose answers went with it."""
        waited = [*self._parked.values(), *self.barrier.held]
        dropped = self.journal.take_all(waited, self.barrier.durable)
        for handle in (*dropped.batch, *dropped.later):
            handle.answer = handle.parked_at = None
        self.shard = None
        self.generation += 1
        self._parked.clear()
        self.barrier.clear()
        return dropped

    def fail(self, handles: list[Handle], reason: str) -> None:
        """Answer commands whose outcome is not known."""
        for handle in handles:
            self.drop_unapplied(handle, not_durable(reason))

    def fail_parked(self, handles: list[Handle], reason: str) -> None:
        """Answer what was parked, as if it had never come where that is the same to its requester."""
        for handle in handles:
            made = type(handle.command) is Enqueue
            self.drop_unapplied(handle, not_durable(reason) if made else self.refusal())

    def park_again(self, handles: list[Handle]) -> None:
        """Let durable commands wait at the newly loaded shard as they did at the old."""
        for handle in handles:
            handle.answer = None
            handle.command = waiting_part(handle.command)
            self.apply(handle)

    def return_to_line(self, handles: list[Handle]) -> None:
        """Put commands before all that wait, to be applied again in their order."""
        for handle in handles:
            handle.keys = []
        self._waiting.extendleft(reversed(handles))


def _closing() -> LineshaftError:
    return not_durable("the coordinator is closing", retry_after=2.0)
