"""Tenants that outgrow one shard: their calls are split over partitions, and the answers merged.

A partition is a tenant of its own to all that lies below the calls (see `values.partitions`), so neither
core nor stores know of any of this. What the outside sees is one tenant, but for what is promised of one
partition only: the order of tasks among each other, positions, and counts taken at one moment.
"""

from __future__ import annotations
