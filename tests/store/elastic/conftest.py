"""A store on the node that the tests share, with a gate before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.servers import SearchServer
from tests.store.elastic.gate import Gate
from tests.store.elastic.place import Place


@pytest.fixture
async def place(opensearch_server: SearchServer) -> AsyncIterator[Place]:
    async with Gate(opensearch_server.port) as gate:
        place = Place(opensearch_server, gate)
        yield place
        await place.close()
