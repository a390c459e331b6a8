"""The store on Elasticsearch and OpenSearch, against real nodes."""

from __future__ import annotations
