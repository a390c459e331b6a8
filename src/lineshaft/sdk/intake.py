"""How tasks come in: pushed over a session, or by a claim parked at the coordinator while there is room.

The session is an accelerator. Where there is none, or while it is lost and not yet open again, the long poll
does all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from lineshaft.errors import LineshaftError, Retryable, Unauthorized, Unavailable
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.transport import PushSession
from lineshaft.wire import CALLS, Credit, Hello, PushedTasks

if TYPE_CHECKING:
    from lineshaft.sdk.pool import Pool

WAIT = 30
"""Seconds that a claim is parked at the coordinator."""

SIGN_OF_LIFE = 10.0
"""Seconds between two words over an idle session."""

_logger = logging.getLogger("lineshaft.worker")


class Intake:
    """The way in of one pool."""

    def __init__(self, pool: Pool, *, push: bool) -> None:
        self.session: PushSession | None = None
        self._pool = pool
        self._push = push
        self._backoff = Backoff(base=0.5, cap=30.0)
        self._open_at = 0.0
        self._wake = asyncio.Event()
        self._parked: asyncio.Task[None] | None = None
        self._open = True
        self.by_claims = True
        """Whether tasks come in by claims now, so that reports should bring some."""
        self._granted: int | None = None
        self._recount = False
        """A session was lost: what it pushed last may not have arrived, and must be given back."""

    def stir(self) -> None:
        """Look again: there may be room."""
        self._wake.set()

    def ask_anew(self) -> None:
        """Withdraw a parked claim for another; a session whose hello is out of date is left."""
        if self._parked is not None and not self._parked.done():
            self._recount = True  # its answer may be on its way
            self._parked.cancel()
        self._wake.set()

    def stop(self) -> None:
        """Take nothing in any more; a parked claim is withdrawn."""
        self._open = False
        self._wake.set()
        if self._parked is not None:
            self._parked.cancel()

    async def run(self) -> None:
        """Take in until stopped; over a session go on hearing directives. Raises what no repetition cures."""
        try:
            while self._open:
                if self._push and asyncio.get_running_loop().time() >= self._open_at:
                    await self._over_session()
                else:
                    await self._by_claim()
        finally:
            await self._hang_up()

    async def _by_claim(self) -> None:
        pool = self._pool
        room = pool.room()
        if room <= 0 or pool.outbox.waiting or (self._recount and pool.is_asking):
            self._wake.clear()
            await self._wake.wait()
            return
        self._parked = asyncio.create_task(self._claim(room))
        try:
            await asyncio.wait({self._parked})
        finally:
            self._parked.cancel()
        if not self._parked.cancelled():
            self._parked.result()

    async def _claim(self, room: int) -> None:
        pool = self._pool
        holding = pool.tokens() if self._recount else None
        claim = pool.claim(room, wait=WAIT, holding=holding)
        asked = claim.max or 0
        pool.asked(asked)
        try:
            answer = await pool.worker.call_until_answered(CALLS["claim"], claim, timeout=WAIT + 10.0)
        finally:
            pool.asked(-asked)
        if holding is not None:
            self._recount = False
        pool.accept(answer)

    # -- over a session ----------------------------------------------------------------------------

    async def _over_session(self) -> None:
        self.by_claims = False
        try:
            await self._until_nothing_asked()
            hello = self._hello()
            self.session = session = await self._pool.worker.transport.session(hello)
        except Retryable as error:
            self._retry_later(error)
            return
        except Unauthorized:
            self._push = False  # the claim that follows is refused as well, with an answer that says why
            return
        except LineshaftError as error:
            _logger.warning("no push session (%s); tasks are claimed by long poll", error.reason)
            self._push = False
            return
        finally:
            self.by_claims = self.session is None
        if session is None:
            self._push = False
            return
        self._backoff.succeeded()
        self._pool.welcomed(session.welcome)
        try:
            await self._listen(session, hello.names)
        except Unavailable as error:
            self._retry_later(error)
        finally:
            self._recount = True
            await self._hang_up()

    async def _until_nothing_asked(self) -> None:
        """Wait until it is known what is held: a session begins with a list of it, and the rest is given
        back.
        """
        while self._pool.is_asking:
            self._wake.clear()
            await self._wake.wait()

    async def _listen(self, session: PushSession, names: list[str] | None) -> None:
        granting = asyncio.create_task(self._grant(session, names))
        try:
            while True:
                pushed = await session.receive()
                if isinstance(pushed, PushedTasks):
                    self._pool.accept(pushed)
                else:
                    self._pool.told(pushed)
        finally:
            granting.cancel()
            await asyncio.gather(granting, return_exceptions=True)

    def reassure(self) -> None:
        """Give the coordinator a sign of life, after which it pushes again: it has taken a lease away."""
        self._granted = None
        self._wake.set()

    async def _grant(self, session: PushSession, names: list[str] | None) -> None:
        """Keep the credit equal to the room of the pool; none once it is to take nothing in.

        Said again from time to time, as a sign of life: a worker that lets leases run out is pushed no more.
        Hangs up once there are tasks to ask for that the session's hello did not name.
        """
        self._granted = None
        while True:
            if self._pool.names != names:
                await session.close()
                return
            credit = min(self._pool.capacity(), 1000) if self._open else 0
            if credit != self._granted:
                await session.credit(Credit(max=credit))
                self._granted = credit
            self._wake.clear()
            try:
                async with asyncio.timeout(SIGN_OF_LIFE):
                    await self._wake.wait()
            except TimeoutError:
                self._granted = None

    def _hello(self) -> Hello:
        pool = self._pool
        return Hello(
            worker=pool.identity,
            holding=pool.tokens(),
            queues=pool.queues,
            names=pool.names,
            lease=pool.worker.lease,
            start=pool.prefetch == 0,
        )

    def _retry_later(self, error: LineshaftError) -> None:
        pause = self._backoff.after_failure(error.retry_after)
        self._open_at = asyncio.get_running_loop().time() + pause
        _logger.info("%s; claiming by long poll until the push session is open again", error.reason)

    async def _hang_up(self) -> None:
        session, self.session = self.session, None
        self.by_claims = True
        if session is not None:
            await session.close()
