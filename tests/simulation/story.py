"""A failing run, shrunk and told: who did what when, and the broken promise last."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.simulation.plan import Plan
from tests.simulation.shrink import Failure, Shrinker, attempt
from tests.simulation.words import Event


def story_of(plan: Plan, *, seconds: float = 60.0) -> tuple[Shrinker, list[str]] | None:
    """Shrink a plan for up to so many seconds and tell what is left; None where it keeps its promises."""
    failure = attempt(plan)
    if failure is None:
        return None
    shrinker = Shrinker(plan, failure, seconds=seconds)
    shrinker.shrink()
    return shrinker, list(tell(shrinker.failure))


def tell(failure: Failure) -> Iterator[str]:
    """Tell what led to a failure, as far as it has to do with it."""
    concerned = _concerned(failure)
    before: Event | None = None
    for event in failure.events:
        if event.at > failure.at or event.who == "judge:":
            continue
        if not event.telling or (event.about and concerned and not event.about & concerned):
            continue
        if before is not None and (before.who, before.what) == (event.who, event.what):
            continue  # a repetition with the same answer
        before = event
        yield event.line
    yield f"{failure.at:9.3f} s  broken: {failure.told.split(';')[0]}"


def _concerned(failure: Failure) -> frozenset[str]:
    """Return the tasks that the failure names; all where it names none."""
    known = {id for event in failure.events for id in event.about}
    words = set(re.findall(r"[\w\-./:+=]+", failure.told.split(";")[0]))
    words |= {
        word.split("@")[0].rstrip(":") for word in re.findall(r"[^\s',()]+", failure.told.split(";")[0])
    }
    return frozenset(known & words)
