"""Beneath SQLite, in this process: a file system that kills, tears or refuses the write one names.

SQLite reaches its files through a table of functions. The one that it uses is copied, and the functions that
change files are replaced by ours, which count and then do as before, or not.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

import msgspec

_OK = 0
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_CODES = {"ioerr_write": 778, "ioerr_fsync": 1034, "full": 13, "ioerr_truncate": 1546, "ioerr_delete": 2570}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What happens at the `at`-th change of a file, counted from 1.

    `do`: `kill` this process before the change, `tear` it in half and kill the process, or answer with an
    `error` of the disk, or that it is `full`, so many `times`.
    """

    at: int = 0
    do: str = "kill"
    times: int = 1


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`; what is not replaced is only a pointer."""

    _fields_ = (
        ("version", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("close", "read", "write", "truncate", "sync")),
        ("rest", ctypes.c_void_p * 13),
    )


class _File(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", ctypes.c_void_p),)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("delete", ctypes.c_void_p),
        ("rest", ctypes.c_void_p * 14),
    )


_FILE = ctypes.POINTER(_File)
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, _FILE, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int)


def library() -> ctypes.CDLL | None:
    """Return the very SQLite that the module `sqlite3` uses; None where it hides its functions."""
    for place in (getattr(_sqlite3, "__file__", None), None):
        loaded = ctypes.CDLL(place)
        if hasattr(loaded, "sqlite3_vfs_register"):
            return loaded
    return None


class FailingVfs:
    """The file system under a plan. `count` is how often files were changed so far."""

    def __init__(self, sqlite: ctypes.CDLL, plan: Plan) -> None:
        self.count = 0
        self._plan = plan
        self._kept: dict[int, tuple[_Methods, list[Any]]] = {}
        sqlite.sqlite3_vfs_find.restype = ctypes.c_void_p
        self._below = sqlite.sqlite3_vfs_find(None)
        below = _Vfs.from_address(self._below)
        self._open_below = _OPEN(below.open)
        self._delete_below = _DELETE(below.delete)
        self._vfs = _Vfs.from_buffer_copy(below)
        self._vfs.name = b"failing"
        self._callbacks = (_OPEN(self._open), _DELETE(self._delete))
        self._vfs.open, self._vfs.delete = (ctypes.cast(c, ctypes.c_void_p) for c in self._callbacks)
        if sqlite.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) != _OK:
            raise RuntimeError("SQLite does not take the file system")

    def _open(self, vfs: int, name: int, file: Any, flags: int, out_flags: Any) -> int:
        code = self._open_below(self._below, name, file, flags, out_flags)
        if code == _OK and file.contents.methods:
            file.contents.methods = ctypes.addressof(self._failing(file.contents.methods))
        return int(code)

    def _failing(self, address: int) -> _Methods:
        """Return the table of functions for files whose table is at `address`."""
        if address not in self._kept:
            below = _Methods.from_address(address)
            ours = _Methods.from_buffer_copy(below)
            callbacks = [
                _WRITE(self._write(_WRITE(below.write))),
                _TRUNCATE(self._change(_TRUNCATE(below.truncate), "ioerr_truncate")),
                _SYNC(self._change(_SYNC(below.sync), "ioerr_fsync")),
            ]
            ours.write, ours.truncate, ours.sync = (ctypes.cast(c, ctypes.c_void_p) for c in callbacks)
            self._kept[address] = (ours, callbacks)
        return self._kept[address][0]

    def _write(self, below: Callable[..., int]) -> Callable[[Any, int, int, int], int]:
        def write(file: Any, data: int, size: int, offset: int) -> int:
            if self._is_due() and self._plan.do == "tear":
                below(file, data, size // 2, offset)
            return self._judge("ioerr_write") or below(file, data, size, offset)

        return write

    def _change(self, below: Callable[..., int], error: str) -> Callable[[Any, int], int]:
        return lambda file, argument: self._judge(error) or below(file, argument)

    def _delete(self, vfs: int, name: bytes, sync: int) -> int:
        return self._judge("ioerr_delete") or int(self._delete_below(self._below, name, sync))

    def _is_due(self) -> bool:
        return self.count + 1 == self._plan.at

    def _judge(self, error: str) -> int:
        """Count a change, and return the code with which it fails, 0 where it may go on."""
        self.count += 1
        plan = self._plan
        if not plan.at <= self.count < plan.at + plan.times or not plan.at:
            return _OK
        if plan.do in ("kill", "tear"):
            os.kill(os.getpid(), signal.SIGKILL)
        return _CODES["full" if plan.do == "full" else error]


_installed: list[FailingVfs] = []
"""SQLite keeps pointers to what they hold for as long as the process lives."""


def install(plan: Plan) -> FailingVfs:
    """Put the plan into force for all files that SQLite opens from now on."""
    sqlite = library()
    if sqlite is None:
        raise RuntimeError("this Python's SQLite hides its functions")
    _installed.append(FailingVfs(sqlite, plan))
    return _installed[-1]
