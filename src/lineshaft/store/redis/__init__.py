"""A store on Redis or Valkey: a server, a primary with replicas and sentinels, or a cluster."""

from __future__ import annotations

from collections.abc import Mapping

from lineshaft.store.redis.options import SCHEMES, parse
from lineshaft.store.redis.store import RedisStore

__all__ = ["SCHEMES", "RedisStore", "make_store"]


def make_store(url: str, options: Mapping[str, str]) -> RedisStore:
    """Return the store that a URL without its query and its options name, not yet opened.

    Raises `Invalid` (field "store").
    """
    return RedisStore(parse(url, options))
