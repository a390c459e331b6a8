"""`lineshaft doctor` finds trouble that is made on purpose, and says what to do about it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lineshaft.cli.exits import ExitCode
from tests.cli.conftest import Process
from tests.cli.runs import Ended, command, environment, run_here

Start = Callable[..., Process]
Lineshaft = Callable[..., Ended]


def finding(ended: Ended, check: str, status: str = "trouble") -> Any:
    """Return the finding of that check and status; there must be one."""
    found = [one for one in ended.document["findings"] if (one["check"], one["status"]) == (check, status)]
    assert found, ended.out
    assert ended.document["healthy"] is (ended.code == ExitCode.OK)
    return found[0]


def is_ready(url: str) -> bool:
    """Tell whether the coordinator takes work."""
    try:
        urllib.request.urlopen(f"{url}/_health/ready", timeout=20).close()
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return True


def call(url: str, path: str, body: Any = None, key: str = "", *, timeout: float = 20) -> Any:
    """Make a call as a worker in any language would."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


# -- the coordinator ---------------------------------------------------------------------------------


def test_nobody_answers(tmp_path: Path) -> None:
    ended = run_here("doctor", "--json", cwd=tmp_path)
    assert ended.code == ExitCode.FAILED
    assert "start one with `lineshaft serve`" in finding(ended, "coordinator")["todo"]


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_another_program_has_the_port(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, args=(0.01,), daemon=True).start()
        ended = run_here("doctor", "--json", url=f"http://127.0.0.1:{stranger.server_port}", cwd=tmp_path)
        stranger.shutdown()
    found = finding(ended, "coordinator")
    assert "is no coordinator" in found["found"]
    assert "look at the address" in found["todo"]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the disk is filled by a limit of Linux")
def test_the_store_takes_nothing(start: Start, tmp_path: Path) -> None:
    served = start(
        "serve", "--store", "sqlite:///jobs.db", "--json", "--listen=127.0.0.1:0", ready="\n", cwd=tmp_path
    )
    url = json.loads(served.first)["url"]
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    with pytest.raises(TimeoutError):  # not in half a second, nor ever
        call(url, "/_tasks", {"name": "n", "payload": "much " * 1000}, timeout=0.5)
    until = time.monotonic() + 20
    while is_ready(url):
        assert time.monotonic() < until
        time.sleep(0.05)

    found = finding(run_here("doctor", "--json", url=url, cwd=tmp_path), "readiness")
    served.process.kill()  # an orderly end would wait for the store
    assert "the store has not answered since" in found["found"]
    assert "jobs.db" in found["found"]
    assert "doctor --store URL" in found["todo"]


def test_the_file_has_two_names(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").touch()
    os.link(tmp_path / "jobs.db", tmp_path / "other.db")
    found = finding(run_here("doctor", "--json", "--store", "sqlite:///jobs.db", cwd=tmp_path), "store")
    assert "has another name, too" in found["found"]
    assert "remove that name" in found["todo"]


def test_the_file_is_gone_while_it_is_open(start: Start, tmp_path: Path) -> None:
    place = f"--store=sqlite:///{tmp_path}/jobs.db"
    served = start("serve", place, "--json", "--listen=127.0.0.1:0", ready="\n", cwd=tmp_path)
    (tmp_path / "jobs.db").rename(tmp_path / "elsewhere.db")
    ended = run_here("doctor", "--json", place, url=json.loads(served.first)["url"], cwd=tmp_path)
    served.process.kill()
    found = finding(ended, "store")
    assert "moved or deleted while a coordinator has it open" in found["found"]
    assert "restore a backup" in found["todo"]


@pytest.mark.slow  # it waits as long as a person would
def test_the_coordinator_is_frozen(start: Start, tmp_path: Path) -> None:
    served = start("serve", "--store", "memory://", "--listen", "127.0.0.1:0", "--json", ready="\n")
    served.process.send_signal(signal.SIGSTOP)
    try:
        ended = run_here("doctor", "--json", url=json.loads(served.first)["url"], cwd=tmp_path)
    finally:
        served.process.send_signal(signal.SIGCONT)
    found = finding(ended, "coordinator")
    assert "did not answer in time" in found["found"]
    assert found["todo"]


@pytest.fixture
def guarded(start: Start, tmp_path: Path) -> tuple[str, str, str]:
    """Give a coordinator with keys: its URL, a key that may read, one that may only enqueue."""
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    keys = []
    for scope in ("admin", "read", "enqueue"):
        made = run_here("keys", "create", scope, "--scope", scope, "--store", store, "--json", cwd=tmp_path)
        keys.append(made.document["key"])
    served = start("serve", "--store", store, "--listen", "127.0.0.1:0", "--json", ready="\n")
    return json.loads(served.first)["url"], keys[1], keys[2]


def test_a_key_is_wrong_or_missing(guarded: tuple[str, str, str], tmp_path: Path) -> None:
    url, reading, _ = guarded
    for wrong in ((), ("--api-key", "lsk_nonsense")):
        ended = run_here("doctor", "--json", *wrong, url=url, cwd=tmp_path)
        assert "--api-key or LINESHAFT_API_KEY" in finding(ended, "api key")["todo"]
    right = run_here("doctor", "--json", "--api-key", reading, url=url, cwd=tmp_path)
    assert finding(right, "api key", "ok")["found"] == "accepted"


def test_a_key_lacks_the_scope(guarded: tuple[str, str, str], tmp_path: Path) -> None:
    url, _, enqueueing = guarded
    ended = run_here("doctor", "--json", "--api-key", enqueueing, url=url, cwd=tmp_path)
    found = finding(ended, "api key")
    assert "read" in found["found"]
    assert "use a key with that scope" in found["todo"]


OTHERWISE = """
import sys, time
import lineshaft.version
lineshaft.version.__version__ = "99.1"
clock = time.time
time.time = lambda: clock() + 3600
time.time_ns = lambda before=time.time_ns: before() + 3_600_000_000_000
sys.argv[0] = "lineshaft"
from lineshaft.cli.main import main
main()
"""


@pytest.fixture
def odd_coordinator(tmp_path: Path) -> Iterator[str]:
    """Run a coordinator of another version, on a machine whose clock is an hour ahead."""
    arguments = ("serve", "--store", "memory://", "--listen", "127.0.0.1:0", "--json")
    process = subprocess.Popen(
        [sys.executable, "-c", OTHERWISE, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_clocks_and_the_versions_differ(odd_coordinator: str, tmp_path: Path) -> None:
    ended = run_here("doctor", "--json", url=odd_coordinator, cwd=tmp_path)
    clocks = finding(ended, "clocks", "warning")
    assert clocks["found"].startswith(("the coordinator's is +3599.", "the coordinator's is +3600."))
    assert "NTP" in clocks["todo"]
    versions = finding(ended, "versions", "warning")
    assert "99.1" in versions["found"]
    assert "same version" in versions["todo"]
    assert "a restart forgets everything" in finding(ended, "readiness", "warning")["found"]


# -- the work ----------------------------------------------------------------------------------------


def test_no_worker_has_what_a_task_needs(lineshaft: Lineshaft, coordinator: str) -> None:
    lineshaft("enqueue", "train", "1", "--capability", "gpu", "--task-id", "t-1")
    call(coordinator, "/_tasks/_claim", {"claim_id": "c", "worker": {"id": "w", "incarnation": "1"}})
    found = finding(lineshaft("doctor", "--json"), "tasks", "warning")
    assert "no live worker has what it needs: gpu" in found["found"]
    assert "--capability" in found["todo"]
    assert "lineshaft tasks explain t-1" in found["todo"]


def test_no_worker_asks_for_a_queue(lineshaft: Lineshaft, coordinator: str) -> None:
    lineshaft("enqueue", "mail", "1", "--queue", "letters")
    worker = {"id": "w", "incarnation": "1"}
    call(coordinator, "/_tasks/_claim", {"claim_id": "c", "worker": worker, "queues": ["other"]})
    found = finding(lineshaft("doctor", "--json"), "tasks", "warning")
    assert "start a worker for queue letters that knows mail" in found["todo"]


def test_a_queue_is_paused(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--queue", "q")
    lineshaft("queues", "pause", "q")
    assert finding(lineshaft("doctor", "--json"), "queues", "warning")["todo"] == "lineshaft queues resume q"


def test_all_workers_are_draining(lineshaft: Lineshaft, coordinator: str) -> None:
    call(coordinator, "/_tasks/_claim", {"claim_id": "c", "worker": {"id": "w", "incarnation": "1"}})
    assert lineshaft("workers", "drain", "w").code == ExitCode.OK
    lineshaft("enqueue", "mail", "1")
    found = finding(lineshaft("doctor", "--json"), "workers", "warning")
    assert found["found"] == "all 1 are draining, and 1 task waits"


def test_a_task_has_killed_all_its_workers(lineshaft: Lineshaft, coordinator: str) -> None:
    lineshaft("enqueue", "poison", "1", "--task-id", "p-1", "--max-retries", "0")
    claim = {"claim_id": "c", "worker": {"id": "w", "incarnation": "1"}, "lease": "1s", "max": 1}
    assert call(coordinator, "/_tasks/_claim", claim)["tasks"]
    # The worker is gone: its lease of a second runs out by itself.
    call_until(lambda: lineshaft("tasks", "get", "p-1", "--json").document["state"] == "failed")
    found = finding(lineshaft("doctor", "--json"), "poison", "warning")
    assert "p-1 (poison) the last" in found["found"]
    assert "lineshaft tasks retry p-1" in found["todo"]


@pytest.mark.slow
def test_a_worker_has_fallen_silent(lineshaft: Lineshaft, coordinator: str) -> None:
    lineshaft("enqueue", "mail", "1", "--task-id", "m-1", "--lease", "6s")
    claim = {"claim_id": "c", "worker": {"id": "frozen", "incarnation": "1"}, "max": 1}
    assert call(coordinator, "/_tasks/_claim", claim)["tasks"]
    seen: list[Any] = []

    def is_noticed() -> bool:
        findings = lineshaft("doctor", "--json").document["findings"]
        seen.extend(one for one in findings if one["check"] == "heartbeats")
        return bool(seen)

    call_until(is_noticed)
    assert "frozen holds task m-1 and has said nothing for" in seen[0]["found"]
    assert "not frozen" in seen[0]["todo"]


def call_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Look again until it is so; it happens in another process, in its time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- the store and the machine -----------------------------------------------------------------------


def doctor_of(store: Path, *more: str, url: str = "") -> Ended:
    return run_here("doctor", "--json", "--store", f"sqlite:///{store}", *more, url=url, cwd=store.parent)


def made(place: Path) -> Path:
    """Make a store with something in it."""
    store = f"sqlite:///{place}"
    for number in range(20):
        key = run_here("keys", "create", f"k{number}", "--scope", "admin", "--store", store, cwd=place.parent)
        assert key.code == ExitCode.OK
    return place


def test_the_store_is_served_elsewhere_than_we_ask(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "jobs.db"
    served = start("serve", "--store", f"sqlite:///{place}", "--listen", "127.0.0.1:0", "--json", ready="\n")
    url = json.loads(served.first)["url"]
    ended = doctor_of(place, url="http://127.0.0.1:9")
    assert url in finding(ended, "lock", "ok")["found"]
    assert finding(ended, "coordinator")["todo"] == f"the store is served at {url}: --url {url}"


def test_the_database_is_corrupted(tmp_path: Path) -> None:
    place = made(tmp_path / "jobs.db")
    raw = bytearray(place.read_bytes())
    page = int.from_bytes(raw[16:18], "big")
    for start_of_page in range(page, len(raw), page):  # all but the first, which holds the schema
        raw[start_of_page + 8 : start_of_page + 200] = b"\xff" * 192
    place.write_bytes(raw)
    ended = doctor_of(place)
    assert ended.code == ExitCode.FAILED
    found = [one for one in ended.document["findings"] if one["status"] == "trouble"]
    assert any("restore a backup" in one["todo"] for one in found), ended.out


def test_the_store_cannot_be_written(tmp_path: Path) -> None:
    place = made(tmp_path / "jobs.db")
    place.chmod(0o444)
    tmp_path.chmod(0o755)
    found = finding(as_nobody(place) if os.geteuid() == 0 else doctor_of(place), "store")
    assert "cannot be written" in found["found"]
    assert "mode or owner" in found["todo"]


def as_nobody(place: Path) -> Ended:
    """Look as a user who may not do everything; root may."""
    script = f"""
import asyncio, json, os, msgspec
import lineshaft.store.urls
from lineshaft.cli import checks
os.setgroups([]); os.setgid(65534); os.setuid(65534)
findings = asyncio.run(checks.store({f"sqlite:///{place}"!r}))
print(json.dumps({{"healthy": False, "findings": msgspec.to_builtins(findings)}}))
"""
    # What is looked at lies in a folder that only its owner may enter.
    for folder in place.parents:
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return Ended(ExitCode.FAILED, done.stdout, done.stderr)


def test_the_disk_is_nearly_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        ended = doctor_of(small / "jobs.db")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "make room" in finding(ended, "free space")["todo"]
    assert "nothing survives a reboot" in finding(ended, "file system", "warning")["todo"]


def test_few_files_may_be_open(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = subprocess.run(
        ["sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh", *command("doctor", "--json")],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    found = finding(Ended(done.returncode, done.stdout, done.stderr), "open files", "warning")
    assert found["found"] == "256 at most"
    assert "ulimit -n" in found["todo"]
    assert hard == resource.RLIM_INFINITY or str(hard) in found["todo"]


def test_sqlite_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))  # there is no other on this machine
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.31.1")
    found = finding(doctor_of(tmp_path / "jobs.db"), "sqlite")
    assert "3.31.1, older than 3.35.0" in found["found"]
    assert "newer SQLite" in found["todo"]


@pytest.mark.slow  # it waits as long as a person would
def test_the_port_is_taken_by_something_that_does_not_speak(tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        ended = run_here("doctor", "--json", url=f"http://127.0.0.1:{mute.getsockname()[1]}", cwd=tmp_path)
    assert finding(ended, "coordinator")["todo"]
