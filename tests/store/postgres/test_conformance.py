"""PostgreSQL keeps every promise of a store."""

from __future__ import annotations

import itertools

import pytest

from lineshaft.store.base import Store
from lineshaft.store.conformance import StoreConformance
from lineshaft.store.urls import open_store

_NUMBERS = itertools.count()


class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def place(self, database: str) -> None:
        self.database = database

    async def make_store(self) -> Store:
        return open_store(f"{self.database}?shards=2&schema=conformance_{next(_NUMBERS)}")

    async def reopen(self, store: Store) -> Store:
        """Return another object, as a restarted process has it."""
        await store.close()
        again = open_store(store.url)
        await again.open(address="http://127.0.0.1:7077")
        return again
