"""PostgreSQL agrees with the memory store."""

from __future__ import annotations

import itertools

import pytest

from lineshaft.store.base import Store
from lineshaft.store.urls import open_store
from tests.servers import postgres
from tests.store.agreement import StoresAgree, agreement

pytestmark = pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes its time

_NUMBERS = itertools.count()


class PostgresAgrees(StoresAgree):
    """Each example has a schema of its own in one database."""

    database = ""

    def prepare(self) -> None:
        if not PostgresAgrees.database:
            PostgresAgrees.database = postgres().fresh()
        self.url = f"{self.database}?schema=agreement_{next(_NUMBERS)}&shards=1&synchronous_commit=off"

    def make_store(self) -> Store:
        return open_store(self.url)


TestPostgresAgrees = agreement(PostgresAgrees, examples=20)
