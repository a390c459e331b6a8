"""The caches of all shards share their room."""

from __future__ import annotations

from lineshaft.core.batch import Batch, Blob, Counters
from lineshaft.engine.blob_cache import BlobCache, CacheRoom

EACH = 300  # bytes of an entry: 100 of JSON, and what it costs beside


def written(*seqs: int) -> Batch:
    blobs: list[tuple[Blob, int, bytes | None]] = [(Blob.PAYLOAD, seq, b"1" * 100) for seq in seqs]
    return Batch(position=1, nonce=b"", counters=Counters(), tasks=[], blobs=blobs, changes=[])


def known(cache: BlobCache, among: range) -> list[int]:
    return [seq for seq in among if (Blob.PAYLOAD, seq) in cache]


def test_a_busy_shard_has_all_the_room() -> None:
    room = CacheRoom(10 * EACH)
    busy, idle = BlobCache(room), BlobCache(room)
    busy.add(written(*range(20)))
    assert known(busy, range(20)) == list(range(10, 20))
    assert room.bytes == 10 * EACH
    # Another that wakes up takes its share from what is oldest.
    idle.add(written(1, 2, 3))
    assert known(idle, range(20)) == [1, 2, 3]
    assert known(busy, range(20)) == list(range(13, 20))


def test_a_shard_that_goes_gives_its_room_back() -> None:
    room = CacheRoom(10 * EACH)
    goes, stays = BlobCache(room), BlobCache(room)
    goes.add(written(*range(5)))
    stays.add(written(*range(5)))
    goes.clear()
    assert (room.bytes, room.count) == (5 * EACH, 5)
    stays.add(written(*range(5, 10)))
    assert known(stays, range(10)) == list(range(10))


def test_what_is_written_again_is_counted_once() -> None:
    room = CacheRoom(10 * EACH)
    cache = BlobCache(room)
    for _ in range(3_000):
        cache.add(written(1, 2))
    assert (room.bytes, room.count) == (2 * EACH, 2)
    assert known(cache, range(5)) == [1, 2]
