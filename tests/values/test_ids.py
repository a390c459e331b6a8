from __future__ import annotations

import random
import re

import pytest

from lineshaft.errors import Invalid
from lineshaft.values.ids import TimeOrderedIds, check_name, check_task_id


@pytest.mark.parametrize("text", ["a", "A-1", ".", "..", "a_b", "mail:3/x@y+z=", "-", "x" * 256])
def test_task_ids(text: str) -> None:
    assert check_task_id(text, field="task_id") == text


@pytest.mark.parametrize(
    "text", ["", "_a", "_tasks", "a b", "a%b", "é", "a\n", "a\x00", "x" * 257, "٣", "a?b", "a#b"]
)
def test_what_is_no_task_id(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_task_id(text, field="task_id")
    assert caught.value.field == "task_id"


@pytest.mark.parametrize("text", ["default", "a.b_c-d:e/f", "_x", "9" * 128])
def test_names(text: str) -> None:
    assert check_name(text, field="queue") == text


@pytest.mark.parametrize("text", ["", "a b", "a@b", "a+b", "a=b", "é", "a\n", "9" * 129])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(Invalid):
        check_name(text, field="queue")


def test_ids_rise_also_when_the_clock_stands_or_runs_back() -> None:
    ids = TimeOrderedIds(random.Random(1).getrandbits)
    made = [ids.next(now) for now in (5, 5, 5, 4, 0, 6, 6, 5, 1_700_000_000_000)]
    assert made == sorted(set(made))
    assert all(re.fullmatch("[0-9a-f]{26}", text) and check_task_id(text, field="id") for text in made)
    assert made[-1].startswith(f"{1_700_000_000_000:012x}")


def test_ids_carry_over_into_the_next_millisecond_when_chance_is_used_up() -> None:
    ids = TimeOrderedIds(lambda bits: (1 << 56) - 2)
    assert [ids.next(5), ids.next(5), ids.next(5)] == [
        "000000000005fffffffffffffe",
        "000000000005ffffffffffffff",
        "000000000006fffffffffffffe",
    ]
