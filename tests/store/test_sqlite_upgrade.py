"""What holds across an upgrade of a SQLite store: what an older Lineshaft promised, this one keeps."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lineshaft.core.commands import Enqueue, NewTask
from lineshaft.core.replies import Enqueued, EnqueuedTask
from lineshaft.core.task import Spec
from lineshaft.engine.engine import Engine
from lineshaft.store.conformance.harness import finished, row
from lineshaft.store.urls import open_store
from tests.store.test_sqlite_opening import run_sql, write_version_1


@pytest.mark.parametrize(
    "id",
    [
        f"{1 << 43:012x}{5:014x}",  # made by a clock that is far ahead
        "01jdgx4w9mq3v5d8k2t7n6c0zy",  # of another kind, which sorts behind all of ours
        "0xffffffffffffffffffffffff",
        "chosen",
    ],
)
async def test_an_id_of_version_1_still_names_its_finished_task(tmp_path: Path, id: str) -> None:
    task = msgspec.structs.replace(finished(row(1)), id=id)
    assert task.run is not None
    task.run.prune_at = 1 << 45
    write_version_1(tmp_path / "x.db", task)
    run_sql(tmp_path / "x.db", "UPDATE shard SET position = 7")
    async with Engine(open_store(f"sqlite:///{tmp_path / 'x.db'}")) as engine:
        new = NewTask(id=id, spec=Spec(name="n"), payload=b"null", given=True)
        reply = await engine.submit(Enqueue(tenant=task.tenant, tasks=(new,)))
        assert isinstance(reply, Enqueued)
        [item] = reply.items
        assert isinstance(item, EnqueuedTask)
        assert not item.created
