"""How the history leaves: by the cluster's own policy where it has policies, by our hand where not.

The policy is made once, and then it is the operator's: one that is there is left as it is. Elasticsearch
calls it ILM, OpenSearch ISM. It rolls the stream over, and deletes what is old.

The documents of tasks are never given to such a policy: its only measure is age, and an index that is old may
hold a task that is to run next year. Whole months of them are dropped by what is in them; see `spent_months`.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import msgspec

from lineshaft.errors import LineshaftError
from lineshaft.store.elastic.client import Answer, Client
from lineshaft.store.elastic.history import HistoryNames

DAY = 86_400_000

KEPT_DAYS = 30
"""Days after which a policy that we make, or our own hand, deletes events."""
ROLLED_DAYS = 7
ROLLED_SIZE = "20gb"

Policies = Literal["ilm", "ism"]

_log = logging.getLogger(__name__)


def ilm_policy() -> dict[str, Any]:
    """Return the policy of the history for Elasticsearch."""
    rollover = {"max_age": f"{ROLLED_DAYS}d", "max_primary_shard_size": ROLLED_SIZE}
    return {
        "policy": {
            "_meta": {"managed_by": "lineshaft"},
            "phases": {
                "hot": {"min_age": "0ms", "actions": {"rollover": rollover}},
                "delete": {"min_age": f"{KEPT_DAYS}d", "actions": {"delete": {}}},
            },
        }
    }


def ism_policy(pattern: str) -> dict[str, Any]:
    """Return the policy of the history for OpenSearch, which itself says to which indices it belongs."""
    rollover = {"min_index_age": f"{ROLLED_DAYS}d", "min_primary_shard_size": ROLLED_SIZE}
    ended = {"state_name": "delete", "conditions": {"min_rollover_age": f"{KEPT_DAYS}d"}}
    return {
        "policy": {
            "description": "The history of Lineshaft's tasks: rolled over, and deleted by age",
            "default_state": "hot",
            "states": [
                {"name": "hot", "actions": [{"rollover": rollover}], "transitions": [ended]},
                {"name": "delete", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [{"index_patterns": [pattern], "priority": 300}],
        }
    }


class HistoryLifecycle:
    """Retention of the history of one store."""

    def __init__(self, client: Client, names: HistoryNames) -> None:
        self.policies: Policies | None = None
        """What the cluster has; None where `sweep` does it."""
        self._client = client
        self._names = names

    async def prepare(self) -> dict[str, Any]:
        """See that there is a policy; return the settings that the index template needs for it.

        A cluster that does not let us look or make one keeps its history as whoever runs it decides.
        """
        name = self._names.template
        if await self._is_there(f"/_ilm/policy/{name}", ilm_policy()):
            self.policies = "ilm"
            return {"lifecycle": {"name": name}}
        if await self._is_there(f"/_plugins/_ism/policies/{name}", ism_policy(self._names.pattern)):
            self.policies = "ism"
        return {}

    async def _is_there(self, target: str, policy: dict[str, Any]) -> bool:
        """Tell whether the cluster has this kind of policy; make ours where it is missing."""
        found = await self._client.send("GET", target)
        if found.ok:
            return True
        if found.status in (401, 403):
            _log.warning("the lifecycle of the history is left alone: reading %s is not allowed", target)
            return True
        if found.status != 404:
            return False  # no such feature: 400 or 405, by product
        made = await self._client.send("PUT", target, msgspec.json.encode(policy))
        if not made.ok and made.status != 409:
            told = made.body[:400].decode("utf-8", "replace")
            _log.warning("the policy %s could not be made (%d): %s", target, made.status, told)
        return True

    async def sweep(self, now: int) -> list[str]:
        """Where the cluster has no policies, do what they would; return the indices that were deleted.

        `now` in milliseconds. Trouble is told in the log: the next sweep does what this one did not.
        """
        if self.policies is not None:
            return []
        try:
            return await self._sweep(now)
        except LineshaftError as error:
            _log.warning("old events stay for now: %s", error.reason)
            return []

    async def _sweep(self, now: int) -> list[str]:
        written = await self._roll_over()
        dropped = []
        for index, last in sorted((await self._last_events()).items()):
            if index not in written and last < now - KEPT_DAYS * DAY:
                await self._client.do("DELETE", f"/{index}", expect=(404,), timeout=30.0)
                dropped.append(index)
        return dropped

    async def _roll_over(self) -> set[str]:
        """Roll over what is due, and return the indices that are written to now."""
        answer = await self._client.send("GET", f"/_data_stream/{self._names.pattern}")
        if not answer.ok:
            return set()  # none, or an index a month
        written = set()
        conditions = {"conditions": {"max_age": f"{ROLLED_DAYS}d"}}
        for stream in _streams(answer):
            await self._client.do("POST", f"/{stream}/_rollover", conditions, timeout=30.0)
        for indices in _backing(await self._client.do("GET", f"/_data_stream/{self._names.pattern}")):
            written.add(indices[-1])
        return written

    async def _last_events(self) -> dict[str, int]:
        """Return when the last event in each index was."""
        by_index = {
            "terms": {"field": "_index", "size": 10_000},
            "aggs": {"last": {"max": {"field": "@timestamp"}}},
        }
        target = f"/{self._names.pattern}/_search?ignore_unavailable=true"
        found = await self._client.ask(
            target, {"size": 0, "aggs": {"indices": by_index}}, _last, timeout=30.0
        )
        buckets = found.aggregations.indices.buckets
        return {bucket.key: int(bucket.last.value) for bucket in buckets if bucket.last.value is not None}


class _Index(msgspec.Struct):
    index_name: str


class _Stream(msgspec.Struct):
    name: str
    indices: list[_Index] = []


class _Streams(msgspec.Struct):
    data_streams: list[_Stream] = []


class _Value(msgspec.Struct):
    value: float | None = None


class _Bucket(msgspec.Struct):
    key: str
    last: _Value


class _Buckets(msgspec.Struct):
    buckets: list[_Bucket] = []


class _Aggregations(msgspec.Struct):
    indices: _Buckets = msgspec.field(default_factory=_Buckets)


class _Last(msgspec.Struct):
    aggregations: _Aggregations = msgspec.field(default_factory=_Aggregations)


_decode_streams = msgspec.json.Decoder(_Streams).decode
_last = msgspec.json.Decoder(_Last)


def _streams(answer: Answer) -> list[str]:
    return [stream.name for stream in _decode_streams(answer.body).data_streams]


def _backing(answer: Answer) -> list[list[str]]:
    streams = _decode_streams(answer.body).data_streams
    return [[index.index_name for index in stream.indices] for stream in streams]
