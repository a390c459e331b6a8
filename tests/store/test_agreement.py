"""SQLite agrees with the memory store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from lineshaft.store.base import Store
from lineshaft.store.sqlite import SQLiteStore
from tests.store.agreement import StoresAgree, agreement

pytestmark = pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes its time


class SQLiteAgrees(StoresAgree):
    def prepare(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="lineshaft-")

    def make_store(self) -> Store:
        return SQLiteStore(Path(self.directory.name) / "x.db", synchronous="NORMAL")

    def leave(self) -> None:
        self.directory.cleanup()


TestSQLiteAgrees = agreement(SQLiteAgrees, examples=50)
