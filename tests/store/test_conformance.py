"""Every store keeps every promise."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lineshaft.store.base import Store
from lineshaft.store.conformance import StoreConformance
from lineshaft.store.memory import MemoryStore
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.urls import open_store


class TestMemoryStore(StoreConformance):
    async def make_store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreOfSeveralShards(StoreConformance):
    async def make_store(self) -> Store:
        return MemoryStore(shards=3)


class TestSQLiteStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.places = (tmp_path / f"{number}.db" for number in itertools.count())

    async def make_store(self) -> Store:
        return SQLiteStore(next(self.places))


class TestSQLiteStoreReopenedByItsName(TestSQLiteStore):
    """A restarted process has a new object."""

    async def reopen(self, store: Store) -> Store:
        await store.close()
        again = open_store(store.url)
        await again.open(address="http://127.0.0.1:7077")
        return again
