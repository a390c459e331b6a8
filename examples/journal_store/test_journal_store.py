"""Every promise of a store, put to this one: `pytest test_journal_store.py`."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

pytest.register_assert_rewrite("lineshaft.store.conformance")

from journal_store import JournalStore  # noqa: E402

from lineshaft.store.base import Store  # noqa: E402
from lineshaft.store.conformance import StoreConformance  # noqa: E402


class TestJournalStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def places(self, tmp_path: Path) -> None:
        self.names = (str(tmp_path / f"{number}.journal") for number in itertools.count())

    async def make_store(self) -> Store:
        return JournalStore(next(self.names))

    async def reopen(self, store: Store) -> Store:
        """A restarted process has a new object, and only the file."""
        assert isinstance(store, JournalStore)
        await store.close()
        again = JournalStore(store.url.removeprefix("journal:///"))
        await again.open(address="http://127.0.0.1:7077")
        return again
