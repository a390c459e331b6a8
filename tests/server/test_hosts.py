from __future__ import annotations

import socket

import pytest

from lineshaft.server.hosts import AllowedHosts, is_loopback, split_address


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:7077", "[::1]", "[::1]:7077", "localhost."]
)
def test_a_local_coordinator_serves_local_names_at_any_port(host: str) -> None:
    assert AllowedHosts("127.0.0.1").allows(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::1",
        "[::1]x",
        "localhost:x",
        "localhost:99999",
        "localhost:80:80",
        "é",
        "local host",
        "localhost@evil.example",
        "localhost/",
    ],
)
def test_and_no_others(host: str) -> None:
    assert not AllowedHosts("127.0.0.1").allows(host.encode("latin-1"))


def test_one_that_listens_everywhere_serves_addresses_and_its_own_name() -> None:
    hosts = AllowedHosts("0.0.0.0", ["jobs.example"])
    for name in ("10.0.0.1:7077", "[fe80::1]", socket.gethostname(), "jobs.example:80", "localhost"):
        assert hosts.allows(name.encode()), name
    assert not hosts.allows(b"evil.example")
    assert AllowedHosts("127.0.0.1", ["*"]).allows(b"anything.example")


def test_what_is_remembered_is_bounded() -> None:
    hosts = AllowedHosts("127.0.0.1")
    for number in range(1_000):
        hosts.allows(b"host%d" % number)
    assert len(hosts._known) <= 100


def test_addresses() -> None:
    assert split_address("127.0.0.1:7077") == ("127.0.0.1", 7077)
    assert split_address("[::1]:0") == ("::1", 0)
    assert is_loopback("127.1.2.3")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
