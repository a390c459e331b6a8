"""Shards are spread evenly, and move only where they must."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lineshaft.engine.cluster.placement import NOBODY, place

IDS = st.binary(min_size=4, max_size=4)
MEMBERS = st.lists(IDS, min_size=1, max_size=8, unique=True)


@st.composite
def holdings(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Members, and whoever (a stranger, nobody) has each shard."""
    members = draw(MEMBERS)
    holder = st.sampled_from([*members, NOBODY]) | IDS
    return members, draw(st.lists(holder, min_size=1, max_size=32))


@given(holdings())
def test_every_shard_has_a_member_and_nobody_two_more_than_another(
    given: tuple[list[bytes], list[bytes]],
) -> None:
    members, holders = given
    placed = place(members, holders)
    assert set(placed) <= set(members)
    loads = Counter(dict.fromkeys(members, 0))
    loads.update(placed)
    assert max(loads.values()) - min(loads.values()) <= 1


@given(holdings())
def test_no_shard_moves_that_need_not(given: tuple[list[bytes], list[bytes]]) -> None:
    members, holders = given
    placed = place(members, holders)
    moved = sum(before in members and before != after for before, after in zip(holders, placed, strict=True))
    share, rest = divmod(len(holders), len(members))
    loads = sorted((Counter(h for h in holders if h in members)[m] for m in members), reverse=True)
    least = sum(max(0, load - share - (n < rest)) for n, load in enumerate(loads))
    assert moved == least
    assert place(members, placed) == placed


@given(holdings())
def test_everybody_computes_the_same(given: tuple[list[bytes], list[bytes]]) -> None:
    members, holders = given
    assert place(members, holders) == place(list(reversed(members)), holders)


@given(MEMBERS, IDS, st.integers(1, 32))
def test_who_joins_takes_its_share_and_who_leaves_leaves_the_rest_alone(
    members: list[bytes], newcomer: bytes, shards: int
) -> None:
    before = place(members, [NOBODY] * shards)
    if newcomer in members:
        return
    with_it = place([*members, newcomer], before)
    changed = [n for n in range(shards) if before[n] != with_it[n]]
    assert all(with_it[n] == newcomer for n in changed)
    assert len(changed) in (shards // (len(members) + 1), shards // (len(members) + 1) + 1)
    without = place(members, with_it)
    assert all(without[n] == with_it[n] for n in range(shards) if with_it[n] != newcomer)


def test_without_members_nobody_has_anything() -> None:
    assert place([], [b"a", NOBODY]) == (NOBODY, NOBODY)
