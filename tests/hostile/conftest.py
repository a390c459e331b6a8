from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.target import Target


@pytest.fixture(scope="module", name="target")
def give_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One coordinator for all tests of a module: what one leaves behind, the next one meets."""
    with Target(tmp_path_factory.mktemp("hostile") / "lineshaft.db") as target:
        yield target
