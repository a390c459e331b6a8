"""The servers of the tests: they start, come back with their data, and do not outlive the run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests import servers

pytestmark = pytest.mark.timeout(300)  # the first one on a machine is downloaded


@pytest.mark.parametrize("kind", ["opensearch", "elasticsearch", "postgres", "valkey", "redis"])
def test_one_is_shared_and_gives_fresh_places(kind: str) -> None:
    start = getattr(servers, kind)
    first, again = start(), start()
    assert first.is_alive()
    assert again.pid == first.pid
    assert len({first.fresh(), again.fresh(), again.fresh()}) == 3


def test_a_shared_one_is_not_killed() -> None:
    server = servers.valkey()
    with pytest.raises(RuntimeError, match="private=True"):
        server.kill()
    with pytest.raises(RuntimeError, match="private=True"):
        server.restart()
    assert server.is_alive()


def test_postgres_comes_back_after_a_kill() -> None:
    import psycopg

    with servers.postgres(private=True, settings={"synchronous_commit": "off"}) as server:
        url = server.fresh()
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
            connection.execute("SET synchronous_commit = on")
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        assert not server.is_alive()
        server.restart()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    assert not server.folder.exists()


def test_valkey_comes_back_after_a_kill() -> None:
    with servers.valkey(private=True) as server:
        with server.client() as client:
            client.set("kept", "yes")
        before = server.pid
        server.kill()
        server.restart()
        with server.client() as client:
            assert client.get("kept") == b"yes"
        assert server.pid != before


def test_a_frozen_valkey_answers_once_it_thaws() -> None:
    import redis

    with servers.valkey(private=True) as server:
        server.freeze()
        with (
            server.client(socket_timeout=0.2, retry=None) as client,
            pytest.raises(redis.exceptions.TimeoutError),
        ):
            client.ping()
        server.thaw()
        with server.client() as client:
            assert client.ping()


def test_opensearch_comes_back_after_a_kill() -> None:
    with servers.opensearch(private=True) as server:
        assert server.request("PUT", "/kept/_doc/1", {"a": 1}).status == 201
        server.kill()
        server.restart()
        assert server.request("GET", "/kept/_doc/1").json["_source"] == {"a": 1}


@pytest.fixture
def pair() -> Iterator[tuple[servers.KeyValueServer, servers.KeyValueServer]]:
    primary, replica = servers.valkey_pair()
    yield primary, replica
    replica.remove()
    primary.remove()


def test_a_replica_follows_and_is_promoted(
    pair: tuple[servers.KeyValueServer, servers.KeyValueServer],
) -> None:
    primary, replica = pair
    with primary.client() as client:
        client.set("kept", "yes")
        assert client.wait(1, 5000) == 1
    primary.kill()
    servers.promote(replica)
    with replica.client() as client:
        assert client.get("kept") == b"yes"
        assert client.set("more", "yes")


def test_a_sentinel_knows_primary_and_replica(
    pair: tuple[servers.KeyValueServer, servers.KeyValueServer],
) -> None:
    primary, _ = pair
    [sentinel] = servers.valkey_sentinels(primary)
    with sentinel, sentinel.client() as client:
        _, port = client.sentinel_get_master_addr_by_name("main")
        assert port == primary.port


def test_a_cluster_forms() -> None:
    nodes = servers.valkey_cluster(3)
    try:
        import redis

        with redis.RedisCluster(host="127.0.0.1", port=nodes[0].port) as client:
            for number in range(20):
                client.set(f"key {number}", number)
    finally:
        for node in nodes:
            node.remove()


@pytest.mark.slow
def test_three_opensearch_nodes_survive_the_loss_of_one() -> None:
    nodes = servers.opensearch_nodes(3)
    try:
        first, second, third = nodes
        replicated = {"settings": {"number_of_shards": 1, "number_of_replicas": 2}}
        assert first.request("PUT", "/kept?wait_for_active_shards=3", replicated).status == 200
        assert first.request("PUT", "/kept/_doc/1", {"a": 1}).status == 201
        second.kill()
        third.expected = 2
        third.wait_until_ready()
        assert third.request("GET", "/kept/_doc/1").json["_source"] == {"a": 1}
    finally:
        for node in nodes:
            node.remove()


def test_a_server_ends_with_the_run_that_started_it() -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.servers", "valkey"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert run.stdout
    pid = int(run.stdout.readline().split()[-1])
    assert psutil.pid_exists(pid)
    run.kill()
    run.communicate()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline, "it outlived its run"
        time.sleep(0.05)
