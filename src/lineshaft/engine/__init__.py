"""Runs shards on stores: group commit, the reply barrier, timers and ownership."""

from __future__ import annotations

from lineshaft.engine.clock import Clock, LoopClock, ManualClock, SystemClock
from lineshaft.engine.engine import Engine
from lineshaft.engine.handle import Handle
from lineshaft.engine.health import Health, ShardHealth
from lineshaft.engine.limits import Limits
from lineshaft.engine.metrics import Metrics

__all__ = [
    "Clock",
    "Engine",
    "Handle",
    "Health",
    "Limits",
    "LoopClock",
    "ManualClock",
    "Metrics",
    "ShardHealth",
    "SystemClock",
]
