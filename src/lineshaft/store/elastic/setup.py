"""Indices, templates and the documents that a new store begins with; and what a cluster must be."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.base import SchemaTooNew, StoreCorrupt, StoreUnusable
from lineshaft.store.elastic import templates
from lineshaft.store.elastic.address import DEFAULT_SHARDS, Address
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.documents import LONGEST_KEYWORD
from lineshaft.store.elastic.names import Names, alias
from lineshaft.store.elastic.refusals import cause
from lineshaft.store.elastic.shard import Checkpoint

SCHEMA = 1
SUPPORTED = {"elasticsearch": (8, 9), "opensearch": (2, 3)}

_KEYWORD = {"type": "keyword", "ignore_above": LONGEST_KEYWORD}
_LONG = {"type": "long"}
_INSTANT = {"type": "date", "format": "epoch_millis"}
_STORED = {"type": "object", "enabled": False}
_BYTES = {"type": "binary"}
_BOOLEAN = {"type": "boolean"}

_UNSEARCHED = {"index": False, "doc_values": False}

LOG: dict[str, Any] = {
    "settings": {
        "index": {
            "number_of_shards": 1,
            "auto_expand_replicas": "0-2",
            "refresh_interval": "-1",
            # A restart replays what was not flushed; 300,000 commits took 18 s.
            "translog": {"durability": "request", "flush_threshold_size": "64mb"},
        }
    },
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "kind": {"type": "keyword", **_UNSEARCHED},
            "epoch": {"type": "long", **_UNSEARCHED},
            "owner": _BYTES,
            "nonce": _BYTES,
            "position": {"type": "long", **_UNSEARCHED},
            "at": {"type": "long", **_UNSEARCHED},
            "next_generation": {"type": "long", **_UNSEARCHED},
            "rows": _STORED,
        },
    },
}

CONTROL: dict[str, Any] = {
    "settings": {
        "index": {
            "number_of_shards": 1,
            "auto_expand_replicas": "0-2",
            "refresh_interval": "-1",
            "translog": {"durability": "request"},
        }
    },
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "what": _KEYWORD,
            "slot": _LONG,
            "shard": {"type": "integer"},
            "kind": _KEYWORD,
            "tenant": _KEYWORD,
            "key": _KEYWORD,
            "gone": _BOOLEAN,
            "data": _STORED,
        },
    },
}

_PROJECTION = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    # One sync for each bulk. Without it a node that restarts under a coordinator loses what it has answered,
    # and nobody notices: a flush afterwards keeps only what is left.
    "translog": {"durability": "request"},
}

TASKS: dict[str, Any] = {
    "settings": {"index": _PROJECTION},
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "slot": _LONG,
            "shard": {"type": "integer"},
            "seq": _LONG,
            "tenant": _KEYWORD,
            "partition": {"type": "integer"},
            "task_id": _KEYWORD,
            "name": _KEYWORD,
            "queue": _KEYWORD,
            "state": _KEYWORD,
            "priority": _LONG,
            "run_at": _INSTANT,
            "created_at": _INSTANT,
            "started_at": _INSTANT,
            "finished_at": _INSTANT,
            "prune_at": _INSTANT,
            "result_expires_at": _INSTANT,
            "tags": _KEYWORD,
            "attempt": {"type": "integer"},
            "lost_leases": {"type": "integer"},
            "worker_id": _KEYWORD,
            "reason": _KEYWORD,
            "error": {"properties": {"type": _KEYWORD, "message": _KEYWORD}},
            "trace": {"properties": {"id": _KEYWORD}},
            "text": {**_KEYWORD, "doc_values": False},
            "row": _BYTES,
            "gone": _BOOLEAN,
        },
    },
}

VALUES: dict[str, Any] = {
    "settings": {"index": {**_PROJECTION, "refresh_interval": "60s"}},
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "slot": {"type": "long", **_UNSEARCHED},
            "shard": {"type": "integer", **_UNSEARCHED},
            "seq": {"type": "long", **_UNSEARCHED},
            # For people who look at a document; it is found by its id alone.
            "kind": {"type": "keyword", **_UNSEARCHED},
            "tenant": {"type": "keyword", **_UNSEARCHED},
            "task_id": {"type": "keyword", **_UNSEARCHED},
            "value": _STORED,
            "raw": _BYTES,
            "gone": _BOOLEAN,
        },
    },
}

BODIES = {"tasks": TASKS, "values": VALUES}
"""What monthly indices are made of, by what their names say."""


class Meta(msgspec.Struct):
    """What a store is, written when it is made."""

    schema: int
    shards: int
    history: bool = False


class Product(msgspec.Struct, frozen=True):
    """What answers."""

    kind: str
    version: tuple[int, ...]

    @property
    def told(self) -> str:
        """Return name and version."""
        name = {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}[self.kind]
        return f"{name} {'.'.join(map(str, self.version)) or 'of an unknown version'}"


class _Version(msgspec.Struct):
    number: str = ""
    distribution: str = "elasticsearch"


class _Root(msgspec.Struct):
    version: _Version = msgspec.field(default_factory=_Version)


class _Node(msgspec.Struct):
    version: str = ""


class _Nodes(msgspec.Struct):
    nodes: dict[str, _Node] = {}


class _Kept(msgspec.Struct):
    data: Meta


class _Control(msgspec.Struct):
    found: bool = False
    source: _Kept | None = msgspec.field(name="_source", default=None)


_root = msgspec.json.Decoder(_Root).decode
_nodes = msgspec.json.Decoder(_Nodes)
_control = msgspec.json.Decoder(_Control)


async def identify(client: Client, address: Address) -> Product:
    """Tell what answers there. Raises `StoreUnusable` where it cannot be used, `Unavailable`."""
    answer = await client.send("GET", "/")
    if answer.ok:
        try:
            found = _root(answer.body).version
        except msgspec.MsgspecError:
            raise _not_a_cluster(address, answer.body) from None
        kind, version = found.distribution, _numbers(found.number)
    elif answer.status in (401, 403) and not _is_allowed_less(answer.status, answer.body):
        raise StoreUnusable(
            f"{address.shown} lets nobody in so ({cause(answer.body)[1]}): "
            "correct the user and password, or the api_key, in the store's URL"
        )
    elif answer.status in (429, 502, 503, 504):
        raise Unavailable(f"{address.shown} is not ready ({answer.status}): {cause(answer.body)[1]}")
    else:
        # A cluster that does not answer `GET /`, or not to us: what else it answers tells.
        kind = "elasticsearch" if answer.product == "Elasticsearch" else address.kind
        version = await _version_of_nodes(client)
    if kind not in SUPPORTED:
        raise _not_a_cluster(address, answer.body)
    product = Product(kind, version)
    if version and version[0] not in SUPPORTED[kind]:
        majors = " or ".join(map(str, SUPPORTED[kind]))
        raise StoreUnusable(f"{address.shown} is {product.told}: {majors} is needed")
    return product


def _is_allowed_less(status: int, body: bytes) -> bool:
    return status == 403 and cause(body)[0] == "security_exception"


async def _version_of_nodes(client: Client) -> tuple[int, ...]:
    try:
        nodes = (await client.ask("/_nodes?filter_path=nodes.*.version", None, _nodes, method="GET")).nodes
    except (LineshaftError, msgspec.MsgspecError):
        return ()
    return min((_numbers(node.version) for node in nodes.values()), default=())


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def _not_a_cluster(address: Address, body: bytes) -> StoreUnusable:
    said = body[:80].decode("utf-8", "replace")
    return StoreUnusable(f"{address.shown} is neither Elasticsearch nor OpenSearch; it answered {said!r}")


async def prepare(client: Client, names: Names, address: Address) -> Meta:
    """Make the store where there is none, and return what it is.

    Raises `SchemaTooNew`, `StoreUnusable`, `StoreCorrupt`, `Unavailable`.
    """
    meta = await _read_meta(client, names)
    if meta is None:
        await _make(client, names, address.shards or DEFAULT_SHARDS)
        meta = await _read_meta(client, names)
        if meta is None:
            raise StoreCorrupt(
                f"{names.control} has lost what it was just told: is another cluster behind it?"
            )
    if meta.schema > SCHEMA:
        raise SchemaTooNew(
            f"{address.shown} has the layout {meta.schema}, this Lineshaft knows {SCHEMA}: upgrade Lineshaft"
        )
    if address.shards is not None and address.shards != meta.shards:
        raise StoreUnusable(
            f"{address.shown} was made with {meta.shards} shards, which stays so: "
            f"say shards={meta.shards} or nothing, or move it by `lineshaft stores copy`"
        )
    await templates.bring_up_to_date(client, names, BODIES)
    return meta


async def _read_meta(client: Client, names: Names) -> Meta | None:
    answer = await client.ask(f"/{names.control}/_doc/meta", None, _control, method="GET")
    return answer.source.data if answer.source is not None else None


async def _make(client: Client, names: Names, shards: int) -> None:
    await asyncio.gather(
        make_index(client, names.control, CONTROL, with_alias=False),
        make_index(client, names.log(1), LOG),
        *(templates.make(client, names.prefix, what, body) for what, body in BODIES.items()),
    )
    lines: list[Any] = []
    for shard in range(shards):
        lines.append({"create": {"_index": names.control, "_id": checkpoint_id(shard)}})
        lines.append(checkpoint_document(shard, Checkpoint()))
    await client.send_lines("/_bulk", lines)
    # Last, for it says that all else is there. Of several that make the store at once one writes it.
    meta = {"what": "meta", "data": Meta(SCHEMA, shards)}
    await client.do("PUT", f"/{names.control}/_create/meta", meta, expect=(409,))


def checkpoint_id(shard: int) -> str:
    """Return the id of a shard's checkpoint in the control index."""
    return f"checkpoint-{shard}"


def checkpoint_document(shard: int, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what stands there."""
    return {"what": "checkpoint", "shard": shard, "slot": checkpoint.slot, "data": checkpoint}


class _CheckpointKept(msgspec.Struct):
    data: Checkpoint


class _CheckpointAnswer(msgspec.Struct):
    source: _CheckpointKept | None = msgspec.field(name="_source", default=None)


_checkpoint = msgspec.json.Decoder(_CheckpointAnswer)


async def read_checkpoint(client: Client, names: Names, shard: int) -> Checkpoint | None:
    """Read the checkpoint of a shard; None where there is none, which every store has from the beginning."""
    target = f"/{names.control}/_doc/{checkpoint_id(shard)}"
    found = await client.ask(target, None, _checkpoint, method="GET")
    return None if found.source is None else found.source.data


async def make_index(client: Client, index: str, body: dict[str, Any], *, with_alias: bool = True) -> None:
    """Make an index, with the alias that it is written through; silent where it is there."""
    whole = {**body, "aliases": {alias(index): {"is_write_index": True}}} if with_alias else body
    answer = await client.do("PUT", f"/{index}", whole, expect=(400,), timeout=30.0)
    if answer.status == 400 and cause(answer.body)[0] != "resource_already_exists_exception":
        raise Unavailable(f"{index} cannot be made: {': '.join(cause(answer.body))}")
