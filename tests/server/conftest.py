from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.asgi import Edge, edge


@pytest.fixture(name="edge")
async def give_edge() -> AsyncIterator[Edge]:
    async with edge() as given:
        yield given
