"""The URL of a store: what it opens, and what a person is told who spells it wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lineshaft.errors import Invalid
from lineshaft.store.memory import MemoryStore
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.urls import open_store


def test_memory() -> None:
    store = open_store("memory://")
    assert isinstance(store, MemoryStore)
    assert (store.url, store.tier) == ("memory://", "none")


async def test_three_slashes_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///jobs.db")
    assert isinstance(store, SQLiteStore)
    await store.open(address="a")
    await store.close()
    assert (tmp_path / "jobs.db").is_file()
    assert store.url == "sqlite:///jobs.db"


async def test_four_slashes_are_absolute(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    await store.open(address="a")
    await store.close()
    assert (tmp_path / "jobs.db").is_file()
    assert store.url == f"sqlite:///{tmp_path}/jobs.db"


async def test_odd_names_can_be_escaped(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/odd%3F%23%25%20n%C3%A4me.db")
    await store.open(address="a")
    await store.close()
    assert (tmp_path / "odd?#% näme.db").is_file()


@pytest.mark.parametrize(
    ("url", "tier"),
    [
        ("sqlite:///x.db", "power loss"),
        ("sqlite:///x.db?synchronous=FULL", "power loss"),
        ("sqlite:///x.db?synchronous=normal", "process crash"),
    ],
)
def test_durability_is_chosen_in_the_url(url: str, tier: str) -> None:
    assert open_store(url).tier == tier


def test_an_option_by_keyword_wins() -> None:
    assert open_store("sqlite:///x.db?synchronous=FULL", synchronous="NORMAL").tier == "process crash"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "not the URL of a store"),
        ("jobs.db", "not the URL of a store"),
        ("/var/jobs.db", "not the URL of a store"),
        ("sqlite:jobs.db", "not the URL of a store"),
        ("mysql://localhost/x", "'mysql'"),
        ("memory://x", "followed by nothing"),
        ("memory:///x.db", "followed by nothing"),
        ("sqlite://jobs.db", "sqlite:///jobs.db"),
        ("sqlite://", "third slash"),
        ("sqlite:///", "names no file"),
        ("sqlite:////var/", "names no file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db?syncronous=FULL", "'syncronous'"),
        ("sqlite:///x.db?synchronous=OFF", "'OFF'"),
        ("sqlite:///x.db?synchronous=", "FULL or NORMAL"),
        ("sqlite:///x.db?synchronous=FULL&synchronous=FULL", "twice"),
        ("memory://?synchronous=FULL", "takes none"),
        ("postgresql://host/", "names no database"),
        ("postgresql://u:secret@host/x?shards=0", "from 1 to 1024"),
        ("postgresql://u:secret@host/x?shards=many", "'many'"),
        ("postgresql://u:secret@host/x?schema=Mine", "'Mine'"),
        ("postgresql://u:secret@host/x?schema=pg_mine", "'pg_mine'"),
        ("postgresql://u:secret@host/x?synchronous_commit=yes", "'yes'"),
        ("postgresql://u:secret@host/x?sslmod=require", "sslmod"),
        ("postgresql://u:secret@host/x?listen=host", "postgresql://"),
    ],
)
def test_a_wrong_url_is_told_what_is_wrong(url: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        open_store(url)
    assert told in refused.value.reason
    assert refused.value.field in ("store", "synchronous", "shards", "schema", "synchronous_commit", "listen")
    assert "secret" not in refused.value.reason


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@host/x", "postgresql://u@host/x"),
        ("postgres://u:se%40cret@h1,h2:5433/x?shards=4", "postgresql://u@h1,h2:5433/x?shards=4"),
        ("postgresql:///x?host=/run/pg&password=secret", "postgresql:///x?host=/run/pg"),
        ("postgresql://host/x?listen=postgresql://u:secret@host/x", "postgresql://host/x"),
    ],
)
def test_the_secrets_of_a_database_are_not_shown(url: str, shown: str) -> None:
    store = open_store(url)
    assert (store.url, store.exclusive) == (shown, False)


def test_a_missing_library_is_named_with_the_line_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Invalid, match=r"pip install 'lineshaft\[postgres\]'") as refused:
        open_store("postgresql://host/x")
    assert refused.value.field == "store"
