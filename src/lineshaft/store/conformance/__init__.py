"""Every promise of `lineshaft.store.base`, as tests that any store can be put to.

A store of your own is proven by a subclass in a test module; only pytest is needed:

    import pytest
    pytest.register_assert_rewrite("lineshaft.store.conformance")
    from lineshaft.store.conformance import StoreConformance

    class TestMyStore(StoreConformance):
        async def make_store(self):
            return MyStore(...)      # empty, not yet opened

The tests open and close the store; `reopen` may be overridden where a restart means more than that.
"""

from __future__ import annotations

from lineshaft.store.conformance.commits import CommitPromises
from lineshaft.store.conformance.ownership import OwnershipPromises
from lineshaft.store.conformance.pruning import PruningPromises
from lineshaft.store.conformance.reading import ReadingPromises
from lineshaft.store.conformance.rows import RowPromises
from lineshaft.store.conformance.searching import SearchPromises


class StoreConformance(
    OwnershipPromises, CommitPromises, RowPromises, ReadingPromises, SearchPromises, PruningPromises
):
    """All promises of a store; subclass it, and say in `make_store` how yours is made."""


__all__ = ["StoreConformance"]
