"""From a method and a raw path to the call that is meant, and its parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lineshaft.errors import LineshaftError, Malformed, MethodNotAllowed, NotFound
from lineshaft.wire import Call

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class NoSuchMethod(MethodNotAllowed):
    """The path exists with other methods: `allowed` lists them."""

    def __init__(self, reason: str, allowed: Iterable[str]) -> None:
        super().__init__(reason)
        self.allowed = sorted(allowed)


class Router:
    """Match requests to calls. Paths are split before they are decoded, so an id may hold `/`."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._fixed: dict[str, dict[str, Call]] = {}
        self._open: dict[tuple[str, str], dict[str, Call]] = {}
        for call in calls:
            if "{id}" in call.path:
                before, after = call.path.split("{id}")
                methods = self._open.setdefault((before, after), {})
            else:
                methods = self._fixed.setdefault(call.path, {})
            methods[call.method] = call
            if call.method == "GET":
                methods["HEAD"] = call

    def match(self, method: str, raw_path: str) -> tuple[Call, str | None]:
        """Return the call and its decoded parameter. Raises `NotFound`, `MethodNotAllowed`, `Malformed`."""
        fixed = self._fixed.get(raw_path)
        if fixed is not None:
            return _chosen(fixed, method, raw_path), None
        before, segment, after = _split(raw_path)
        methods = self._open.get((before, after))
        if methods is None or not segment:
            raise NotFound(f"there is nothing at {_shown(raw_path)}")
        if segment.startswith("_") and before == "/_tasks/":
            raise NotFound(
                f"there is nothing at {_shown(raw_path)}; task ids do not start with _", field="task_id"
            )
        return _chosen(methods, method, raw_path), unquote(segment, field=_FIELDS.get(before, "id"))


_FIELDS = {"/_tasks/": "task_id", "/_queues/": "queue", "/_workers/": "worker_id", "/_keys/": "key_id"}


def _split(raw_path: str) -> tuple[str, str, str]:
    """Return `("/_tasks/", "{id}", "/_complete" or "")`."""
    slash = raw_path.find("/", 1)
    if slash < 0:
        return raw_path, "", ""
    end = raw_path.find("/", slash + 1)
    if end < 0:
        return raw_path[: slash + 1], raw_path[slash + 1 :], ""
    return raw_path[: slash + 1], raw_path[slash + 1 : end], raw_path[end:]


def _chosen(methods: dict[str, Call], method: str, raw_path: str) -> Call:
    call = methods.get(method)
    if call is None:
        raise NoSuchMethod(f"{_shown(raw_path)} does not take {method}", methods)
    return call


def unquote(text: str, *, field: str | None = None) -> str:
    """Decode percent-escapes strictly. Raises `Malformed` for broken ones and what is not UTF-8."""
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise Malformed("a % must be followed by two hex digits", field=field)
    raw = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("percent-encoded text must be UTF-8", field=field) from None


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def _shown(raw_path: str) -> str:
    return raw_path if len(raw_path) <= 200 else raw_path[:200] + "…"


__all__ = ["LineshaftError", "NoSuchMethod", "Router", "unquote"]
