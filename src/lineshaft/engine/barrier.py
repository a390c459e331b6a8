"""The reply barrier: nothing is shown before it is durable and the ownership was confirmed after it was
computed.

Memory runs ahead of the store, so a reply (a read, a refusal, an error too) waits for the commit of the
position that it observed. A commit confirms the ownership for what was computed before it was sent, and so
does a beat of the membership; what was computed since needs a tenure that lasts on the monotonic clock.
Positions observed never fall, so replies leave in the order in which they were computed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from lineshaft.core.replies import Directive
from lineshaft.engine.cluster.tenure import Tenure
from lineshaft.engine.handle import Handle


class Barrier:
    """Replies that may not be shown yet."""

    def __init__(
        self, monotonic: Callable[[], float], tell: Callable[[list[Directive]], None], tenure: Tenure
    ) -> None:
        self.durable = 0
        """The position of the last commit that is known to be durable."""
        self._monotonic = monotonic
        self._tell = tell
        self._held: deque[tuple[int, int, Handle | None, Any]] = deque()
        self._count = 0
        self._confirmed_count = 0
        self._tenure = tenure

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held(self) -> list[Handle]:
        """Return whose replies are held."""
        return [handle for _, _, handle, _ in self._held if handle is not None]

    @property
    def mark(self) -> int:
        """Return a mark that separates what was computed until now from what comes."""
        return self._count

    @property
    def waits_for_ownership(self) -> bool:
        """Tell whether durable replies are held until the ownership is confirmed."""
        return bool(self._held) and self._held[0][0] <= self.durable

    @property
    def valid(self) -> bool:
        """Tell whether the ownership is certain without asking."""
        until = self._tenure.until
        return until == math.inf or until > self._monotonic()

    def hold(self, position: int, handle: Handle, answer: Any) -> bool:
        """Take an answer that observed a position; return whether it could be shown at once."""
        handle.answer = answer
        if position <= self.durable and not self._held and self.valid:
            handle.settle(answer)
            return True
        self._count += 1
        self._held.append((position, self._count, handle, answer))
        return False

    def hold_directives(self, position: int, directives: list[Directive]) -> None:
        """Take what is to be told to connected workers."""
        if position <= self.durable and not self._held:
            self._tell(directives)
            return
        self._count += 1
        self._held.append((position, self._count, None, directives))

    def confirm(self, mark: int) -> None:
        """The ownership was confirmed after the mark was taken: for all that was computed before."""
        self._confirmed_count = max(self._confirmed_count, mark)

    def release(self) -> None:
        """Show what may be shown."""
        held, durable = self._held, self.durable
        valid = self.valid
        while held and held[0][0] <= durable and (valid or held[0][1] <= self._confirmed_count):
            _, _, handle, answer = held.popleft()
            if handle is None:
                self._tell(answer)
            else:
                handle.settle(answer)

    def overdue(self, mark: int) -> list[Handle]:
        """Return those held since before the mark that nobody has given up yet."""
        return [h for _, count, h, _ in self._held if count <= mark and h is not None and not h.done()]

    def clear(self) -> None:
        """Forget what is held; whoever calls this answers it."""
        self._held.clear()
