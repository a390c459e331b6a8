"""The same on Elasticsearch: a choice of promises, for every kind of request that the store makes.

The node is the minimal distribution. It answers no `GET /`, so what it is shows by what else it answers.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lineshaft.store.base import Store
from lineshaft.store.conformance import StoreConformance
from lineshaft.store.elastic.address import read_address
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.setup import identify
from lineshaft.store.urls import open_store
from tests.servers import SearchServer

CHOSEN = (
    "test_what_was_committed_is_loaded_after_a_restart",
    "test_a_fenced_owner_changes_no_byte",
    "test_a_mixed_batch_is_applied_whole",
    "test_every_field_of_a_task_comes_back",
    "test_a_payload_of_a_mebibyte_comes_back",
    "test_records_are_written_replaced_and_deleted",
    "test_forgetting_an_old_row_leaves_the_id_to_its_new_one",
    "test_the_log_goes_on_after_a_restart",
    "test_every_filter_under_every_sort_finds_what_is_there",
    "test_text_is_taken_literally",
    "test_what_was_removed_is_told_by_tenant_queue_and_state",
    "test_a_result_goes_before_its_task_when_its_time_is_over",
    "test_the_beginning_of_the_log_goes_by_age",
    "test_of_many_that_swap_the_roster_at_once_one_does",
)


class _Promises(StoreConformance):
    __test__ = False
    blobs_go_with_their_task = False

    def __init__(self, url: str) -> None:
        self.url = url

    async def make_store(self) -> Store:
        return open_store(f"{self.url}?shards=3")

    async def reopen(self, store: Store) -> Store:
        await store.close()
        again = open_store(store.url)
        await again.open(address="a")
        return again


@pytest.fixture
def url(elasticsearch_server: SearchServer) -> Iterator[str]:
    url = elasticsearch_server.fresh()
    yield url
    elasticsearch_server.drop(url.rpartition("/")[2])


@pytest.mark.timeout(180)  # the node starts with the first
@pytest.mark.parametrize("promise", CHOSEN)
def test_elasticsearch_keeps(url: str, promise: str) -> None:
    getattr(_Promises(url), promise)()


async def test_a_cluster_that_does_not_say_what_it_is_shows_it(elasticsearch_server: SearchServer) -> None:
    # Whatever the URL calls it.
    address = read_address("opensearch", f"127.0.0.1:{elasticsearch_server.port}/x", {})
    client = Client(address)
    product = await identify(client, address)
    await client.close()
    assert product.told.startswith("Elasticsearch 8.19.")
