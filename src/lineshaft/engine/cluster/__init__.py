"""Several coordinators on one store: who takes part, who has which shard, and how shards move."""

from __future__ import annotations
