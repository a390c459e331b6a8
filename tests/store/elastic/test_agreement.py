"""OpenSearch agrees with the memory store."""

from __future__ import annotations

import pytest

from lineshaft.store.base import Store
from lineshaft.store.urls import open_store
from tests.servers import opensearch
from tests.store.agreement import StoresAgree, agreement

pytestmark = pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes its time


class OpenSearchAgrees(StoresAgree):
    blobs_go_with_their_task = False

    def prepare(self) -> None:
        self.url = opensearch().fresh()

    def make_store(self) -> Store:
        return open_store(self.url, shards="1")

    def leave(self) -> None:
        opensearch().drop(self.url.rpartition("/")[2])


TestOpenSearchAgrees = agreement(OpenSearchAgrees, examples=12)
