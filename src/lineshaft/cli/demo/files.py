"""The files of the demo: found once to make tasks of them, and again, by other means, for the proof."""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

CHUNK = 1 << 20
NOT_THE_LIBRARY = frozenset({"site-packages", "dist-packages"})
"""What is installed beneath the standard library without being part of it."""


class Listing(msgspec.Struct):
    """Regular files under a directory, and what was passed over there."""

    files: list[str] = []
    links: int = 0
    special: int = 0
    closed: int = 0
    """Directories that cannot be read."""


class Measurement(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a worker found out about a file; `unreadable` says why where it could not."""

    sha256: str | None = None
    bytes: int = 0
    lines: int = 0
    modified: int = 0
    """Its mtime in nanoseconds, by which a file that changed meanwhile is known."""
    unreadable: str | None = None


def standard_library() -> Path:
    """Return the directory of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_files(root: Path, leave_out: frozenset[str] = frozenset()) -> Listing:
    """List every regular file under `root`; symbolic links are not followed, so there are no loops."""
    found = Listing()
    pending = [str(root)]
    while pending:
        directory = pending.pop()
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError:
            found.closed += 1
            continue
        for entry in entries:
            if entry.is_symlink():
                found.links += 1
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in leave_out:
                    pending.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                found.files.append(entry.path)
            else:
                found.special += 1
    return found


def walk_again(root: Path, leave_out: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the same files by the standard library's own walk."""
    for directory, below, names in os.walk(root, followlinks=False):
        below[:] = [name for name in below if name not in leave_out]
        for name in names:
            path = os.path.join(directory, name)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode):
                yield path


def task_id(path: str) -> str:
    """Return the id of a file's task: the same file, the same task, however often it is enqueued."""
    return f"file-{hashlib.sha256(os.fsencode(path)).hexdigest()[:40]}"


def spelled(path: str) -> str:
    """Return a path in a form that JSON can carry whatever bytes are in it (percent-encoded)."""
    return quote_from_bytes(os.fsencode(path))


def unspelled(text: str) -> str:
    """Undo `spelled`."""
    return os.fsdecode(unquote_to_bytes(text))


def measure_file(path: str) -> Measurement:
    """Hash and measure a file; one that cannot be read is measured as that."""
    try:
        # Without O_NONBLOCK, a pipe that has taken the place of the file would hold us up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Measurement(unreadable=error.strerror or type(error).__name__)
    try:
        return _measure(descriptor)
    except OSError as error:
        return Measurement(unreadable=error.strerror or type(error).__name__)
    finally:
        os.close(descriptor)


def _measure(descriptor: int) -> Measurement:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return Measurement(unreadable="not a regular file any more")
    digest = hashlib.sha256()
    size = lines = 0
    while chunk := os.read(descriptor, CHUNK):
        digest.update(chunk)
        size += len(chunk)
        lines += chunk.count(b"\n")
    return Measurement(sha256=digest.hexdigest(), bytes=size, lines=lines, modified=status.st_mtime_ns)
