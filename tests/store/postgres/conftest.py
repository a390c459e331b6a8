"""Databases for the tests of the PostgreSQL store, and how one speaks to them beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.servers import PostgresServer

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> str:
    """Give the URL of a database that the tests of a module share."""
    return postgres_server.fresh()


@pytest.fixture
def schema() -> str:
    """Give the name of a schema that nobody else has."""
    return f"s{next(_NUMBERS)}"


@pytest.fixture
def store_url(database: str, schema: str) -> Callable[..., str]:
    """Give a function that returns the URL of a store in that schema."""

    def url(**options: object) -> str:
        chosen = {"schema": schema, "shards": 2, **options}
        return f"{database}?" + "&".join(f"{name}={value}" for name, value in chosen.items())

    return url
