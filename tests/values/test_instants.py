from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.errors import Invalid
from lineshaft.values.instants import MAX_INSTANT, format_instant, parse_instant


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02t03:04:05.6z", "2026-01-02T03:04:05.600Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000Z"),
        ("2026-01-02T03:04:05-00:30", "2026-01-02T03:34:05.000Z"),
        ("2026-01-02T03:04:05.6780000Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05.6780001Z", "2026-01-02T03:04:05.679Z"),
        ("2026-12-31T23:59:59.999001Z", "2027-01-01T00:00:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000Z"),
    ],
)
def test_reads_rfc_3339_and_rounds_up(spelled: str, expected: str) -> None:
    assert format_instant(parse_instant(spelled, field="run_at")) == expected


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "now",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04Z",
        "2026-1-2T03:04:05Z",
        "2025-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+01:60",
        "2026-01-01T00:00:00.Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.9999Z",
        "9999-12-31T23:59:59-23:59",
        "２026-01-02T03:04:05Z",
        "2026-01-02T03:04:05Z\n",
        "-2026-01-02T03:04:05Z",
        1767323045,
        None,
    ],
)
def test_refuses_everything_else(spelled: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_instant(spelled, field="run_at")
    assert caught.value.field == "run_at"


@given(st.integers(0, MAX_INSTANT))
def test_what_is_printed_reads_back(instant: int) -> None:
    assert parse_instant(format_instant(instant), field="at") == instant
