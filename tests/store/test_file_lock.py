"""The file belongs to one process: told by name, free when it dies, not confused by forks and links."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lineshaft.store.base import StoreInUse, StoreUnusable
from lineshaft.store.file_lock import FileLock, file_system, is_network
from lineshaft.store.sqlite import SQLiteStore

HOLD = """
import asyncio, sys
from lineshaft.store.sqlite import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open(address="http://127.0.0.1:7077")
    print("open", flush=True)
    sys.stdin.read()
    await store.close()

asyncio.run(main())
"""


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store open until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            if process.poll() is None:
                process.communicate("")


async def open_and_close(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open(address="http://127.0.0.1:1")
    await store.close()


async def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with another_process(tmp_path / "x.db") as process:
        with pytest.raises(StoreInUse) as refused:
            await open_and_close(tmp_path / "x.db")
        assert f"process {process.pid}," in refused.value.reason
        assert "http://127.0.0.1:7077" in refused.value.reason
    await open_and_close(tmp_path / "x.db")


async def test_the_file_is_free_at_once_after_kill_9(tmp_path: Path) -> None:
    with another_process(tmp_path / "x.db") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        await open_and_close(tmp_path / "x.db")


async def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "place" / "x.db")
    (tmp_path / "way").symlink_to(tmp_path / "place")
    with another_process(tmp_path / "place" / "x.db"):
        for name in ("link.db", "way/x.db", "place/../way/./x.db"):
            with pytest.raises(StoreInUse):
                await open_and_close(tmp_path / name)


async def test_a_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "x.db")
    await open_and_close(tmp_path / "link.db")
    assert (tmp_path / "x.db").is_file()
    assert (tmp_path / "link.db").is_symlink()


async def test_a_second_store_in_one_process_is_refused_and_takes_nothing_away(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")
    await store.open(address="a")
    for _ in range(2):
        with pytest.raises(StoreInUse, match="in this process"):
            await open_and_close(tmp_path / "x.db")
    assert held_for_others(tmp_path / "x.db")
    await store.close()
    assert not held_for_others(tmp_path / "x.db")


def held_for_others(path: Path) -> bool:
    """Ask a process of its own whether the file is free."""
    ask = "import asyncio, sys; from lineshaft.store.sqlite import SQLiteStore as S; s = S(sys.argv[1]);"
    ask += "asyncio.run(s.open(address='b'))"
    done = subprocess.run([sys.executable, "-c", ask, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "StoreInUse" in done.stderr
    return done.returncode != 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_neither_holds_nor_steals_nor_frees(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")
    await store.open(address="a")
    told, tell = os.pipe()
    wait, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, in_child(store, tmp_path / "x.db").encode())
        os.read(wait, 1)
        os._exit(0)
    try:
        answer = await asyncio.to_thread(os.read, told, 4096)
        assert answer.decode() == f"StoreInUse StoreInUse closed {os.getpid()}"
        assert held_for_others(tmp_path / "x.db")
        await store.acquire(0, b"still ours")
        await store.close()
        # The child is still alive, and does not keep anybody out.
        await open_and_close(tmp_path / "x.db")
        assert not held_for_others(tmp_path / "x.db")
    finally:
        os.write(go_on, b"!")
        await asyncio.to_thread(os.waitpid, child, 0)
        for descriptor in (told, tell, wait, go_on):
            os.close(descriptor)


def in_child(store: SQLiteStore, path: Path) -> str:
    """Use the inherited store, open the file anew, close the inherited store: nothing may succeed or hurt."""
    said = []
    for attempt in (store.acquire(0, b"child"), SQLiteStore(path).open(address="child")):
        try:
            attempt.send(None)
        except StoreInUse as error:
            said.append(type(error).__name__)
            holder = error.reason
    try:
        store.close().send(None)
    except StopIteration:
        said.append("closed")
    said.append(str(os.getppid()) if str(os.getppid()) in holder else holder)
    return " ".join(said)


def test_the_lock_file_is_not_inherited_by_programs(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "x.db"), address="a")
    try:
        assert not os.get_inheritable(lock._descriptor)
    finally:
        lock.release()
        lock.release()


async def test_a_lock_file_with_anything_in_it_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "x.db.lock").write_bytes(b"\xff not JSON" * 1_000)
    await open_and_close(tmp_path / "x.db")


def test_a_lock_that_cannot_be_made_is_told() -> None:
    with pytest.raises(StoreUnusable, match="cannot be made"):
        FileLock("/proc/x.db", address="a")


MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /srv rw shared:1 - nfs4 server:/srv rw
31 30 0:41 / /srv/local rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:43 / /over rw - ext4 /dev/vdc rw
34 22 0:44 / /over rw master:7 - fuse.sshfs you@there: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/x", "nfs4"),
        ("/srvx", "ext4"),
        ("/srv/local/deep/er", "xfs"),
        ("/mnt/my share/x", "cifs"),
        ("/over/x", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert file_system(path, mounts=str(tmp_path / "mountinfo")) == kind


def test_the_file_system_is_unknown_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert file_system("/", mounts=str(tmp_path / "none")) is None
    (tmp_path / "odd").write_text("something else\n")
    assert file_system("/", mounts=str(tmp_path / "odd")) is None


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")),
        *((kind, None) for kind in ("fuse", "fuseblk", "fuse.something", "virtiofs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs")),
    ],
)
def test_a_network_file_system_is_known_by_its_type(kind: str, verdict: bool | None) -> None:
    assert is_network(kind) is verdict
