"""Partitions of a tenant: how they are named, which of them has which task, and in which shard each lives.

A tenant `acme` with four partitions is four tenants `acme#0` to `acme#3` inside. No tenant that anybody can
name has a `#` in its name.
"""

from __future__ import annotations

import zlib

MARK = "#"


def partition_name(tenant: str, partition: int) -> str:
    """Return the name inside of one partition of a tenant, counted from 0."""
    return f"{tenant}{MARK}{partition}"


def split_partition(name: str) -> tuple[str, int | None]:
    """Return the tenant as people know it, and which partition of it this is; None where it has none."""
    tenant, mark, partition = name.rpartition(MARK)
    return (tenant, int(partition)) if mark else (name, None)


def partition_of(task_id: str, partitions: int) -> int:
    """Return the partition that has a task, or would have it."""
    return zlib.crc32(task_id.encode("utf-8", "surrogatepass")) % partitions


def shard_of(name: str, shards: int) -> int:
    """Return the shard of a tenant; partitions of one lie in shards that follow each other."""
    if MARK not in name:
        return zlib.crc32(name.encode()) % shards
    tenant, partition = split_partition(name)
    return (zlib.crc32(tenant.encode()) + (partition or 0)) % shards
