"""Runs one contender, as BENCH_SPEC says: `python -m bench.drive bench.peers.celery_jobs:Celery`.

A module of its own, so that the contender's module is the one that its worker imports, and not `__main__`.
"""

from __future__ import annotations

import importlib
import sys

from bench.driving import drive

if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    drive(getattr(importlib.import_module(module), name))
