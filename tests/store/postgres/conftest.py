"""Databases for the tests of the PostgreSQL store.

LINESHAFT_TEST_POSTGRES=postgresql://user@host:port names another server than that of the wheel, to test
another version with; tests that kill their server go on to use the wheel's.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable

import psycopg
import pytest

from tests.servers import PostgresServer

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> str:
    """Give the URL of a database that the tests of a module share."""
    server = os.environ.get("LINESHAFT_TEST_POSTGRES")
    if server is None:
        found: PostgresServer = request.getfixturevalue("postgres_server")
        return found.fresh()
    name = f"lineshaft_{secrets.token_hex(6)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


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
