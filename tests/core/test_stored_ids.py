"""Ids that cannot be in the store are not looked for; all others are, so that none is enqueued twice."""

from __future__ import annotations

import random

import pytest

from lineshaft.core.stored_ids import AHEAD
from lineshaft.errors import NotFound
from tests.core.world import HOUR, SECOND, World


def made_at(instant: int, number: int = 0) -> str:
    """Return an id as clients make it at an instant."""
    return f"{instant:012x}{number:014x}"


def test_a_new_id_made_by_the_clock_is_not_looked_for(w: World) -> None:
    assert w.enqueue_again(id=made_at(w.now, 1)).created
    assert not w.enqueue_again(id=made_at(w.now, 1)).created
    with pytest.raises(NotFound):
        w.get(made_at(w.now, 2))
    assert w.missing == []


@pytest.mark.parametrize("chosen", ["order-17", "1" * 26, "0" * 25])
def test_an_id_of_another_form_is_looked_for(w: World, chosen: str) -> None:
    assert w.enqueue_again(id=chosen).created
    assert w.missing == [("acme", chosen)]


def test_after_a_load_an_id_from_before_is_looked_for_and_a_later_one_is_not(w: World) -> None:
    old = made_at(w.now, 1)
    w.enqueue(id=old)
    w.complete(w.claim()[0])
    w.reload(down=HOUR)
    assert not w.enqueue_again(id=old).created
    assert w.missing == [("acme", old)]
    assert w.enqueue_again(id=made_at(w.now)).created
    assert w.missing == [("acme", old)]


def test_a_tenant_that_the_load_did_not_show_is_judged_alike(w: World) -> None:
    w.enqueue(id=made_at(w.now, 1))
    w.complete(w.claim()[0])
    w.reload()
    w.tenant = "other"
    w.enqueue(id=made_at(w.now, 2))
    assert w.missing == [("other", made_at(w.now, 2))]


@pytest.mark.parametrize("ahead", [AHEAD, AHEAD + SECOND, 10 * HOUR])
def test_an_id_of_a_fast_clock_is_found_after_a_load(w: World, ahead: int) -> None:
    early = made_at(w.now + ahead, 1)
    w.enqueue(id=early)
    w.complete(w.claim()[0])
    w.reload()
    assert not w.enqueue_again(id=early).created


def test_a_fast_clock_writes_few_records(w: World) -> None:
    for number in range(100):
        w.enqueue(id=made_at(w.now + HOUR + number, number))
    assert [key for key in w.rows.records if key[0] == "ahead"] == [("ahead", "acme", "")]
    before = w.rows.records["ahead", "acme", ""].data
    w.enqueue(id=made_at(w.now + 2 * HOUR))
    after = w.rows.records["ahead", "acme", ""].data
    assert before is not None and after is not None and after > before


def test_an_evicted_task_is_found_again(w: World) -> None:
    evicted, later = made_at(w.now, 1), made_at(w.now, 2)
    w.enqueue(id=evicted)
    w.complete(w.claim()[0])
    w.enqueue(id="other")
    w.complete(w.claim()[0])
    w.enqueue()
    w.missing.clear()
    w.shard.evict(0)
    assert not w.enqueue_again(id=evicted).created
    assert w.enqueue_again(id=later).created
    assert w.missing == [("acme", evicted)]


@pytest.mark.parametrize("seed", range(20))
def test_no_id_is_ever_enqueued_twice(w: World, seed: int) -> None:
    """Clients with clocks of their own, loads, evictions and repetitions, in any order."""
    print("seed", seed)
    chance = random.Random(seed)
    created: list[str] = []
    for number in range(200):
        w.now += chance.randrange(5 * SECOND)
        skew = chance.choice([0, 0, -HOUR, AHEAD, AHEAD + 1, HOUR])
        fresh = made_at(w.now + skew, number)
        assert w.enqueue_again(id=fresh).created
        created.append(fresh)
        if chance.random() < 0.7:
            w.complete(w.claim()[0])
        if chance.random() < 0.1:
            w.shard.evict(chance.randrange(3))
        if chance.random() < 0.05:
            w.reload(down=chance.randrange(20 * SECOND))
        assert not w.enqueue_again(id=chance.choice(created)).created
