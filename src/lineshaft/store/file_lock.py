"""The exclusive use of a file by one process, and whether the place of the file can be trusted with it.

A POSIX record lock on `<file>.lock` is held for the life of the store. The system drops it when the process
ends, however it ends, so a restart after kill -9 never waits. A record lock belongs to the process and not to
the descriptor: a forked child does not hold it, cannot give it away by closing its copy, and keeps nobody
out; `O_CLOEXEC` spares programs that are executed the descriptor. What a record lock cannot do is tell two
holders within one process apart, and closing any descriptor of the file would drop it; hence `_held`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading

import msgspec

from lineshaft.store.base import StoreInUse, StoreUnusable

_NETWORK = re.compile(
    r"nfs\d*|cifs|smb\d|smbfs|ncpfs|afs|ceph|coda|gfs2?|glusterfs|gpfs|lustre|9p|ocfs2|orangefs|pvfs2|beegfs|davfs"
    r"|fuse\.(sshfs|glusterfs|s3fs|rclone|gcsfuse|ceph|davfs2?|cvmfs2?|juicefs|smbnetfs|goofys|moosefs|nfs)"
)
_UNTOLD = re.compile(r"fuse.*|virtiofs|drvfs|vboxsf|prl_fs")
"""File systems that may be local or not."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds the file, as the lock file tells those who come later."""

    pid: int
    host: str
    address: str


_held: dict[tuple[int, int], Holder] = {}
"""Who holds each lock file (device, inode); a forked child sees that it is not itself."""
_held_guard = threading.Lock()


# Else a child could find it held by a thread that is only the parent's.
os.register_at_fork(
    before=_held_guard.acquire, after_in_parent=_held_guard.release, after_in_child=_held_guard.release
)


def holder_of(path: str) -> Holder | None:
    """Return who says to hold `path` (the real one), None where nobody does; it may have ended since."""
    place = f"{path}.lock"
    with _held_guard:
        try:
            status = os.stat(place)
            ours = _held.get((status.st_dev, status.st_ino))
            if ours is not None and ours.pid == os.getpid():
                return ours  # to open and close the file would give the lock free
            with open(place, "rb") as file:
                written = file.read(4096)
        except OSError:
            return None
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(written, type=Holder)
    return None


class FileLock:
    """Hold `<path>.lock`; `path` must be the real one, so that two names of a file have one lock."""

    def __init__(self, path: str, *, address: str) -> None:
        """Take the lock at once. Raises `StoreInUse`, naming the holder."""
        self._path = path
        with _held_guard:
            descriptor = self._open()
            status = os.fstat(descriptor)
            self._key = (status.st_dev, status.st_ino)
            self._lock(descriptor)
            self._pid = os.getpid()
            self._descriptor = descriptor
            self._tell(address)

    def tell(self, address: str) -> None:
        """Tell those who come later another address."""
        with _held_guard:
            if self._key in _held and self._pid == os.getpid():
                self._tell(address)

    def release(self) -> None:
        """Give the file free. In a forked child nothing happens: the lock is its parent's."""
        if self._pid != os.getpid():
            return
        with _held_guard:
            if _held.pop(self._key, None) is None:
                return
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)

    def _tell(self, address: str) -> None:
        _held[self._key] = holder = Holder(self._pid, os.uname().nodename, address)
        with contextlib.suppress(OSError):  # a full disk: the lock holds, though it does not say whose it is
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, msgspec.json.encode(holder) + b"\n", 0)

    def _open(self) -> int:
        place = f"{self._path}.lock"
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(place)
            holder = _held.get((status.st_dev, status.st_ino))
            if holder is not None and holder.pid == os.getpid():
                raise StoreInUse(
                    f"{self._path} is open in this process ({os.getpid()}) already: share that store"
                )
        try:
            return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnusable(f"{place} cannot be made or written: {error.strerror}") from None

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            reason = _in_use(self._path, os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise StoreInUse(reason) from None
        except OSError as error:
            os.close(descriptor)
            raise StoreUnusable(f"{self._path}.lock cannot be locked ({error}): use a local disk") from None


def _in_use(path: str, written: bytes) -> str:
    advice = "Stop it, connect to it, or name another file."
    with contextlib.suppress(msgspec.MsgspecError):
        holder = msgspec.json.decode(written, type=Holder)
        where = "" if holder.host == os.uname().nodename else f" on {holder.host}"
        return f"{path} is in use by process {holder.pid}{where}, which serves {holder.address}. {advice}"
    return f"{path} is in use by another process. {advice}"


def file_system(path: str, *, mounts: str = "/proc/self/mountinfo") -> str | None:
    """Return the type of the file system that holds `path` (absolute), such as "ext4"; None where unknown."""
    found: tuple[int, str] | None = None
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                place, kind = _mount(line)
                # A later mount at the same place hides the earlier one.
                if _is_under(path, place) and (found is None or len(place) >= found[0]):
                    found = (len(place), kind)
    except (OSError, ValueError, IndexError):
        return None
    return None if found is None else found[1]


def _mount(line: str) -> tuple[str, str]:
    before, _, after = line.partition(" - ")
    place = before.split(" ")[4]
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        place = place.replace(code, character)
    return place, after.split(" ")[0]


def _is_under(path: str, place: str) -> bool:
    return place == "/" or path == place or path.startswith(place + "/")


def is_network(kind: str) -> bool | None:
    """Tell whether a file system is reached over a network; None where its type does not tell."""
    if _NETWORK.fullmatch(kind):
        return True
    return None if _UNTOLD.fullmatch(kind) else False
