"""The unix socket by which the processes of one user reach whoever of them has a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import struct
import tempfile
from urllib.parse import quote

LONGEST_PATH = 103
"""Bytes that the path of a socket may have everywhere: 107 on Linux, 103 elsewhere."""

_BACKLOG = 2_048


class ListeningSocket:
    """A socket that only this user can connect to, at a place of its own."""

    def __init__(self, file: str) -> None:
        """Listen beside `file` (a real path, which this process has locked), or in a private folder where
        that cannot be. Raises OSError.
        """
        self._folder: str | None = None
        beside = f"{file}.sock"
        try:
            if len(os.fsencode(beside)) > LONGEST_PATH:
                raise OSError(f"{beside} is too long for a socket")
            self.path, self.socket = beside, _listen(beside)
        except OSError:
            self._folder, own = _private_folder()
            name = hashlib.sha256(os.fsencode(file)).hexdigest()[:24]
            self.path = os.path.join(self._folder, f"{name}.sock")
            self.socket = _listen(self.path)
            if not own:
                self._folder = None
        self._place = _place(self.path)

    @property
    def url(self) -> str:
        """Where others connect."""
        return f"unix://{quote(self.path)}"

    def close(self) -> None:
        """Listen no more, and remove the name where it is still ours; idempotent."""
        self.socket.close()
        place, self._place = self._place, None
        if place is not None and _place(self.path) == place:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)


def peer_is_ours(connected: socket.socket) -> bool:
    """Tell whether the other end of a connected unix socket is of this user."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        place = connected.getpeername()
        return bool(place) and os.stat(place).st_uid == os.geteuid()
    raw = connected.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return bool(uid == os.geteuid())


def _listen(path: str) -> socket.socket:
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):
            # Linux gives the name this mode from the first moment on.
            os.fchmod(listening.fileno(), 0o600)
        listening.bind(path)
        os.chmod(path, 0o600)
        # Nobody can connect before this.
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove the socket of an owner that was killed: whoever has the lock of the file is the only one."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(f"{path} is not a socket")
    os.unlink(path)


def _private_folder() -> tuple[str, bool]:
    """Return a folder that nobody else can enter, and whether it was made for this socket alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for place in (
        os.path.join(runtime, "lineshaft") if os.path.isabs(runtime) else None,
        os.path.join(tempfile.gettempdir(), f"lineshaft-{os.geteuid()}"),
    ):
        if place is not None and len(os.fsencode(place)) + 32 <= LONGEST_PATH and _is_private(place):
            return place, False
    return tempfile.mkdtemp(prefix="lineshaft-", dir="/tmp"), True


def _is_private(folder: str) -> bool:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _place(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
