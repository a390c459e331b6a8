"""Words that the shell offers while a command is typed; silent where no coordinator answers at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from lineshaft.cli.session import DEFAULT_URL

STATES = ("scheduled", "waiting", "queued", "claimed", "running", "completed", "failed", "cancelled")
PATIENCE = 0.5
"""Seconds; a prompt must not hang because a coordinator does."""


def complete_state(incomplete: str) -> Iterator[str]:
    """Offer the states of a task."""
    return (state for state in STATES if state.startswith(incomplete))


def complete_queue(incomplete: str) -> list[str]:
    """Offer the queues of the coordinator at LINESHAFT_URL."""
    return [found["queue"] for found in _read("/_queues", "queues") if found["queue"].startswith(incomplete)]


def complete_worker(incomplete: str) -> list[str]:
    """Offer the workers of the coordinator at LINESHAFT_URL."""
    ids = [found["worker_id"] for found in _read("/_workers", "workers")]
    return [found for found in ids if found.startswith(incomplete)]


def _read(path: str, key: str) -> list[dict[str, str]]:
    import urllib.request  # slow to import, and only needed here

    url = os.environ.get("LINESHAFT_URL", DEFAULT_URL).rstrip("/")
    headers = {}
    if api_key := os.environ.get("LINESHAFT_API_KEY"):
        headers["Authorization"] = f"ApiKey {api_key}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, headers=headers), timeout=PATIENCE
        ) as answer:
            found: list[dict[str, str]] = json.load(answer)[key]
            return found
    except (OSError, ValueError, KeyError):
        return []
