"""What the URL of a store on Redis or Valkey may say, and how it is shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from lineshaft.errors import Invalid, Unavailable
from lineshaft.store.redis.options import parse
from lineshaft.store.urls import open_store
from tests.servers import redis


def test_one_server_with_everything() -> None:
    options = parse("redis://me:p%40ss@db.example:6380/4", {"prefix": "jobs", "shards": "8", "wait": "1"})
    assert options.hosts == (("db.example", 6380),)
    assert (options.username, options.password, options.db) == ("me", "p@ss", 4)
    assert (options.prefix, options.shards, options.wait, options.tls) == ("jobs", 8, 1, False)
    assert options.url == "redis://me:***@db.example:6380/4?prefix=jobs&shards=8&wait=1"


def test_sentinels_name_the_primary_in_the_path() -> None:
    given = {"sentinel_username": "look", "sentinel_password": "secret", "ca": "/etc/ca.pem"}
    options = parse("valkeys+sentinel://:pw@h1,h2:26380,[::1]:3/main/2", given)
    assert options.hosts == (("h1", 26379), ("h2", 26380), ("::1", 3))
    assert (options.service, options.db, options.tls, options.password) == ("main", 2, True, "pw")
    assert (options.sentinel_username, options.sentinel_password) == ("look", "secret")
    assert "secret" not in options.url
    assert "pw" not in options.url


def test_a_cluster_has_several_nodes() -> None:
    options = parse("rediss://h1,h2:7001", {"cluster": "true"})
    assert options.hosts == (("h1", 6379), ("h2", 7001))
    assert (options.cluster, options.tls) == (True, True)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://h?shard=3", "no option 'shard': it takes ca, cert, cluster"),
        ("redis://h?shards=0", "shards is a number from 1"),
        ("redis://h?shards=many", "shards is a number from 1"),
        ("redis://", "names no host"),
        ("redis://h:port", "is not host:port"),
        ("redis://h/1/2", "one database number"),
        ("redis://h/x", "db is a number"),
        ("redis://h/1?db=2", "one database number"),
        ("redis://h1,h2", "several hosts are sentinels"),
        ("redis+sentinel://h1,h2", "what the sentinels call the primary"),
        ("redis://h?cluster=perhaps", "cluster is true or false"),
        ("redis://h/3?cluster=true", "neither sentinels nor a database"),
        ("redis+sentinel://h/main?cluster=true", "neither sentinels nor a database"),
        ("redis://h?cluster=true&wait=1", "wait cannot be had"),
        ("redis://h?ca=/ca.pem", "write rediss://"),
        ("valkey+sentinel://h/main?ca=/ca.pem", r"write valkeys\+sentinel://"),
        ("rediss://h?ca=/not/there.pem", "the file of ca cannot be read"),
        ("rediss://h?key=/not/there.pem", "the file of key cannot be read"),
        ("redis://h?prefix={a}", "without braces"),
        ("redis://h?timeout=0", "timeout is seconds"),
    ],
)
def test_what_cannot_be_meant_is_refused(url: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as refused:
        open_store(url)
    assert refused.value.field == "store"


def test_sentinels_that_do_not_answer_are_told_of_in_words() -> None:
    with pytest.raises(Unavailable, match="No master found for 'main'") as refused:
        asyncio.run(_open("redis+sentinel://127.0.0.1:1/main"))
    assert "<" not in refused.value.reason


def test_without_the_library_the_line_to_run_is_named() -> None:
    script = (
        "import sys; sys.modules['redis'] = None\n"
        "from lineshaft.store.urls import open_store\n"
        "from lineshaft.errors import Invalid\n"
        "try: open_store('valkey://h')\n"
        "except Invalid as error: print(error.field, error.reason)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "store a store of kind valkey needs the package redis: pip install 'lineshaft[redis]'\n"


def test_nothing_of_the_library_is_loaded_for_other_stores() -> None:
    script = "import sys, lineshaft; lineshaft.App('memory://'); print('redis' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "False\n"


def test_tls_trusts_the_file_that_is_named(tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*made, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    files = {
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificate),
    }
    with redis(private=True) as server, server.client() as client:
        for name, value in {**files, "tls-auth-clients": "no"}.items():
            client.config_set(name, value)
        port = server.port + 1
        client.config_set("tls-port", port)
        asyncio.run(_open(f"valkeys://localhost:{port}?ca={certificate}"))
        with pytest.raises(Unavailable, match="cannot be reached"):
            asyncio.run(_open(f"valkeys://localhost:{port}"))


async def _open(url: str) -> None:
    store = open_store(url)
    await store.open(address="http://127.0.0.1:7077")
    await store.close()
