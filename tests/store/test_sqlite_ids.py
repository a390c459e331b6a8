"""An id is found by a pair of numbers, which two ids may share: each still names its own task."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineshaft.core.batch import Forgotten
from lineshaft.store import sqlite_idents
from lineshaft.store.conformance.harness import SHARD, TENANT, acquire, row
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.sqlite_idents import ident

MADE = "01a20e9cd3e91b3c905b381696"
TWIN = f"{int(MADE, 16) ^ 1 << 50:026x}"
"""Of the same millisecond, and different only in bits that the index leaves out."""


@pytest.mark.parametrize("ids", [(MADE, TWIN), ("of a client", "of another")])
async def test_ids_in_one_place_of_the_index_name_a_task_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: tuple[str, str]
) -> None:
    monkeypatch.setattr(sqlite_idents, "_digest", lambda tenant, id: 7)
    one, other = ids
    assert ident(TENANT, one, 1)[:2] == ident(TENANT, other, 2)[:2]
    store = SQLiteStore(tmp_path / "x.db")
    await store.open(address="a")
    owner = await acquire(store)
    await owner.put(row(1, one), row(2, other))
    keys = [(TENANT, one), (TENANT, other), ("elsewhere", one), (TENANT, "of nobody")]
    assert await store.get(SHARD, keys) == [row(1, one), row(2, other), None, None]
    await owner.commit(forgotten=[Forgotten(1, TENANT, one)])
    assert await store.get(SHARD, keys) == [None, row(2, other), None, None]
    await store.close()
