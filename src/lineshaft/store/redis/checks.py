"""What is asked of a server before it is trusted with tasks, and what a commit on it survives."""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.store.base import StoreUnusable
from lineshaft.store.redis.client import Client
from lineshaft.store.redis.options import Options

OLDEST = (6, 2)
TIERS = ("none", "process crash", "power loss")


class Findings(msgspec.Struct, frozen=True):
    """The tier, and what people should know."""

    tier: str
    notices: tuple[str, ...]


async def check(client: Client, options: Options) -> Findings:
    """Look at every primary. Raises `StoreUnusable` with the line to set."""
    info = await client.everywhere(("INFO",))
    syncs = await _settings(client, "appendfsync", len(info))
    tiers, notices = [], []
    for text, sync in zip(info, syncs, strict=True):
        facts = _facts(text)
        _require(facts, options)
        tier, notice = _tier(facts, sync, options)
        tiers.append(tier)
        notices += [notice] if notice else []
    return Findings(min(tiers, key=_rank), tuple(dict.fromkeys(notices)))


def _require(facts: dict[str, str], options: Options) -> None:
    version = facts.get("redis_version", "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise StoreUnusable(f"the server at {options.url} is Redis {version}: 6.2 is the oldest that will do")
    if facts.get("role") == "slave":
        primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
        raise StoreUnusable(f"the server at {options.url} is a replica: name its primary, {primary}")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreUnusable(
            f"the server at {options.url} would evict tasks when its memory is full (maxmemory-policy is"
            f" {policy}): put the line `maxmemory-policy noeviction` in its configuration, or run"
            " `redis-cli config set maxmemory-policy noeviction`"
        )


def _tier(facts: dict[str, str], sync: str | None, options: Options) -> tuple[str, str | None]:
    if facts.get("aof_enabled") != "1":
        return "none", (
            "the server writes no append-only file, so a restart loses tasks: set `appendonly yes`"
            " and `appendfsync always`"
        )
    notice = None
    if sync is None:
        sync, notice = (
            "everysec",
            ("appendfsync could not be read, since the server forbids CONFIG: it is taken for everysec"),
        )
    replicas = int(facts.get("connected_slaves", 0))
    if replicas < options.wait:
        notice = f"wait={options.wait}, but {replicas} replicas follow: no commit counts until more do"
    if replicas > options.wait:
        return "asynchronous replica", notice
    return "power loss" if sync == "always" else "process crash", notice


def _rank(tier: str) -> int:
    order = ("none", "asynchronous replica", "process crash", "power loss")
    return order.index(tier)


async def _settings(client: Client, name: str, count: int) -> list[str | None]:
    """Read a setting of every primary; None where CONFIG is forbidden, as managed services do."""
    import redis

    try:
        answers = await client.everywhere(("CONFIG", "GET", name))
    except redis.ResponseError:
        return [None] * count
    return [_setting(answer) for answer in answers]


def _setting(answer: Any) -> str | None:
    values = list(answer.values()) if isinstance(answer, dict) else answer[1::2]
    return _text(values[0]) if values else None


def _facts(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return {key: _text(value) for key, value in answer.items()}
    lines = _text(answer).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
