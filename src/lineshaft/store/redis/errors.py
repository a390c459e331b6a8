"""What the servers and the way to them say, as errors that tell what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lineshaft.errors import Unavailable
from lineshaft.store.base import StoreUnusable

ADVICE = {
    "OOM": "is at its maxmemory, so nothing more is durable: raise maxmemory, or let finished tasks go sooner"
    " (their retention)",
    "READONLY": "is a read-only replica: name the primary, or let sentinels find it"
    " (redis+sentinel://h1,h2,h3/mymaster)",
    "LOADING": "is loading its data after a start: this ends by itself",
    "MASTERDOWN": "is a replica that has lost its primary: wait for the failover, or name the primary",
    "CLUSTERDOWN": "is of a cluster that does not serve all slots: look at CLUSTER INFO and CLUSTER NODES",
    "TRYAGAIN": "is moving a slot of the cluster: this ends by itself",
    "MISCONF": "cannot write its data to disk: look for a full or failing disk, and at its log",
    "NOREPLICAS": "has fewer good replicas than min-replicas-to-write asks for: look at its replicas",
    "BUSY": "is busy with a script: this ends by itself, or with SCRIPT KILL",
    "NOPERM": "forbids this to the user of the URL: see docs/redis.md for the permissions that it takes",
    "NOAUTH": "asks for a password: write redis://user:password@host",
    "WRONGPASS": "knows no such user and password",
}
_CODES = {
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "NoPermissionError": "NOPERM",
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
}
"""The library takes the code from the text of some errors, which are classes then."""

_HOPELESS = ("NOPERM", "NOAUTH", "WRONGPASS")


@contextmanager
def translated(url: str, *, opening: bool = False) -> Iterator[None]:
    """Raise `Unavailable` for what servers and connections say (`StoreUnusable` if `opening` cannot help)."""
    import redis

    try:
        yield
    except redis.RedisError as error:
        code = code_of(error)
        if code in ADVICE:
            reason = f"the server at {url} {ADVICE[code]} ({_told(error)})"
        elif isinstance(error, redis.TimeoutError):
            reason = f"the server at {url} has not answered in time: look whether it runs, and at its load"
        elif isinstance(error, redis.ConnectionError):
            reason = f"the server at {url} cannot be reached: look whether it runs ({_told(error)})"
        else:
            reason = f"the server at {url} says: {_told(error)}"
        kind = StoreUnusable if opening and code in _HOPELESS else Unavailable
        raise kind(reason, retry_after=1) from error
    except OSError as error:
        reason = f"the server at {url} cannot be reached: look whether it runs ({_told(error)})"
        raise Unavailable(reason, retry_after=1) from error


def code_of(error: Exception) -> str:
    """Return the code of an error reply, such as "OOM"; "" where there is none."""
    for each in type(error).__mro__:
        if each.__name__ in _CODES:
            return _CODES[each.__name__]
    first = str(error).partition(" ")[0]
    return first if first.isupper() else ""


def _told(error: BaseException) -> str:
    # Where no sentinel knows the primary, the library adds how it represents each of its clients.
    return str(error).partition(" : <")[0] or type(error).__name__
