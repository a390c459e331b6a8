"""What every store refuses: a shard that it has not, and use by a fork of the process that opened it."""

from __future__ import annotations

import os

from lineshaft.errors import Invalid
from lineshaft.store.base import StoreInUse


def require_shard(shard: int, shards: int) -> None:
    """Raise `Invalid` where a store of so many shards has none of this number."""
    if not 0 <= shard < shards:
        raise Invalid(f"there is no shard {shard}, this store has {shards}", field="shard")


def require_same_process(url: str, pid: int) -> None:
    """Raise `StoreInUse` where it was another process that opened the store: its connections are not ours."""
    if pid != os.getpid():
        raise StoreInUse(
            f"{url} was opened by process {pid}, of which this one is a fork: "
            "a connection does not survive a fork, open the store after it"
        )
