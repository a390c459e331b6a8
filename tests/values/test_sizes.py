from __future__ import annotations

import pytest

from lineshaft.errors import Invalid
from lineshaft.values.sizes import parse_amount


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("24GiB", 24 << 30),
        ("500MB", 500_000_000),
        ("1 KiB", 1024),
        ("1kB", 1000),
        ("1KB", 1000),
        ("12", 12),
        ("12B", 12),
        (12, 12),
        (0, 0),
        ("1.5GiB", 3 << 29),
    ],
)
def test_reads_sizes(spelled: str | int, expected: int) -> None:
    assert parse_amount(spelled, field="memory") == expected


@pytest.mark.parametrize(
    "spelled",
    ["", "GiB", "24 gib", "-1", "-1MB", "1e9", "24GiBs", "٣MB", "9999PiB"],
)
def test_refuses_other_sizes(spelled: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_amount(spelled, field="memory")
    assert caught.value.field == "memory"


def test_an_amount_may_be_any_number_or_a_size() -> None:
    assert [parse_amount(value, field="gpu") for value in (1, 0.5, "24GiB")] == [1.0, 0.5, float(24 << 30)]


@pytest.mark.parametrize(
    "amount", [-1, -0.5, 1 << 63, float("nan"), float("inf"), True, None, "much", 10**400]
)
def test_refuses_other_amounts(amount: object) -> None:
    with pytest.raises(Invalid):
        parse_amount(amount, field="gpu")  # type: ignore[arg-type]
