"""The metrics of a coordinator among several."""

from __future__ import annotations

from collections.abc import Mapping

from lineshaft.engine.engine import Engine
from lineshaft.server.metrics import Family


def sample(engine: Engine, forwarded: Mapping[str, int]) -> list[Family]:
    """Return what there is to say; nothing where the store is exclusive."""
    membership, holdings = engine.membership, engine.holdings
    if membership is None:
        return []
    counts = membership.counts
    return [
        Family("shards", "gauge", "Shards that this coordinator has.", [({}, len(engine.runners))]),
        Family(
            "coordinators",
            "gauge",
            "Coordinators on the store, as seen by this one.",
            [({}, len(membership.roster.members))],
        ),
        Family(
            "forwarded_requests_total",
            "counter",
            "Requests forwarded to the owners of their shards, by outcome; `repeated` counts each new try.",
            [
                ({"outcome": outcome}, forwarded.get(outcome, 0))
                for outcome in ("answered", "repeated", "unanswered")
            ],
        ),
        Family(
            "shard_moves_total",
            "counter",
            "Shards taken up and given away.",
            [({"way": "taken"}, holdings.taken), ({"way": "given"}, holdings.given)],
        ),
        Family(
            "beats_total", "counter", "Signs of life in the roster of coordinators.", [({}, counts.beats)]
        ),
        Family(
            "roster_conflicts_total",
            "counter",
            "Changes of the roster that were made again because another came first.",
            [({}, counts.conflicts)],
        ),
        Family(
            "evictions_total",
            "counter",
            "Coordinators that this one took for dead, and times that it was taken for dead itself.",
            [({"whose": "others"}, counts.evictions), ({"whose": "own"}, counts.evicted)],
        ),
    ]
