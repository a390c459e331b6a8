"""Fixtures of the servers that a test run shares; `tests/conftest.py` makes them known to all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers

__all__ = [
    "elasticsearch_server",
    "elasticsearch_url",
    "opensearch_server",
    "opensearch_url",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
    "valkey_server",
    "valkey_url",
]


@pytest.fixture(scope="session")
def opensearch_server() -> servers.SearchServer:
    return servers.opensearch()


@pytest.fixture(scope="session")
def elasticsearch_server() -> servers.SearchServer:
    return servers.elasticsearch()


@pytest.fixture(scope="session")
def postgres_server() -> servers.PostgresServer:
    return servers.postgres()


@pytest.fixture(scope="session")
def valkey_server() -> servers.KeyValueServer:
    return servers.valkey()


@pytest.fixture(scope="session")
def redis_server() -> servers.KeyValueServer:
    return servers.redis()


@pytest.fixture
def opensearch_url(opensearch_server: servers.SearchServer) -> Iterator[str]:
    """Give the URL of an empty store; what the test leaves there is deleted."""
    yield from _fresh(opensearch_server)


@pytest.fixture
def elasticsearch_url(elasticsearch_server: servers.SearchServer) -> Iterator[str]:
    """Give the URL of an empty store; what the test leaves there is deleted."""
    yield from _fresh(elasticsearch_server)


def _fresh(server: servers.SearchServer) -> Iterator[str]:
    url = server.fresh()
    yield url
    server.drop(url.rpartition("/")[2])


@pytest.fixture
def postgres_url(postgres_server: servers.PostgresServer) -> str:
    """Give the URL of an empty database."""
    return postgres_server.fresh()


@pytest.fixture
def valkey_url(valkey_server: servers.KeyValueServer) -> str:
    """Give the URL of an empty database."""
    return valkey_server.fresh()


@pytest.fixture
def redis_url(redis_server: servers.KeyValueServer) -> str:
    """Give the URL of an empty database."""
    return redis_server.fresh()
