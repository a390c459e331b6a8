"""How long a failed attempt waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.core.backoff import LONGEST, retry_delay
from lineshaft.core.task import RetryPolicy, State
from tests.core.world import HOUR, MINUTE, SECOND, World


def delays(policy: RetryPolicy, attempts: int = 4) -> list[int]:
    return [retry_delay(policy, attempt, salt="t") for attempt in range(1, attempts + 1)]


@pytest.mark.parametrize(
    "policy, expected",
    [
        (RetryPolicy(jitter=0), [1_000, 2_000, 4_000, 8_000]),
        (RetryPolicy(jitter=0, factor=3.0, base=10), [10, 30, 90, 270]),
        (RetryPolicy(jitter=0, cap=3_000), [1_000, 2_000, 3_000, 3_000]),
        (RetryPolicy(jitter=0, backoff="linear"), [1_000, 2_000, 3_000, 4_000]),
        (RetryPolicy(jitter=0, backoff="linear", cap=2_500), [1_000, 2_000, 2_500, 2_500]),
        (RetryPolicy(jitter=0, backoff="fixed"), [1_000, 1_000, 1_000, 1_000]),
        (RetryPolicy(jitter=0, base=0), [0, 0, 0, 0]),
        (RetryPolicy(jitter=0, backoff="fixed", base=0), [0, 0, 0, 0]),
    ],
)
def test_the_kinds_of_backoff(policy: RetryPolicy, expected: list[int]) -> None:
    assert delays(policy) == expected


def test_a_factor_that_overflows_ends_at_the_cap() -> None:
    assert retry_delay(RetryPolicy(jitter=0, factor=1e300), 1_000, salt="t") == HOUR
    assert retry_delay(RetryPolicy(factor=1e300, base=0), 1_000, salt="t") == 0
    assert retry_delay(RetryPolicy(jitter=0, factor=1e300, cap=10 * LONGEST), 9, salt="t") == LONGEST


def test_the_same_history_waits_equally_long_and_another_task_does_not() -> None:
    policy = RetryPolicy(jitter=0.5)
    assert retry_delay(policy, 1, salt="a") == retry_delay(policy, 1, salt="a")
    assert len({retry_delay(policy, 1, salt=f"{n}") for n in range(100)}) > 90


@given(
    st.builds(
        RetryPolicy,
        backoff=st.sampled_from(["exponential", "linear", "fixed"]),
        base=st.integers(0, 10 * HOUR),
        factor=st.floats(0, 100),
        cap=st.integers(0, 24 * HOUR),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 10_000),
    st.text(max_size=10),
)
def test_jitter_stays_within_its_bounds_and_the_cap(policy: RetryPolicy, attempt: int, salt: str) -> None:
    plain = retry_delay(
        RetryPolicy(policy.backoff, policy.base, policy.factor, policy.cap, 0.0), attempt, salt=salt
    )
    delay = retry_delay(policy, attempt, salt=salt)
    assert 0 <= delay <= policy.cap
    assert plain * (1 - policy.jitter) - 1 <= delay <= plain * (1 + policy.jitter) + 1


def test_a_failed_task_waits_longer_each_time(w: World) -> None:
    w.enqueue(id="t", retry_policy=RetryPolicy(jitter=0), max_retries=2)
    for wait in (SECOND, 2 * SECOND):
        [held] = w.claim()
        w.fail(held)
        assert w.get("t").run_at == w.now + wait
        w.advance(wait - 1)
        assert w.claim() == []
        w.advance(1)
    [held] = w.claim()
    w.fail(held)
    assert w.get("t").state is State.FAILED


def test_without_a_base_a_retry_is_queued_at_once(w: World) -> None:
    w.enqueue(id="t", retry_policy=RetryPolicy(base=0))
    [held] = w.claim()
    assert w.fail(held).state is State.QUEUED
    assert w.get("t").attempt == 1


def test_retry_after_wins_over_the_policy_and_its_cap(w: World) -> None:
    w.enqueue(id="t", retry_policy=RetryPolicy(cap=MINUTE))
    [held] = w.claim()
    answer = w.fail(held, retry_after=2 * HOUR)
    assert (answer.state, answer.run_at) == (State.SCHEDULED, w.now + 2 * HOUR)
