"""The shortcuts of the hot path give what the long way gives."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineshaft.core import claims
from lineshaft.core import commands as c
from lineshaft.core.outcomes import outcome_digest
from lineshaft.core.task import Task
from tests.core.world import MINUTE, World

# A claim from one lane, and the same beside lanes whose only task goes last.

LAST = 2**31 - 1
small = st.integers(-1, 1)
task_fields = st.fixed_dictionaries(
    {"priority": small, "payload": st.sampled_from([b"null", b"1", b'"%s"' % (b"x" * 40)])},
    optional={
        "delay": st.sampled_from([0, MINUTE, 3 * MINUTE]),
        "expires_in": st.sampled_from([MINUTE, 2 * MINUTE]),
        "capability": st.sampled_from([(), (), (), ("es",)]),
        "timeout": st.just(MINUTE),
    },
)
enqueues = st.tuples(st.just("enqueue"), task_fields)
claimings = st.tuples(st.just("claim"), st.integers(1, 4))
others = (
    st.tuples(st.sampled_from(["cancel", "release"]), st.integers(0, 20))
    | st.tuples(st.just("advance"), st.sampled_from([1, MINUTE - 1, MINUTE]))
    | st.tuples(st.just("reload"), st.just(None))
)
begun = st.lists(enqueues, min_size=3, max_size=8)
steps = st.builds(list.__add__, begun, st.lists(enqueues | claimings | claimings | others, max_size=20))


def played(w: World, queues: tuple[str, ...], steps: list[tuple[str, object]]) -> list[object]:
    """Play the steps; return what was seen, without what tells the worlds apart."""
    enqueued: list[Task] = []
    held: list[Task] = []
    seen: list[object] = []
    for verb, what in steps:
        match verb, what:
            case "enqueue", dict(fields):
                enqueued.append(w.enqueue(id=f"t{len(enqueued)}", queue="q", **fields))
            case "claim", int(most):
                w.now += 2 * MINUTE  # past what may have expired, before any deadline is told
                taken = w.claim("a", max=most, queues=queues, capabilities=("es",), lease=60 * MINUTE)
                held += (mine := [task for task in taken if not task.id.startswith("last")])
                for task in taken:
                    if task.id.startswith("last"):
                        w.release(task)
                seen.append([(task.id, task.attempt, task.run_at, task.state) for task in mine])
                w.tick()  # what has expired ends now at the latest, seen by the claim or not
            case "cancel", int(number) if enqueued:
                w.cancel(enqueued[number % len(enqueued)]) if _open(w, enqueued, number) else None
            case "release", int(number) if held:
                task = held.pop(number % len(held))
                if w.get(task).lease == task.lease:
                    w.release(task)
            case "advance", int(duration):
                w.advance(duration)
            case "reload", _:
                w.reload()
        seen.append([(now.id, now.state, now.attempt, now.run_at) for now in map(w.get, enqueued)])
    return seen


def _open(w: World, enqueued: list[Task], number: int) -> bool:
    return not w.get(enqueued[number % len(enqueued)]).state.terminal


@settings(max_examples=150, deadline=None)
@given(steps)
def test_a_claim_from_one_lane_gives_what_a_claim_from_several_does(
    steps: list[tuple[str, object]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "CLAIM_BYTES", 60)
        alone = played(World(), ("q",), steps)
        beside = World()
        for queue in ("y", "z"):  # two, since a claim that finds nothing else must not find one lane
            beside.enqueue(id=f"last-{queue}", queue=queue, priority=LAST)
        patch.setattr(claims, "_take_in_line", None)
        assert alone == played(beside, ("q", "y", "z"), steps)


# Digests, which are stored: files of version 1 hold them as the first spelling made them.

texts = st.binary(max_size=40)
whole = st.none() | st.integers(0, 10**6)
outcomes = st.one_of(
    st.builds(c.Complete, task_id=st.just("t"), token=st.just("1-1"), result=texts, carry=st.none() | texts,
              result_ttl=whole),
    st.builds(c.Fail, task_id=st.just("t"), token=st.just("1-1"), error=texts, retry=st.booleans(),
              retry_after=whole),
    st.builds(c.Snooze, task_id=st.just("t"), token=st.just("1-1"), delay=st.integers(0, 10**6)),
    st.builds(c.CancelHeld, task_id=st.just("t"), token=st.just("1-1"), reason=st.none() | st.text()),
    st.builds(c.Release, task_id=st.just("t"), token=st.just("1-1")),
)  # fmt: skip


def first_spelling(op: c.Op) -> bytes:
    match op:
        case c.Complete(result=result, carry=carry, result_ttl=ttl):
            told = b"complete:%d:" % len(result) + result + b":%s:%s" % (carry or b"", str(ttl).encode())
        case c.Fail(error=error, retry=retry, retry_after=after):
            told = b"fail:%d:%s:" % (retry, str(after).encode()) + error
        case c.Snooze(delay=delay):
            told = b"snooze:%d" % delay
        case c.CancelHeld(reason=reason):
            told = b"cancel:" + (reason or "").encode()
        case _:
            told = b"Release"
    return told if len(told) <= 32 else blake2b(told, digest_size=16).digest()


@given(outcomes)
def test_outcomes_have_the_digests_that_they_have_always_had(op: c.Op) -> None:
    assert outcome_digest(op) == first_spelling(op)
