"""Valkey agrees with the memory store."""

from __future__ import annotations

import itertools

import pytest

from lineshaft.store.base import Store
from lineshaft.store.urls import open_store
from tests.servers import valkey
from tests.store.agreement import StoresAgree, agreement

pytestmark = pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes its time

_NUMBERS = itertools.count()


class ValkeyAgrees(StoresAgree):
    """Each example has a prefix of its own in one database."""

    database = ""

    def prepare(self) -> None:
        if not ValkeyAgrees.database:
            ValkeyAgrees.database = valkey().fresh()
        self.prefix = f"agree-{next(_NUMBERS)}"

    def make_store(self) -> Store:
        return open_store(ValkeyAgrees.database, shards="1", prefix=self.prefix)


TestValkeyAgrees = agreement(ValkeyAgrees, examples=20)
