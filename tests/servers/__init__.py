"""Real servers for tests, which start them themselves: no mocks, no Docker, nothing to set up first.

`opensearch()`, `elasticsearch()`, `postgres()`, `valkey()` and `redis()` return a running server (`url`,
`pid`), one for all processes of a test run, whose `fresh()` is the URL of an empty store. A test that wants
to `kill`, `freeze`, `thaw`, `restart` or `stop` its server starts one of its own:
`with postgres(private=True) as server`. `opensearch_nodes`, `valkey_pair`, `valkey_sentinels` and
`valkey_cluster` start several, always the caller's own.

All end with the test run, also where it is killed. Where a server cannot be had, the test is skipped with the
reason, and fails in CI. From a shell: `python -m tests.servers opensearch` starts one until Ctrl-C.
"""

from __future__ import annotations

from tests.servers.postgres import PostgresServer, postgres
from tests.servers.run import Port
from tests.servers.search import (
    SearchServer,
    SecuredNode,
    elasticsearch,
    opensearch,
    opensearch_nodes,
    secured_opensearch,
)
from tests.servers.server import Server
from tests.servers.valkey import (
    KeyValueServer,
    promote,
    redis,
    valkey,
    valkey_cluster,
    valkey_pair,
    valkey_sentinels,
)

__all__ = [
    "KeyValueServer",
    "Port",
    "PostgresServer",
    "SearchServer",
    "SecuredNode",
    "Server",
    "elasticsearch",
    "opensearch",
    "opensearch_nodes",
    "postgres",
    "promote",
    "redis",
    "secured_opensearch",
    "valkey",
    "valkey_cluster",
    "valkey_pair",
    "valkey_sentinels",
]
