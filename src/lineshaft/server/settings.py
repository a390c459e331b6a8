"""What a coordinator can be told when it starts."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a request may bring; sizes in bytes, durations in seconds."""

    payload: int = 1 << 20
    """A payload, a result, a checkpoint, a value of metadata."""
    envelope: int = 64 << 10
    """What a message may weigh beside its payload."""
    batch: int = 8 << 20
    """The body of a bulk enqueue or a report."""
    drain: int = 8 << 20
    """How much of a body that is too large is read before it is refused."""
    head: int = 32 << 10
    """The request line and headers."""
    items: int = 10_000
    """Tasks of one bulk enqueue, items of one report."""
    receive: float = 10.0
    """A request must have arrived whole within this time, and the hello of a push session."""
    connections: int | None = None
    """Open at once; beyond it they are refused. None: as many as the process may have files open."""
    keep_alive: float = 75.0
    """An idle connection is closed after this time."""
    ping: float = 20.0
    """A push session is pinged as often, and closed where a ping is not answered within this time."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`store` and `listen` as the CLI takes them; port 0 takes any free one."""

    store: str = "memory://"
    listen: str = "127.0.0.1:7077"
    allowed_hosts: tuple[str, ...] = ()
    """`Host` names served besides those that `listen` implies; "*" allows all."""
    insecure: bool = False
    """Listen beyond this machine although there is no API key."""
    address: str | None = None
    """Where other coordinators on the same store reach this one; None: where it listens."""
    ownership_lease: float = 5.0
    """Seconds that others wait for this coordinator before they take its shards over."""
    grace: float = 10.0
    """Seconds that requests under way are given at a shutdown."""
    limits: Limits = Limits()
