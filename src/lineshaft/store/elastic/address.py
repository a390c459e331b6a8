"""What a URL says of a cluster: `elasticsearch://user:password@h1:9200,h2:9200/prefix?ca=…&shards=16`.

Options: `tls` (true or false), `ca` (file of the authority that signed the certificates; implies TLS),
`api_key` (`id:key`, or both encoded as the cluster gave them), `shards` (fixed when the store is made),
`history` (on or off: an event for each move of a task, in a data stream).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

from lineshaft.errors import Invalid

KINDS = ("elasticsearch", "opensearch")
OPTIONS = ("tls", "ca", "api_key", "shards", "history")

DEFAULT_PREFIX = "lineshaft"
DEFAULT_PORT = 9200
DEFAULT_SHARDS = 16
MOST_SHARDS = 1024

_PREFIX = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]@/]+)(?::(?P<port>[0-9]{1,5}))?")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, how to get in, and where in it the store is."""

    kind: str
    hosts: tuple[tuple[str, int], ...]
    prefix: str
    user: str | None = None
    password: str | None = None
    api_key: str | None = None
    tls: bool = False
    ca: str | None = None
    shards: int | None = None
    """None where the URL leaves it to the store that is there."""
    history: bool = False

    @property
    def authorization(self) -> str | None:
        """Return the header's value, None where nobody has to say who they are."""
        if self.api_key is not None:
            key = self.api_key
            encoded = base64.b64encode(key.encode()).decode() if ":" in key else key
            return f"ApiKey {encoded}"
        if self.user is not None:
            return "Basic " + base64.b64encode(f"{self.user}:{self.password or ''}".encode()).decode()
        return None

    @property
    def shown(self) -> str:
        """Return the URL without its secrets."""
        login = "" if self.user is None else f"{quote(self.user, safe='')}:***@"
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        options = {
            "tls": "true" if self.tls and self.ca is None else None,
            "ca": None if self.ca is None else quote(self.ca, safe="/"),
            "api_key": None if self.api_key is None else "***",
            "shards": self.shards,
            "history": "on" if self.history else None,
        }
        query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
        return f"{self.kind}://{login}{hosts}/{self.prefix}" + (f"?{query}" if query else "")


def read_address(kind: str, place: str, options: Mapping[str, str]) -> Address:
    """Read what stands between `://` and `?`, and the options after it. Raises `Invalid` (field "store")."""
    for name in options:
        if name not in OPTIONS:
            raise _wrong(f"a store of kind {kind} has no option {name!r}: it takes {', '.join(OPTIONS)}")
    authority, _, prefix = place.partition("/")
    login, at, hosts = authority.rpartition("@")
    user, colon, password = login.partition(":")
    if at and not user:
        raise _wrong("the user's name is missing before '@' in the store's URL")
    if at and "api_key" in options:
        raise _wrong("a store takes a user and a password or an api_key, not both")
    prefix = unquote(prefix.rstrip("/")) or DEFAULT_PREFIX
    if not _PREFIX.fullmatch(prefix):
        raise _wrong(
            f"the prefix of the store's indices is {prefix!r}: use lower-case letters, digits, '-', '_' "
            "and '.', a letter or digit first, at most 100"
        )
    ca = options.get("ca") or None
    tls = _switch(options, "tls", ("false", "true"))
    if ca is not None and options.get("tls", "true") == "false":
        raise _wrong("ca is for TLS: leave out tls=false")
    return Address(
        kind=kind,
        hosts=tuple(_host(text) for text in hosts.split(",")),
        prefix=prefix,
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
        api_key=options.get("api_key") or None,
        tls=tls or ca is not None,
        ca=ca,
        shards=_shards(options),
        history=_switch(options, "history", ("off", "on")),
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise _wrong(
            f"{text!r} is not a host of a cluster: use host:{DEFAULT_PORT}, several with commas between"
        )
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 65_536:
        raise _wrong(f"{port} is not a port: use 1 to 65535")
    return found["host"], port


def _shards(options: Mapping[str, str]) -> int | None:
    text = options.get("shards")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_SHARDS:
        raise _wrong(f"shards is a number from 1 to {MOST_SHARDS}, not {text!r}")
    return int(text)


def _switch(options: Mapping[str, str], name: str, words: tuple[str, str]) -> bool:
    text = options.get(name, words[0])
    if text not in words:
        raise _wrong(f"{name} is {words[0]} or {words[1]}, not {text!r}")
    return text == words[1]


def _wrong(reason: str) -> Invalid:
    return Invalid(reason, field="store")
