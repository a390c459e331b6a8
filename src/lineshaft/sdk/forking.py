"""What a process leaves to its parent when it was forked off from it.

Threads are not forked, so whatever runs in one is the parent's alone. Sockets are, and each copy keeps the
line open: the other side would not see the parent's end for as long as the child lives. So what lives in
threads is forgotten in the child, and its copies of the sockets are closed.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Forgets(Protocol):
    """What must begin anew in a forked child."""

    def forked(self) -> None:
        """Forget what is the parent's; called in the child, before anything else runs there."""


_forgetful: weakref.WeakSet[Any] = weakref.WeakSet()
_sources: weakref.WeakSet[Any] = weakref.WeakSet()
_transports: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[object] = []
"""What of the parent's must never be collected here: to close its event loop would reach through to the
descriptors that the kernel watches for it."""


class HasSockets(Protocol):
    """What knows sockets that must not outlive their process in a child."""

    def sockets(self) -> Iterable[socket.socket]:
        """Return those that are open now."""


def forget_in_child(thing: Forgets) -> None:
    """Let `thing.forked()` be called in every child that is forked off; the thing is not kept alive."""
    _forgetful.add(thing)


def leave_sockets_to_parent(source: HasSockets) -> None:
    """Close in every child what `source.sockets()` gives there; the source is not kept alive."""
    _sources.add(source)


def leave_to_parent(transport: Any) -> None:
    """Close in every child the socket of an event loop's transport; the transport is not kept alive."""
    _transports.add(transport)


def keep(thing: object) -> None:
    """Never collect a thing of the parent's."""
    _kept.append(thing)


whole_imports = threading.RLock()
"""Held around imports in threads: what another thread was importing when the process forked would be locked
in the child for ever, and so would whoever needs it there."""


def _in_child() -> None:
    whole_imports.release()
    opened: list[Any] = [one.get_extra_info("socket") for one in list(_transports)]
    for source in list(_sources):
        opened += source.sockets()
    _close([one.fileno() for one in opened if one is not None])
    _transports.clear()
    _sources.clear()
    for thing in list(_forgetful):
        thing.forked()


def _close(descriptors: list[int]) -> None:
    """Let the numbers mean nothing, and stay taken: objects here believe that they own them."""
    if not any(one >= 0 for one in descriptors):
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for one in descriptors:
            if one >= 0:
                os.dup2(nothing, one, inheritable=False)
    finally:
        os.close(nothing)


_register: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(before=whole_imports.acquire, after_in_parent=whole_imports.release, after_in_child=_in_child)
