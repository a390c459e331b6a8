from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.errors import Malformed
from lineshaft.values.rawjson import check_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b" 1 ",
        b"-0",
        b"1e999",
        b"123456789012345678901234567890",
        b"1E+5",
        b'"\\ud83d\\ude00"',
        b'"\\\\ud800"',
        b'{"a":1,"a":2}',
        '"é\U0001f600"'.encode(),
        b'"\x7f"',
        b'"\\u0000"',
        b"[" * 64 + b"]" * 64,
        b'{"a":' * 64 + b"1" + b"}" * 64,
        b"[]",
        b'"[[[["',
        b'["' + b"[" * 1000 + b'"]',
        b'["\\"' + b"[" * 1000 + b'"]',
        b'["\\\\",' + b"1" + b"]",
        b'"\\ud83d\\ude00\\ud83d\\ude00"',
    ],
)
def test_accepts(raw: bytes) -> None:
    assert check_json(raw, field="payload") is raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"NaN",
        b"-Infinity",
        b"Infinity",
        b"nul",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"0x1",
        b"'a'",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b'{"a"}',
        b"1 2",
        b"//",
        b'"a\nb"',
        b'"\x00"',
        b'"\\x"',
        b'"\\u12"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b"\xef\xbb\xbf1",
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800x"',
        b'"\\ud800\\ud800\\udc00"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d\\ude00\\ude00"',
        b'"\\\\\\ud800"',
        b'{"\\ud800":1}',
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'["\\\\",' + b"[" * 64 + b"]" * 65,
        b"]",
        b'"',
        b"[[1]" * 100,
    ],
)
def test_refuses_naming_the_field(raw: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        check_json(raw, field="payload")
    assert caught.value.field == "payload"


@given(json_values, st.booleans())
def test_accepts_what_json_writes(value: object, escaped: bool) -> None:
    written = json.dumps(value, ensure_ascii=escaped).encode()
    assert check_json(written, max_depth=1_000) is written


@given(st.binary() | st.text(alphabet='[]{}",:\\ud8c0 1eE+-.nulltrue').map(str.encode))
def test_agrees_with_the_standard_library(raw: bytes) -> None:
    """What it accepts json can read, and what json reads strictly it accepts."""
    try:
        check_json(raw)
        accepted = True
    except Malformed:
        accepted = False
    assert accepted == _strictly_readable(raw)


def _strictly_readable(raw: bytes) -> bool:
    def refuse(constant: str) -> object:
        raise ValueError(constant)

    try:
        text = raw.decode()
        # json takes ASCII white space only, as JSON has it
        value = json.loads(text, parse_constant=refuse, parse_int=str)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return not text.startswith("\ufeff")


@given(st.integers(0, 70), st.text(alphabet='[]{}"\\ a', max_size=10))
def test_counts_depth_outside_strings_only(depth: int, text: str) -> None:
    raw = b"[" * depth + json.dumps(text).encode() + b"]" * depth
    if depth <= 64:
        check_json(raw)
    else:
        with pytest.raises(Malformed, match="deeper than 64"):
            check_json(raw)
