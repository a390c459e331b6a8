"""Which specs the server has, as the owner of a shard knows under its epoch.

A commit brings only those that are new. Where tasks are so various that specs are many, those that no task
has any more are swept: every row is looked at, and what commits use meanwhile counts as used.
"""

from __future__ import annotations

from lineshaft.store.redis.functions import Functions

MANY = 20_000

_BUCKETS_AT_ONCE = 8
_DIGESTS_AT_ONCE = 1000


class Confirmed:
    """The digests of one shard under one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.digests: set[bytes] = set()
        self._touched: set[bytes] | None = None
        self._unsettled: set[bytes] = set()
        self._left_by_last_sweep = 0

    def sending(self, used: set[bytes]) -> None:
        """Note what a commit uses: before it is sent, for it may be applied although its answer is lost."""
        self._unsettled = used
        if self._touched is not None:
            self._touched.update(used)

    def committed(self, new: set[bytes]) -> None:
        """Note that the commit was acknowledged, and what it has brought."""
        self._unsettled = set()
        self.digests.update(new)

    def are_many(self) -> bool:
        """Tell whether it is worth to look for what no task has any more."""
        return self._touched is None and len(self.digests) >= max(MANY, 2 * self._left_by_last_sweep)

    async def look_at_rows(self, functions: Functions, meta: str) -> set[bytes]:
        """Return the digests of all rows; from now on, note what commits use, until `take_unused`."""
        # A commit on its way may arrive behind the look at its rows.
        self._touched = set(self._unsettled)
        used: set[bytes] = set()
        try:
            names = sorted(set(await functions.call("buckets", meta, "of")))
            for start in range(0, len(names), _BUCKETS_AT_ONCE):
                used.update(await functions.call("digests", meta, *names[start : start + _BUCKETS_AT_ONCE]))
        except BaseException:
            self._touched = None
            raise
        return used

    def take_unused(self, used: set[bytes]) -> list[list[bytes]]:
        """Take out what nobody uses, in portions; the caller deletes it before the next commit."""
        unused = list(self.digests - used - (self._touched or set()) - self._unsettled)
        self.digests.difference_update(unused)
        self._touched, self._left_by_last_sweep = None, len(self.digests)
        return [unused[start : start + _DIGESTS_AT_ONCE] for start in range(0, len(unused), _DIGESTS_AT_ONCE)]
