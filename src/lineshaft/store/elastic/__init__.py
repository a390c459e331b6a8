"""Tasks on Elasticsearch or OpenSearch: a put-if-absent log that is the truth, and documents made from it.

A commit is one `create` of the document `shard-slot` in a small log index; that the id is taken is the fence.
Task documents, which people search, are written behind the log in bulk and can always be made again from it.
`store.py` is the way in; `slots.py` has the log's theory, `projector.py` that of the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lineshaft.store.base import Store


def make_store(kind: str, place: str, options: Mapping[str, str]) -> Store:
    """Return the store at a place (`user:password@h1:9200,h2:9200/prefix`), not yet opened.

    Raises `Invalid` (field "store").
    """
    from lineshaft.store.elastic.address import read_address
    from lineshaft.store.elastic.store import ElasticStore

    return ElasticStore(read_address(kind, place, options))
