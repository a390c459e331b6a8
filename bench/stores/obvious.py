"""The obvious way to keep jobs in OpenSearch: a document each, `_search` for queued ones, `_update` to claim.

A claim is an `_update` with the `if_seq_no` and `if_primary_term` that the search told, so two workers never
have the same job. What is found is as old as the last refresh: the more workers, and the rarer the refreshes,
the more claims end in conflicts. Variants: `InOrder` takes the oldest and, after a conflict, the next of its
page; `OutOfOrder` takes a random one of a larger page. Page and refresh interval are those
that drained fastest.

Workers are threads of one process with a connection each. One that finds nothing asks again after `PAUSE`.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from bench.driving import Spec, SyncContender
from bench.telling import Handler

WORKERS = 16
PAUSE = 0.02
"""Seconds; 16 workers that find nothing ask 800 times a second in all, less what the answers take."""
TIMEOUT = 30.0

MAPPING = {
    "properties": {
        "state": {"type": "keyword"},
        "at": {"type": "long"},
        "payload": {"type": "keyword", "index": False, "doc_values": False},
    }
}


class Index:
    """The index of jobs, over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 9200, timeout=TIMEOUT
        )
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._name = f"{parts.path}-jobs"

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask for something under the index; return status and answer. `body` may be lines, as bytes."""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self._connection.request(
            method, self._name + path, sent, {"content-type": "application/json"} if sent else {}
        )
        answer = self._connection.getresponse()
        told = json.loads(answer.read())
        if answer.status >= 300 and answer.status != 409:
            raise RuntimeError(f"{answer.status}: {told}")
        return answer.status, told

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def job(payload: str) -> dict[str, object]:
    """Return the document of a job."""
    return {"state": "queued", "at": time.time_ns(), "payload": payload}


class Obvious(SyncContender):
    """Both variants, which say how large a page is, whether a random one is taken, and when to refresh."""

    page: int
    any_order: bool
    refresh: str

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._threads = threading.local()

    def _index(self) -> Index:
        if not hasattr(self._threads, "index"):
            self._threads.index = Index(self.spec.server)
        index: Index = self._threads.index
        return index

    async def open(self) -> None:
        self._make()

    def _make(self) -> None:
        settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": self.refresh}
        self._index().ask("PUT", "", {"settings": settings, "mappings": MAPPING})

    async def purge(self) -> None:
        self._index().ask("DELETE", "")
        self._make()

    def put(self, text: str) -> None:
        self._index().ask("POST", "/_doc", job(text))

    async def bulk(self, texts: list[str]) -> None:
        lines = [f'{{"create": {{}}}}\n{json.dumps(job(text))}\n' for text in texts]
        self._index().ask("POST", "/_bulk", "".join(lines).encode())

    def worker(self) -> list[str]:
        return [sys.executable, "-m", "bench.stores.obvious", type(self).__name__]

    def versions(self) -> dict[str, str]:
        return {"python": sys.version.split()[0]}


class InOrder(Obvious):
    page = 32
    any_order = False
    refresh = "20ms"


class OutOfOrder(Obvious):
    page = 100
    any_order = True
    refresh = "100ms"


def work(url: str, variant: type[Obvious], handler: Handler, lock: threading.Lock) -> None:
    """Find, claim, run, complete, for ever."""
    index, chance = Index(url), random.Random()
    query = {
        "query": {"bool": {"filter": [{"term": {"state": "queued"}}]}},
        "sort": [{"at": "asc"}],
        "size": variant.page,
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }
    while True:
        _, found = index.ask("POST", "/_search", query)
        hits = found["hits"]["hits"]
        if not hits:
            time.sleep(PAUSE)
            continue
        if variant.any_order:
            chance.shuffle(hits)
        for hit in hits:
            seen = f"if_seq_no={hit['_seq_no']}&if_primary_term={hit['_primary_term']}"
            status, claimed = index.ask(
                "POST", f"/_update/{hit['_id']}?{seen}", {"doc": {"state": "running"}}
            )
            if status == 409:
                continue
            with lock:
                handler(hit["_source"]["payload"])
            seen = f"if_seq_no={claimed['_seq_no']}&if_primary_term={claimed['_primary_term']}"
            index.ask("POST", f"/_update/{hit['_id']}?{seen}", {"doc": {"state": "done"}})
            break


def main() -> None:
    """Run the workers, until killed."""
    variant = {one.__name__: one for one in (InOrder, OutOfOrder)}[sys.argv[1]]
    handler, lock, url = Handler(), threading.Lock(), os.environ["BENCH_SERVER"]
    for _ in range(WORKERS):
        threading.Thread(target=work, args=(url, variant, handler, lock)).start()


if __name__ == "__main__":
    main()
