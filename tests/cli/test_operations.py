"""Serving, keys and doctor, with real processes and real files."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from lineshaft.cli.exits import ExitCode
from tests.cli.conftest import Process
from tests.cli.runs import Ended, run, run_here, said

Start = Callable[..., Process]
Lineshaft = Callable[..., Ended]

# -- serve -------------------------------------------------------------------------------------------


def test_the_startup_line_names_store_and_durability(start: Start, tmp_path: Path) -> None:
    served = start("serve", "--store", "sqlite:///a.db", "--listen", "127.0.0.1:0", ready="\n", cwd=tmp_path)
    assert "sqlite:///a.db" in served.first
    assert "power loss" in served.first
    assert served.stop(signal.SIGTERM) == 0


def test_with_json_the_startup_is_a_document(start: Start) -> None:
    served = start("serve", "--store", "memory://", "--listen", "127.0.0.1:0", "--json", ready="\n")
    told = json.loads(served.first)
    assert set(told) == {"url", "store", "tier", "version", "pid"}
    assert (told["store"], told["tier"], told["pid"]) == ("memory://", "none", served.process.pid)


WRONG = [
    (["--listen", "nonsense"], ExitCode.USAGE, "expected HOST:PORT"),
    (["--listen", "0.0.0.0:0"], ExitCode.USAGE, "there is no API key: make one"),
    (["--store", "nonsense"], ExitCode.USAGE, "'nonsense' is not the URL of a store"),
    (["--store", "mysql://x"], ExitCode.USAGE, "there is no kind of store 'mysql'"),
    (["--store", "sqlite:///no/such/folder/a.db"], ExitCode.REFUSED, "is not a directory: make it"),
    (["--store", "sqlite:////dev/null"], ExitCode.REFUSED, "is not an ordinary file"),
    (["--grace", "soon"], ExitCode.USAGE, "expected a duration"),
    (["--log-level", "loud"], ExitCode.USAGE, "is none of debug, info"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message"), WRONG, ids=[" ".join(words) for words, _, _ in WRONG]
)
def test_what_cannot_be_served_is_told(
    arguments: list[str], code: ExitCode, message: str, tmp_path: Path
) -> None:
    listen = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
    ended = run("serve", *listen, *arguments, cwd=tmp_path)
    assert message in said(ended.err)
    assert (ended.code, ended.out) == (code, "")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", cwd=tmp_path)
    assert ended.code == ExitCode.USAGE
    assert "Address already in use" in ended.err
    assert "hint: take another address, such as --listen 127.0.0.1:0" in said(ended.err)


def test_a_second_coordinator_on_a_store_is_refused_and_told_of_the_first(
    start: Start, tmp_path: Path
) -> None:
    first = start("serve", "--store", "sqlite:///a.db", "--listen", "127.0.0.1:0", ready="\n", cwd=tmp_path)
    second = run("serve", "--store", "sqlite:///a.db", "--listen", "127.0.0.1:0", "--json", cwd=tmp_path)
    assert second.code == ExitCode.REFUSED
    assert second.error["error"]["type"] == "store_in_use"
    assert f"process {first.process.pid}" in second.error["error"]["reason"]
    first.process.kill()
    first.process.wait()
    again = start("serve", "--store", "sqlite:///a.db", "--listen", "127.0.0.1:0", ready="\n", cwd=tmp_path)
    assert again.stop() == 0


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path)
    write(tmp_path / "a.db", "UPDATE meta SET value = 999 WHERE key = 'schema_version'")
    ended = run("serve", "--store", "sqlite:///a.db", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert ended.code == ExitCode.REFUSED
    assert "999" in ended.err
    assert "upgrade this Lineshaft" in ended.err


# -- keys --------------------------------------------------------------------------------------------


def test_the_first_key_is_made_on_the_store_and_then_needed(start: Start, tmp_path: Path) -> None:
    made = run_here("keys", "create", "root", "--scope", "admin", "--store", "sqlite:///a.db", cwd=tmp_path)
    assert made.code == ExitCode.OK
    key = made.out.strip()
    assert key.startswith("ls_")
    assert key not in made.err
    served = start(
        "serve", "--store", "sqlite:///a.db", "--listen", "127.0.0.1:0", "--json", ready="\n", cwd=tmp_path
    )
    url = json.loads(served.first)["url"]
    without = run_here("tasks", "list", url=url)
    assert without.code == ExitCode.REFUSED
    assert "--api-key or LINESHAFT_API_KEY" in without.err
    worker = run("worker", "--exec", "cat", url=url)
    assert worker.code == ExitCode.REFUSED
    assert "--api-key or LINESHAFT_API_KEY" in worker.err
    assert "push session" not in worker.err
    assert run_here("tasks", "list", "--api-key", "ls_no_no", url=url).code == ExitCode.REFUSED
    assert run_here("tasks", "list", "--api-key", key, url=url).code == ExitCode.OK

    reader = run_here("keys", "create", "ci", "--scope", "read", "--api-key", key, "--json", url=url).document
    assert reader["scopes"] == ["read"]
    forbidden = run_here("enqueue", "mail", "1", "--api-key", reader["key"], url=url)
    assert forbidden.code == ExitCode.REFUSED
    assert "needs a key with the scope enqueue" in forbidden.err
    listed = run_here("keys", "list", "--api-key", key, url=url)
    assert "ci" in listed.out
    assert reader["key"] not in listed.out
    assert run_here("keys", "revoke", reader["key_id"], "--api-key", key, url=url).code == ExitCode.OK
    assert run_here("tasks", "list", "--api-key", reader["key"], url=url).code == ExitCode.REFUSED
    assert run_here("keys", "revoke", reader["key_id"], "--api-key", key, url=url).code == ExitCode.REFUSED


def test_whoever_makes_the_first_key_or_revokes_the_last_is_told_what_that_means(
    lineshaft: Lineshaft,
) -> None:
    refused = lineshaft("keys", "create", "ci", "--scope", "read")
    assert "say --scope admin for the first" in refused.err
    made = lineshaft("keys", "create", "root", "--scope", "admin")
    assert "from now on every call needs a key" in made.err
    key, key_id = made.out.strip(), made.out.split("_")[1]

    unknown = lineshaft("keys", "revoke", "nobody", "--api-key", key)
    assert (unknown.code, "`lineshaft keys list`" in unknown.err) == (ExitCode.REFUSED, True)
    another = lineshaft("keys", "create", "second", "--scope", "admin", "--api-key", key)
    assert "from now on" not in another.err
    ended = lineshaft("keys", "revoke", key_id, "--api-key", another.out.strip())
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    last = lineshaft("keys", "revoke", another.out.split("_")[1], "--api-key", another.out.strip())
    assert (last.code, "no key with admin is left" in last.err) == (ExitCode.OK, True)


def test_a_worker_that_nobody_knows(lineshaft: Lineshaft) -> None:
    ended = lineshaft("workers", "drain", "nobody")
    assert (ended.code, "`lineshaft workers` shows those" in ended.err) == (ExitCode.REFUSED, True)


def test_keys_of_a_store_that_is_served_go_through_the_coordinator(
    lineshaft: Lineshaft, coordinator: str, tmp_path: Path
) -> None:
    ended = lineshaft("keys", "list", "--store", f"sqlite:///{tmp_path / 'jobs.db'}")
    assert ended.code == ExitCode.REFUSED
    assert "stop the other process, or talk to it with --url" in ended.err
    assert lineshaft("keys", "list").err == "there is no API key\n"


def test_keys_in_memory_make_no_sense() -> None:
    assert run_here("keys", "list", "--store", "memory://").code == ExitCode.USAGE


# -- doctor ------------------------------------------------------------------------------------------


def test_all_is_well(lineshaft: Lineshaft, tmp_path: Path) -> None:
    ended = lineshaft("doctor", "--store", f"sqlite:///{tmp_path / 'jobs.db'}", "--json")
    assert ended.code == ExitCode.OK, ended.out
    found = {finding["check"]: finding for finding in ended.document["findings"]}
    assert found["schema"]["status"] == found["integrity"]["status"] == found["readiness"]["status"] == "ok"
    assert "has the store open" in found["lock"]["found"]
    assert {
        "python",
        "sqlite",
        "open files",
        "clock",
        "free space",
        "file system",
        "clocks",
        "api key",
    } <= set(found)


def test_what_waits_for_nobody_is_found(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--queue", "q")
    lineshaft("queues", "pause", "q")
    ended = lineshaft("doctor")
    assert ended.code == ExitCode.OK
    assert "none, and 1 task waits" in ended.out
    assert "start one with `lineshaft worker`" in ended.out
    assert "lineshaft queues resume q" in ended.out


TROUBLES = [
    ("nonsense", "is not the URL of a store"),
    ("sqlite:///no/such/folder/a.db", "mkdir -p"),
    ("sqlite:///.", "name a file in it"),
    ("sqlite:///other.db", "a database of another program"),
    ("sqlite:///text.db", "cannot be read"),
    ("sqlite:///newer.db", "install the newer Lineshaft"),
    ("sqlite:///ahead.db", "ahead of this clock"),
]


@pytest.mark.parametrize(("store", "message"), TROUBLES)
def test_trouble_with_the_store_is_found(store: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "other.db", "CREATE TABLE theirs (id)")
    (tmp_path / "text.db").write_text("this is no database at all, only some text that is long enough" * 20)
    make_store(tmp_path, "newer.db")
    write(tmp_path / "newer.db", "UPDATE meta SET value = 999 WHERE key = 'schema_version'")
    make_store(tmp_path, "ahead.db")
    write(tmp_path / "ahead.db", "INSERT INTO log VALUES (1000, 99999999999999, x'')")
    ended = run_here("doctor", "--store", store, url="", cwd=tmp_path)
    assert ended.code == ExitCode.FAILED
    assert message in said(ended.out)
    assert "trouble" in ended.out


def test_nobody_at_home_is_trouble_only_where_somebody_is_expected(tmp_path: Path) -> None:
    alone = run_here("doctor", cwd=tmp_path)
    assert alone.code == ExitCode.FAILED
    assert "start one with `lineshaft serve`" in alone.out
    before_the_first_start = run_here("doctor", "--store", "sqlite:///a.db", url="", cwd=tmp_path)
    assert before_the_first_start.code == ExitCode.OK
    assert "is made by the first `lineshaft serve`" in before_the_first_start.out
    assert not os.path.exists(tmp_path / "a.db")


def make_store(directory: Path, name: str = "a.db") -> None:
    assert run_here("keys", "list", "--store", f"sqlite:///{name}", cwd=directory).code == ExitCode.OK


def write(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
