from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.partitions.split import Split, split


@pytest.fixture(name="split")
async def give_split() -> AsyncIterator[Split]:
    async with split() as given:
        yield given
