"""TLS, users, roles and keys. The role is the one that the documentation gives, on a node that enforces it.

The node is OpenSearch with its security plugin. It knows no API keys, and the Elasticsearch of the tests has
no security: keys are tried through a gate of our own, which ends TLS, looks at the header and passes on.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lineshaft.core.batch import Blob
from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.base import Query, Store, StoreUnusable
from lineshaft.store.conformance.harness import NOW, SHARD, acquire, change, finished, row, setting
from lineshaft.store.urls import open_store
from tests import servers
from tests.docs.blocks import blocks_of
from tests.docs.desk import ROOT
from tests.servers import certificates
from tests.servers.search import SearchServer, SecuredNode

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

PASSWORD = "S3cret/with@all#kinds?of:signs"
ADDRESS = "http://127.0.0.1:7077"


def documented_role(product: str) -> dict[str, Any]:
    page = blocks_of(ROOT / "docs" / "elasticsearch.md")
    [text] = [block.text for block in page if block.words == (f"role={product}",)]
    role: dict[str, Any] = json.loads(text)
    return role


@pytest.fixture(scope="module")
def secured() -> SecuredNode:
    return servers.secured_opensearch()


@pytest.fixture
def prefix(secured: SecuredNode) -> Iterator[str]:
    name = f"t{secrets.token_hex(4)}"
    yield name
    secured.request("DELETE", f"/_data_stream/logs-{name}.task-*")
    secured.drop(name)


@pytest.fixture
def user(secured: SecuredNode, prefix: str) -> str:
    """Make a user who has nothing but the documented role, for this prefix."""
    role = json.loads(json.dumps(documented_role("opensearch")).replace("lineshaft", prefix))
    put(secured, f"roles/{prefix}", role)
    put(secured, f"internalusers/{prefix}", {"password": PASSWORD, "opendistro_security_roles": [prefix]})
    return f"{prefix}:{quote(PASSWORD, safe='')}"


def put(secured: SecuredNode, what: str, body: dict[str, Any]) -> None:
    """Change the node's configuration; all of one kind is one document, so others may come between."""
    for _ in range(20):
        answer = secured.request("PUT", f"/_plugins/_security/api/{what}", body)
        if answer.status != 409:
            break
    assert answer.status == 201, answer.text


def url(server: SecuredNode, login: str, prefix: str, options: str = "") -> str:
    return f"opensearch://{login}@127.0.0.1:{server.port}/{prefix}?ca={quote(server.ca)}{options}"


@contextlib.asynccontextmanager
async def opened(place: str) -> AsyncIterator[Store]:
    store = open_store(place)
    try:
        await store.open(address=ADDRESS)
        yield store
    finally:
        await store.close()


async def live_a_life(store: Store) -> None:
    """Do everything that a store does."""
    owner = await acquire(store)
    task = row(1)
    await owner.commit(
        tasks=[task, row(2)],
        blobs=[(Blob.PAYLOAD, 1, b'{"a":1}')],
        records=[setting("mail", b"paused")],
        changes=[change(task)],
    )
    assert (await store.get(SHARD, [("acme", "task-1")]))[0] == task
    assert [each.id for each in (await store.search(SHARD, Query(tenant="acme"))).tasks] == [
        "task-2",
        "task-1",
    ]
    await owner.put(finished(row(2), prune_at=NOW))
    assert await store.prune(owner.ownership, before=NOW, log_before=0)
    roster = await store.read_roster()
    await store.swap_roster(roster.version, b"somebody")
    await store.release(owner.ownership)
    again = await acquire(store, b"another")
    assert [each.id for each in (await again.load()).tasks] == ["task-1"]
    assert await store.read(SHARD, [(Blob.PAYLOAD, 1)]) == [b'{"a":1}']


async def refusal_of(place: str) -> LineshaftError:
    """Return what opening it, or the first use, is answered with."""
    with pytest.raises(LineshaftError) as caught:
        async with opened(place) as store:
            await live_a_life(store)
    assert quote(PASSWORD, safe="") not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    return caught.value


async def test_the_documented_role_is_enough(secured: SecuredNode, user: str, prefix: str) -> None:
    async with opened(url(secured, user, prefix, "&history=on&shards=1")) as store:
        await live_a_life(store)
        assert quote(PASSWORD, safe="") not in store.url
        assert "***" in store.url
    secured.request("POST", f"/logs-{prefix}.task-acme/_refresh")
    found = secured.request("GET", f"/logs-{prefix}.task-acme/_search").json["hits"]["hits"]
    assert [hit["_source"]["event"]["action"] for hit in found] == ["task-enqueue"]


async def test_the_documented_role_may_tidy_up(secured: SecuredNode, user: str, prefix: str) -> None:
    async with opened(url(secured, user, prefix, "&history=on&shards=1")) as store:
        owner = await acquire(store)
        await owner.put(finished(row(1), prune_at=NOW))
        assert await store.prune(owner.ownership, before=NOW, log_before=0)
        await store.release(owner.ownership)
        tidying = store._opened.tidying  # type: ignore[attr-defined]
        assert await tidying.run_once(1, NOW + 60 * 86_400_000) == ["2026.01"]


async def test_the_documented_role_lets_at_nothing_else(secured: SecuredNode, user: str, prefix: str) -> None:
    other = await refusal_of(url(secured, user, "somebody-elses"))
    assert isinstance(other, Unavailable)
    assert "role" in other.reason


async def test_a_wrong_password_is_said(secured: SecuredNode, user: str, prefix: str) -> None:
    wrong = await refusal_of(url(secured, f"{prefix}:wrong", prefix))
    assert isinstance(wrong, StoreUnusable)
    assert "password" in wrong.reason


async def test_without_the_authority_nobody_is_talked_to(
    secured: SecuredNode, user: str, prefix: str
) -> None:
    unknown = await refusal_of(f"opensearch://{user}@127.0.0.1:{secured.port}/{prefix}?tls=true")
    assert "certificate" in unknown.reason.lower()


async def test_without_tls_it_is_said(secured: SecuredNode, user: str, prefix: str) -> None:
    plain = await refusal_of(f"opensearch://{user}@127.0.0.1:{secured.port}/{prefix}")
    assert isinstance(plain, Unavailable)


async def test_another_node_is_asked_where_one_is_gone(secured: SecuredNode, user: str, prefix: str) -> None:
    gone = servers.Port()
    place = f"opensearch://{user}@127.0.0.1:{gone.number},127.0.0.1:{secured.port}/{prefix}?ca={quote(secured.ca)}"
    deadline = asyncio.get_running_loop().time() + 60
    while True:  # a write to a node that is gone is not repeated by the store, but by whoever asked
        with contextlib.suppress(Unavailable):
            async with opened(place) as store:
                await live_a_life(store)
            break
        assert asyncio.get_running_loop().time() < deadline
    gone.free()


# -- API keys, through a gate of our own --------------------------------------------------------------


class Gate:
    """Ends TLS before a node, and lets in who shows this key."""

    def __init__(self, server: SearchServer, folder: Path) -> None:
        self.server = server
        self.key = "an-id:a-key"
        self.turned_away = 0
        certificates.make(folder)
        self.ca = folder / "ca.pem"
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "node.pem", folder / "node.key")

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", self.server.port)
        expected = f"authorization: apikey {base64.b64encode(self.key.encode()).decode()}".lower()
        try:
            while head := await _head(reader):
                lines = head.decode().split("\r\n")
                length = _length(lines)
                body = await reader.readexactly(length)
                if expected not in (line.lower() for line in lines):
                    self.turned_away += 1
                    told = b'{"error":{"type":"security_exception","reason":"no such key"},"status":401}'
                    writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\n")
                    writer.write(b"content-length: %d\r\n\r\n%b" % (len(told), told))
                    continue
                back.write(head + body)
                answer = await _head(onward)
                writer.write(answer + await onward.readexactly(_length(answer.decode().split("\r\n"))))
                await writer.drain()
        finally:
            back.close()
            writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        return await reader.readuntil(b"\r\n\r\n")
    return b""


def _length(lines: list[str]) -> int:
    return next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)


@pytest.fixture
async def gate(opensearch_server: SearchServer, tmp_path: Path) -> AsyncIterator[Gate]:
    made = Gate(opensearch_server, tmp_path / "certificates")
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("encoded", [False, True])
async def test_an_api_key_lets_in(gate: Gate, opensearch_url: str, encoded: bool) -> None:
    key = base64.b64encode(gate.key.encode()).decode() if encoded else gate.key
    prefix = opensearch_url.rpartition("/")[2]
    place = (
        f"opensearch://127.0.0.1:{gate.port}/{prefix}?ca={quote(str(gate.ca))}&api_key={quote(key, safe='')}"
    )
    async with opened(place) as store:
        await live_a_life(store)
        assert quote(key, safe="") not in store.url
        assert gate.key not in store.url
    assert gate.turned_away == 0


async def test_a_wrong_api_key_is_said(gate: Gate, opensearch_url: str) -> None:
    prefix = opensearch_url.rpartition("/")[2]
    wrong = await refusal_of(
        f"opensearch://127.0.0.1:{gate.port}/{prefix}?ca={quote(str(gate.ca))}&api_key=no:no"
    )
    assert isinstance(wrong, StoreUnusable)
    assert "api_key" in wrong.reason
