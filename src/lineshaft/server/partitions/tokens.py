"""Lease tokens of a partitioned tenant: `2~1a-3f` is the token `1a-3f` of partition 2.

Two partitions may give the same token, since shards count for themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

_MARK = "~"
_NONE = "~"
"""No token of a core; so it is answered as one that is not current."""


def marked(partition: int, token: str) -> str:
    """Return a partition's token as it is told outside."""
    return f"{partition}{_MARK}{token}"


def bare(partition: int, token: str) -> str:
    """Return a token as the partition knows it; for one of another, or none at all, what is nobody's."""
    prefix = f"{partition}{_MARK}"
    return token.removeprefix(prefix) if token.startswith(prefix) else _NONE


def of_partition(partition: int, tokens: Iterable[str]) -> list[str]:
    """Return those of the tokens that a partition gave, as it knows them."""
    prefix = f"{partition}{_MARK}"
    return [token.removeprefix(prefix) for token in tokens if token.startswith(prefix)]
