"""A failing seed shrinks to a story that one can read, of the same broken promise.

The faults of the heart are planted: its rule is taken away, and the simulator must find that, and say how.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lineshaft.core import claims, outcomes
from lineshaft.core.task import Task
from lineshaft.engine.changes import Changes
from lineshaft.store import memory as memory_store
from tests.simulation.draw import draw
from tests.simulation.shrink import attempt
from tests.simulation.story import story_of

LINES = 20
Plant = Callable[[pytest.MonkeyPatch], None]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """The store believes everybody who says that the shard is his."""
    patch.setattr(memory_store._ShardData, "is_owned_by", lambda self, ownership: True)


def no_wake_up(patch: pytest.MonkeyPatch) -> None:
    """A task that comes wakes nobody."""
    patch.setattr(claims, "match", lambda memory: memory.ready_lanes.clear() or memory.freed_workers.clear())


def deaf_followers(patch: pytest.MonkeyPatch) -> None:
    """Who follows the feed is not told of what another owner has changed before a load."""
    patch.setattr(Changes, "tell", lambda self, batch: None)


def attempts_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A task may begin as often as it likes."""
    begin = claims.begin

    def begin_for_nothing(memory: object, tenant: object, task: Task) -> None:
        begin(memory, tenant, task)  # type: ignore[arg-type]
        assert task.run is not None
        task.run.attempt = 0

    patch.setattr(claims, "begin", begin_for_nothing)
    patch.setattr(outcomes, "begin", begin_for_nothing, raising=False)


PLANTED: list[tuple[Plant, str]] = [
    (no_fence, "[20]"),
    (no_wake_up, "[23] lost wake-up: claim"),
    (deaf_followers, "[23] lost wake-up: the"),
    (attempts_not_counted, "[16]"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant, promise", PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_fault_is_found_and_told_in_a_few_lines(
    plant: Plant, promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    seed = next(seed for seed in range(50) if (found := attempt(draw(seed))) and found.reason == promise)
    shrunk = story_of(draw(seed), seconds=120)
    assert shrunk is not None
    shrinker, story = shrunk
    assert shrinker.failure.reason == promise
    assert len(story) <= LINES, "\n".join(story)
    assert f"broken: {promise}" in story[-1]
    again = attempt(shrinker.plan)
    assert again is not None
    assert again.reason == promise


def test_what_keeps_its_promises_has_no_story() -> None:
    assert story_of(draw(3)) is None
