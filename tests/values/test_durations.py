from __future__ import annotations

import pytest

from lineshaft.errors import Invalid
from lineshaft.values.durations import MAX_DURATION, parse_duration, seconds


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
        ("1.5s", 1_500),
        ("0.25h", 900_000),
        ("0", 0),
        ("0s", 0),
        ("30", 30_000),
        (30, 30_000),
        (0, 0),
        (1.1, 1_100),
        (0.0001, 1),
        ("0.1ms", 1),
        (2.5, 2_500),
        (0.0, 0),
        (-0.0, 0),
        (1e-320, 1),
        ("36500d", MAX_DURATION),
    ],
)
def test_reads_strings_and_numbers_of_seconds(spelled: str | int | float, expected: int) -> None:
    assert parse_duration(spelled, field="lease") == expected


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        " 30s",
        "30s ",
        "30 s",
        "30S",
        "30sec",
        "1w",
        "s",
        ".5s",
        "5.s",
        "1e3",
        "1e3s",
        "+5s",
        "٣s",
        "１s",
        "30s\n",
        "1h30m",
        "NaN",
        "inf",
        "0x10",
        "1_000s",
        "999999999999999d",
        "36501d",
        True,
        False,
        None,
        [],
        {},
        float("nan"),
        float("inf"),
        float("-inf"),
        10**400,
        1e300,
    ],
)
def test_refuses_other_spellings_naming_the_field(spelled: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_duration(spelled, field="lease")  # type: ignore[arg-type]
    assert caught.value.field == "lease"


@pytest.mark.parametrize("spelled", ["-1s", "-30", -1, -0.001, -(10**400)])
def test_refuses_negative_durations_and_says_so(spelled: str | int | float) -> None:
    with pytest.raises(Invalid, match="negative"):
        parse_duration(spelled, field="delay")


def test_prints_whole_seconds_as_int_and_others_as_float() -> None:
    assert [repr(seconds(ms)) for ms in (0, 30_000, 250, 1_001)] == ["0", "30", "0.25", "1.001"]
