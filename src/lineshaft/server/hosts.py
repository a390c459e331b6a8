"""Which `Host` headers are served: a web page must not reach us by a name that it made point here."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def split_address(listen: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` (an IPv6 host in brackets). Raises `ValueError`."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:7077, not {listen!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AllowedHosts:
    """Decide over `Host` headers. Ports do not matter: rebinding changes names, forwarding changes ports."""

    def __init__(self, listen_host: str, extra: Iterable[str] = ()) -> None:
        names = {name.lower() for name in extra}
        self._all = "*" in names
        # An address in numbers cannot be rebound; it is needed where one listens on all of them.
        self._any_address = not is_loopback(listen_host) and _is_unspecified(listen_host)
        self._names = LOOPBACK_NAMES | names | {listen_host.lower()}
        if not is_loopback(listen_host):
            self._names |= {socket.gethostname().lower()}
        self._known: dict[bytes, bool] = {}

    def allows(self, header: bytes) -> bool:
        """Tell whether the value of a `Host` header (or the authority of an `Origin`) is one of ours."""
        known = self._known.get(header)
        if known is None:
            known = self._judge(header)
            if len(self._known) < 100:
                self._known[header] = known
        return known

    def _judge(self, header: bytes) -> bool:
        if self._all:
            return True
        try:
            name = _name_of(header.decode("ascii").lower())
        except ValueError:
            return False
        return name in self._names or (self._any_address and _is_address(name))


def _name_of(authority: str) -> str:
    if authority.startswith("["):
        name, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(authority)
        port = rest[1:]
    else:
        name, _, port = authority.partition(":")
    if port and not (port.isdigit() and int(port) <= 65_535):
        raise ValueError(authority)
    return name.removesuffix(".")


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
