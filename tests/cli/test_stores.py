"""Moving, copying and putting back what a store holds, from the command line."""

from __future__ import annotations

from pathlib import Path

from lineshaft import App
from lineshaft.cli.exits import ExitCode
from tests.cli.runs import run


def enqueue(store: str, *ids: str) -> None:
    app = App(store)
    for task_id in ids:
        app.sync.enqueue_named("work", {"n": 1}, task_id=task_id)
    app.sync.close()


def states(store: str, *ids: str) -> list[str]:
    app = App(store)
    try:
        return [app.sync.handle(task_id).state() for task_id in ids]
    finally:
        app.sync.close()


def test_a_store_is_copied_to_another_and_compared(tmp_path: Path, valkey_url: str) -> None:
    first, last = f"sqlite:///{tmp_path}/jobs.db", f"sqlite:///{tmp_path}/new.db"
    enqueue(first, "a", "b", "c")
    there = run("stores", "copy", first, valkey_url)
    assert there.code == 0, there.err
    assert "has the 3 tasks of sqlite:///" in there.out
    assert "compared by count and checksum" in there.out
    back = run("stores", "copy", valkey_url, last, "--json")
    assert back.code == 0, back.err
    assert (back.document["tasks"], back.document["positions_continue"]) == (3, True)
    assert states(last, "a", "b", "c") == ["queued"] * 3
    again = run("stores", "copy", first, valkey_url)
    assert again.code == ExitCode.REFUSED
    assert "is not empty: name a store that is new" in again.err
    assert "tasks get" not in again.err


def test_a_store_that_is_served_is_not_copied(tmp_path: Path, valkey_url: str) -> None:
    first = f"sqlite:///{tmp_path}/jobs.db"
    app = App(first)
    app.sync.enqueue_named("work")
    refused = run("stores", "copy", first, valkey_url)
    assert refused.code == ExitCode.REFUSED
    assert "is in use by process" in refused.err
    app.sync.close()
    shared = App(valkey_url)
    shared.sync.enqueue_named("work")
    refused = run("stores", "copy", valkey_url, f"sqlite:///{tmp_path}/new.db")
    assert refused.code == ExitCode.REFUSED
    assert "a coordinator is at work on" in refused.err
    shared.sync.close()


def test_a_store_that_holds_nothing_is_no_success(tmp_path: Path) -> None:
    mistyped = run("stores", "copy", f"sqlite:///{tmp_path}/jbos.db", f"sqlite:///{tmp_path}/new.db")
    assert mistyped.code == ExitCode.FAILED
    assert "jbos.db holds nothing, so nothing was copied" in mistyped.err


def test_nothing_is_copied_from_memory(tmp_path: Path) -> None:
    refused = run("stores", "copy", "memory://", f"sqlite:///{tmp_path}/new.db")
    assert refused.code != 0
    assert "memory:// forgets everything" in refused.err


def test_a_backup_of_a_store_in_use_is_put_back_once_it_is_not(tmp_path: Path) -> None:
    store, file = f"sqlite:///{tmp_path}/jobs.db", str(tmp_path / "copy.db")
    app = App(store)
    app.sync.enqueue_named("work", task_id="a")
    made = run("backup", store, file, "--json")
    assert made.code == 0, made.err
    assert made.document["tasks"] == 1
    assert run("backup", store, file).code == ExitCode.REFUSED
    assert run("backup", store, file, "--force").code == 0
    app.sync.enqueue_named("work", task_id="b")
    refused = run("restore", file, store)
    assert refused.code == ExitCode.REFUSED
    assert "is in use by process" in refused.err
    app.sync.close()
    done = run("restore", file, store)
    assert done.code == 0, done.err
    assert "has the 1 tasks of" in done.out
    assert "what was there before is" in done.err
    assert states(store, "a") == ["queued"]


def test_other_stores_have_means_of_their_own(tmp_path: Path) -> None:
    refused = run("backup", "postgresql://somebody@localhost/database", str(tmp_path / "copy"))
    assert refused.code != 0
    assert "has means of its own (pg_dump" in refused.err
