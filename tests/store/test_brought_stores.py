"""A store of somebody else's: proven by the conformance suite, found by the scheme of its URL."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lineshaft import App
from lineshaft.errors import Invalid, Unavailable
from lineshaft.store import registry
from lineshaft.store.base import Store, StoreCorrupt, StoreInUse
from lineshaft.store.conformance import StoreConformance
from lineshaft.store.conformance.harness import acquire, row
from lineshaft.store.urls import open_store
from tests.docs.desk import ROOT, Desk

HOME = ROOT / "examples" / "journal_store"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("journal_store", HOME / "journal_store.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["journal_store"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


journal = _load()


class TestJournalStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def places(self, tmp_path: Path) -> None:
        self.names = (str(tmp_path / f"{number}.journal") for number in range(1_000))

    async def make_store(self) -> Store:
        store: Store = journal.JournalStore(next(self.names))
        return store

    async def reopen(self, store: Store) -> Store:
        await store.close()
        again: Store = journal.make_store(store.url, {})
        await again.open(address="a")
        return again


async def _with_two_tasks(place: Path) -> None:
    store = journal.JournalStore(str(place))
    await store.open(address="a")
    owner = await acquire(store)
    await owner.put(row(1))
    await owner.put(row(2))
    await store.close()


async def _tasks(place: Path) -> list[int]:
    store = journal.JournalStore(str(place))
    await store.open(address="a")
    try:
        return [task.seq for task in (await (await acquire(store)).load()).tasks]
    finally:
        await store.close()


async def test_a_crash_at_any_byte_of_the_last_line_loses_only_that_line(tmp_path: Path) -> None:
    place = tmp_path / "x.journal"
    await _with_two_tasks(place)
    whole = place.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1, 37):
        place.write_bytes(whole[:-cut])
        assert await _tasks(place) == [1]
    place.write_bytes(whole)
    assert await _tasks(place) == [1, 2]


async def test_damage_before_the_last_line_is_said_and_not_skipped(tmp_path: Path) -> None:
    place = tmp_path / "x.journal"
    await _with_two_tasks(place)
    damaged = bytearray(place.read_bytes())
    damaged[damaged.index(b"commit") + 2] ^= 1
    place.write_bytes(damaged)
    for _ in range(2):  # and its lock is given back
        with pytest.raises(StoreCorrupt, match="restore a backup"):
            await _tasks(place)


async def test_a_full_disk_is_unavailable_and_leaves_no_half_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x.journal"
    store = journal.JournalStore(str(place))
    await store.open(address="a")
    owner = await acquire(store)
    write = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
        with pytest.raises(Unavailable):
            await owner.put(row(1))
    assert (await owner.load()).tasks == []
    await owner.put(row(2))
    await store.close()
    assert await _tasks(place) == [2]


async def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    one, other = (journal.JournalStore(str(tmp_path / "x.journal")) for _ in range(2))
    await one.open(address="http://127.0.0.1:7077")
    with pytest.raises(StoreInUse):
        await other.open(address="b")
    await one.close()
    await other.open(address="b")
    await other.close()


class _Package:
    """What is on the path of an installed package that brings stores."""

    def __init__(self, folder: Path, name: str, **brings: str) -> None:
        info = folder / f"{name.replace(chr(45), chr(95))}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        points = "".join(f"{kind} = {target}\n" for kind, target in brings.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(HOME))
    return site


def test_a_package_brings_a_kind_of_store(site: Path) -> None:
    _Package(site, "journal-store", journal="journal_store:make_store")
    store = open_store("journal:///jobs.journal")
    assert (store.url, store.tier) == ("journal:///jobs.journal", "power loss")
    with pytest.raises(Invalid, match="without options"):
        open_store("journal:///jobs.journal?fsync=no")
    with pytest.raises(Invalid, match="journal://…"):  # among those that there are
        open_store("jurnal:///jobs.journal")


def test_nobody_takes_the_place_of_our_own(site: Path) -> None:
    _Package(site, "cuckoo", memory="journal_store:make_store")
    assert open_store("memory://").tier == "none"
    assert registry.brought_kinds() == []


def test_two_packages_of_one_kind_are_refused_by_their_names(site: Path) -> None:
    for name in ("journal-store", "journal-too"):
        _Package(site, name, journal="journal_store:make_store")
    with pytest.raises(Invalid, match="both journal-store and journal-too"):
        open_store("journal:///x")


def test_a_package_that_cannot_be_loaded_is_named(site: Path) -> None:
    _Package(site, "old-store", journal="journal_store:made_elsewhere")
    with pytest.raises(Invalid, match=r"old-store, which cannot be loaded \(AttributeError"):
        open_store("journal:///x")


async def test_an_app_runs_its_coordinator_over_a_store_that_was_brought(site: Path, tmp_path: Path) -> None:
    _Package(site, "journal-store", journal="journal_store:make_store")
    for _ in range(2):
        async with App(f"journal:///{tmp_path}/jobs.journal") as app:
            handle = await app.enqueue_named("a", 1, task_id="one")
            assert await handle.state() == "queued"
    with pytest.raises(Invalid, match="neither a coordinator"):
        App("jurnal:///x")


@pytest.mark.slow
def test_the_example_installs_and_is_served_over_a_kill(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    subprocess.run(
        [*install, "--python", sys.executable, "--target", str(site), str(HOME)], check=True, timeout=100
    )
    for desk in _desks(tmp_path, site):
        desk.serve("lineshaft serve --store journal:///jobs.journal")
        first = json.loads(desk.run("lineshaft", "enqueue", "a", "1", "--task-id", "one", "--json"))
        assert first["task_id"] == "one"
        assert _health(desk) == ("journal:///jobs.journal", "power loss")
        desk._started[0].kill()
        desk._started[0].wait()
        desk.serve("lineshaft serve --store journal:///jobs.journal")
        again = json.loads(desk.run("lineshaft", "tasks", "get", "one", "--json"))
        assert (again["state"], again["payload"]) == ("queued", 1)
        looked = json.loads(desk.run("lineshaft", "doctor", "--store", "journal:///jobs.journal", "--json"))
        assert {"check": "store", "status": "ok"}.items() <= looked["findings"][4].items()


def _desks(tmp_path: Path, site: Path) -> Iterator[Desk]:
    class WithSite(Desk):
        @property
        def environment(self) -> dict[str, str]:
            return super().environment | {"PYTHONPATH": str(site)}

    with WithSite(tmp_path) as desk:
        yield desk


def _health(desk: Desk) -> tuple[Any, Any]:
    import urllib.request

    with urllib.request.urlopen(f"{desk.url}/_health/ready", timeout=10) as answer:
        health = json.load(answer)
    return health["store"], health["tier"]
