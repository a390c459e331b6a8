from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lineshaft.values.ids import NAME_PATTERN, TASK_ID_PATTERN, TimeOrderedIds
from lineshaft.values.partitions import partition_name, partition_of, shard_of, split_partition

tenants = st.from_regex(NAME_PATTERN, fullmatch=True)


@given(tenants, st.integers(0, 1023))
def test_a_partition_tells_its_tenant(tenant: str, partition: int) -> None:
    assert split_partition(partition_name(tenant, partition)) == (tenant, partition)
    assert split_partition(tenant) == (tenant, None)


@given(tenants, st.integers(2, 64))
def test_as_many_partitions_as_shards_fill_each_shard_once(tenant: str, shards: int) -> None:
    found = [shard_of(partition_name(tenant, partition), shards) for partition in range(shards)]
    assert sorted(found) == list(range(shards))
    assert found[0] == shard_of(tenant, shards)


@given(st.from_regex(TASK_ID_PATTERN, fullmatch=True), st.integers(1, 64))
def test_a_task_stays_in_its_partition(task_id: str, partitions: int) -> None:
    assert partition_of(task_id, partitions) == partition_of(task_id, partitions) < partitions


def test_ids_spread_evenly_over_partitions() -> None:
    made = TimeOrderedIds(random.Random(1).getrandbits)
    for partitions in (2, 3, 4, 7, 8, 16):
        for ids in ([made.next(n // 100) for n in range(16_000)], [f"task-{n}" for n in range(16_000)]):
            sizes = Counter(partition_of(id, partitions) for id in ids)
            assert len(sizes) == partitions
            assert max(sizes.values()) < 1.2 * min(sizes.values())
