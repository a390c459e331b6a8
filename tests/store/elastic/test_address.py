"""The URL of a store on a cluster, and what a person is told who spells it wrong."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from lineshaft.errors import Invalid
from lineshaft.store.base import StoreUnusable
from lineshaft.store.elastic.address import read_address
from lineshaft.store.urls import open_store
from tests.store.elastic.place import Place


def test_everything_stands_in_the_url(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    address = read_address(
        "elasticsearch", "us%40er:p%2Fw@h1:9201,h2,[::1]:9203/some-prefix", {"ca": str(ca), "shards": "4"}
    )
    assert address.hosts == (("h1", 9201), ("h2", 9200), ("[::1]", 9203))
    assert (address.user, address.password, address.prefix) == ("us@er", "p/w", "some-prefix")
    assert (address.tls, address.ca, address.shards, address.history) == (True, str(ca), 4, False)
    assert address.authorization == "Basic " + base64.b64encode(b"us@er:p/w").decode()
    assert address.shown == (
        f"elasticsearch://us%40er:***@h1:9201,h2:9200,[::1]:9203/some-prefix?ca={ca}&shards=4"
    )


def test_what_is_not_said_has_a_default() -> None:
    address = read_address("opensearch", "search", {})
    assert address.hosts == (("search", 9200),)
    assert (address.prefix, address.tls, address.shards, address.authorization) == (
        "lineshaft",
        False,
        None,
        None,
    )


@pytest.mark.parametrize("key", ["id:secret", base64.b64encode(b"id:secret").decode()])
def test_a_key_is_given_either_way_and_not_shown(key: str) -> None:
    address = read_address("elasticsearch", "h", {"api_key": key, "tls": "true", "history": "on"})
    assert address.authorization == "ApiKey " + base64.b64encode(b"id:secret").decode()
    assert address.shown == "elasticsearch://h:9200/lineshaft?tls=true&api_key=***&history=on"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("opensearch://", "not a host"),
        ("opensearch://h1,,h2/x", "not a host"),
        ("opensearch://h:0/x", "not a port"),
        ("opensearch://h:99999/x", "not a port"),
        ("opensearch://:secret@h/x", "name is missing"),
        ("opensearch://h/Upper", "lower-case"),
        ("opensearch://h/_x", "a letter or digit first"),
        ("opensearch://h/x/y", "lower-case"),
        ("opensearch://h/x?shard=3", "'shard'"),
        ("opensearch://h/x?shards=0", "from 1 to 1024"),
        ("opensearch://h/x?shards=many", "from 1 to 1024"),
        ("opensearch://h/x?tls=yes", "false or true"),
        ("opensearch://h/x?history=true", "off or on"),
        ("opensearch://h/x?tls=false&ca=/x", "leave out tls=false"),
        ("opensearch://h/x?ca=/not/there", "CA file cannot be read"),
        ("opensearch://u:p@h/x?api_key=a:b", "not both"),
    ],
)
async def test_a_wrong_url_is_told_what_is_wrong(url: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        await open_store(url).open(address="a")
    assert told in refused.value.reason
    assert refused.value.field == "store"
    assert "secret" not in refused.value.reason


async def test_another_number_of_shards_is_refused(place: Place) -> None:
    await place.store()
    url = f"opensearch://127.0.0.1:{place.server.port}/{place.prefix}"
    with pytest.raises(StoreUnusable, match="made with 1 shards"):
        await open_store(f"{url}?shards=2").open(address="a")
    again = open_store(url)
    await again.open(address="a")
    assert again.shards == 1
    await again.close()
