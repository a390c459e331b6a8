"""How long a failed attempt waits before the next one."""

from __future__ import annotations

import zlib

from lineshaft.core.task import RetryPolicy

LONGEST = 365 * 24 * 3_600_000
"""No delay is longer than a year, whatever `factor` and `cap` say."""


def retry_delay(policy: RetryPolicy, attempt: int, *, salt: str) -> int:
    """Return the delay in ms after failed attempt number `attempt` (from 1), at most `policy.cap`.

    Jitter spreads it by up to ± `policy.jitter` of itself. It is drawn from the salt and the attempt
    instead of chance, so that the same history decides the same way again.
    """
    delay = min(_plain(policy, attempt), policy.cap, LONGEST)
    spread = zlib.crc32(f"{salt}#{attempt}".encode()) / 0xFFFFFFFF * 2 - 1
    return max(0, min(round(delay * (1 + policy.jitter * spread)), policy.cap))


def _plain(policy: RetryPolicy, attempt: int) -> float:
    match policy.backoff:
        case "fixed":
            return policy.base
        case "linear":
            return policy.base * attempt
        case _:
            try:
                return float(policy.base * policy.factor ** (attempt - 1))
            except OverflowError:
                return LONGEST if policy.base else 0
