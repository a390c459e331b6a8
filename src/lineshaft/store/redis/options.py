"""What a URL says: `redis://user:password@host:6379/0?prefix=jobs`, with TLS, Sentinel or as a Cluster."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from lineshaft.errors import Invalid

SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+sentinel",
    "rediss+sentinel",
    "valkey+sentinel",
    "valkeys+sentinel",
)
DEFAULT_SHARDS = 16
_PORT = 6379
_SENTINEL_PORT = 26379
_SECRET = ("password", "sentinel_password")
_KNOWN = (
    "ca",
    "cert",
    "cluster",
    "db",
    "key",
    "password",
    "prefix",
    "sentinel_password",
    "sentinel_username",
    "shards",
    "timeout",
    "username",
    "wait",
)

Address = tuple[str, int]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are, how they are reached, and what the store is called there."""

    url: str
    """Without secrets."""
    hosts: tuple[Address, ...]
    """Servers; sentinels where `service` is given; some nodes where it is a cluster."""
    tls: bool = False
    service: str | None = None
    """What the sentinels call the primary."""
    cluster: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    prefix: str = "lineshaft"
    shards: int | None = None
    """How many a new store gets; None for whatever is there, or the default."""
    wait: int = 0
    """Replicas that must have a commit before it counts."""
    timeout: float = 5.0
    """Seconds that a connection and an answer may take."""


def parse(url: str, given: Mapping[str, str]) -> Options:
    """Read a URL without its query, and the options. Raises `Invalid` (field "store")."""
    parts = urlsplit(url)
    for name in given:
        if name not in _KNOWN:
            raise _refused(
                f"a store of kind {parts.scheme} has no option {name!r}: it takes {', '.join(_KNOWN)}"
            )
    sentinel = parts.scheme.endswith("+sentinel")
    cluster = _flag(given, "cluster")
    service, db = _path(parts, given, sentinel=sentinel)
    if cluster and (sentinel or db):
        raise _refused("a cluster has neither sentinels nor a database number: leave one of them out")
    kind, plus, finder = parts.scheme.partition("+")
    tls = kind in ("rediss", "valkeys")
    if not tls and any(name in given for name in ("ca", "cert", "key")):
        raise _refused(f"ca, cert and key are for TLS: write {kind}s{plus}{finder}://")
    wait = _number(given, "wait", 0, low=0, high=99)
    if wait and cluster:
        raise _refused("wait cannot be had with cluster=true")
    hosts = _hosts(parts, _SENTINEL_PORT if sentinel else _PORT)
    if len(hosts) > 1 and not (sentinel or cluster):
        raise _refused(
            "several hosts are sentinels (redis+sentinel://…/mymaster) or a cluster (?cluster=true)"
        )
    username = given.get("username") or (unquote(parts.username) if parts.username else None)
    password = given.get("password") or (unquote(parts.password) if parts.password else None)
    shards = _number(given, "shards", 0, low=1, high=4096) if "shards" in given else None
    return Options(
        url=_shown(parts, given, username, password),
        hosts=hosts,
        tls=tls,
        service=service,
        cluster=cluster,
        db=db,
        username=username,
        password=password,
        sentinel_username=given.get("sentinel_username"),
        sentinel_password=given.get("sentinel_password"),
        ca=given.get("ca"),
        cert=given.get("cert"),
        key=given.get("key"),
        prefix=_prefix(given.get("prefix", "lineshaft")),
        shards=shards,
        wait=wait,
        timeout=_seconds(given.get("timeout", "5")),
    )


def _hosts(parts: SplitResult, port: int) -> tuple[Address, ...]:
    hosts = []
    for each in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{each}")
        try:
            hosts.append((one.hostname or "", one.port or port))
        except ValueError:
            raise _refused(f"{each!r} is not host:port") from None
    if not all(host for host, _ in hosts):
        raise _refused(f"the URL names no host: use {parts.scheme}://localhost:{port}")
    return tuple(hosts)


def _path(parts: SplitResult, given: Mapping[str, str], *, sentinel: bool) -> tuple[str | None, int]:
    path = [unquote(each) for each in parts.path.split("/") if each]
    service = None
    if sentinel:
        if not path:
            raise _refused(f"say what the sentinels call the primary: {parts.scheme}://h1,h2,h3/mymaster")
        service = path.pop(0)
    if len(path) > 1 or (path and "db" in given):
        raise _refused(
            f"the path of the URL is one database number, not {parts.path!r} with db={given.get('db')}"
        )
    number = path[0] if path else given.get("db", "0")
    return service, _number({"db": number}, "db", 0, low=0, high=1_000_000)


def _number(given: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise _refused(f"{name} is a number from {low} to {high}, not {text!r}")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise _refused(f"{name} is true or false, not {text!r}")
    return text in ("true", "1")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.05 <= seconds <= 600:
        raise _refused(f"timeout is seconds from 0.05 to 600, not {text!r}")
    return seconds


def _prefix(text: str) -> str:
    if not text or len(text) > 128 or any(each in "{}" or not each.isprintable() for each in text):
        raise _refused(f"prefix is what keys begin with, without braces, not {text!r}")
    return text


def _shown(parts: SplitResult, given: Mapping[str, str], username: str | None, password: str | None) -> str:
    who = f"{quote(username or '')}{':***' if password else ''}@" if username or password else ""
    shown = {name: text for name, text in given.items() if name not in (*_SECRET, "username")}
    query = "&".join(f"{name}={quote(text, safe='/,:')}" for name, text in shown.items())
    place = f"{parts.scheme}://{who}{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{place}?{query}" if query else place


def _refused(reason: str) -> Invalid:
    return Invalid(reason, field="store")
