"""Compare answers with what transcripts expect, and capture what later steps use."""

from __future__ import annotations

import json
import re
from typing import Any

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MATCHER = re.compile(
    r"<(any|string|integer|number|instant|token|absent|contains (?P<text>.*?))(?: as (?P<name>\w+))?>"
)
_REPEAT = re.compile(r"\$\{repeat (\S+) (\d+)\}")
_ABSENT = object()


class Mismatch(AssertionError):
    """An answer is not what was expected; the message says where and what."""


def substitute(text: str, variables: dict[str, str]) -> str:
    """Replace `${name}` and `${repeat TEXT N}`."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise Mismatch(f"${{{found[1]}}} was not captured")
        return variables[found[1]]

    text = _REPEAT.sub(lambda found: found[1] * int(found[2]), text)
    return re.sub(r"\$\{(\w+)\}", value, text)


def match(expected: Any, actual: Any, variables: dict[str, str], place: str = "body") -> None:
    """Raise `Mismatch` unless `actual` is as expected; captures into `variables`."""
    if isinstance(expected, str) and (matcher := _MATCHER.fullmatch(expected)) is not None:
        _match_kind(matcher, actual, variables, place)
    elif isinstance(expected, dict):
        _match_object(expected, actual, variables, place)
    elif isinstance(expected, list) and expected[:1] == ["<some>"]:
        _match_some(expected[1:], actual, variables, place)
    elif isinstance(expected, list):
        _require(isinstance(actual, list) and len(actual) == len(expected), expected, actual, place)
        for number, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
            match(wanted, found, variables, f"{place}[{number}]")
    else:
        same = type(expected) is type(actual) or {type(expected), type(actual)} == {int, float}
        _require(same and expected == actual, expected, actual, place)


def _match_object(expected: dict[str, Any], actual: Any, variables: dict[str, str], place: str) -> None:
    _require(isinstance(actual, dict), expected, actual, place)
    for name, wanted in expected.items():
        if name not in actual and wanted != "<absent>":
            raise Mismatch(f"{place}.{name} is missing in {_shown(actual)}")
        match(wanted, actual.get(name, _ABSENT), variables, f"{place}.{name}")


def _match_some(expected: list[Any], actual: Any, variables: dict[str, str], place: str) -> None:
    _require(isinstance(actual, list), expected, actual, place)
    for wanted in expected:
        for found in actual:
            try:
                match(wanted, found, variables, place)
            except Mismatch:
                continue
            break
        else:
            raise Mismatch(f"{place} has no {_shown(wanted)}; it is {_shown(actual)}")


def _match_kind(matcher: re.Match[str], actual: Any, variables: dict[str, str], place: str) -> None:
    kind = matcher[1].split(" ")[0]
    fits = {
        "any": actual is not _ABSENT,
        "absent": actual is _ABSENT,
        "string": isinstance(actual, str),
        "token": isinstance(actual, str) and actual != "",
        "integer": isinstance(actual, int) and not isinstance(actual, bool),
        "number": isinstance(actual, int | float) and not isinstance(actual, bool),
        "instant": isinstance(actual, str) and INSTANT.fullmatch(actual) is not None,
        "contains": isinstance(actual, str) and (matcher["text"] or "") in actual,
    }[kind]
    _require(fits, matcher[0], actual, place)
    if matcher["name"]:
        variables[matcher["name"]] = actual if isinstance(actual, str) else json.dumps(actual)


def _require(condition: bool, expected: Any, actual: Any, place: str) -> None:
    if not condition:
        raise Mismatch(f"{place}: expected {_shown(expected)}, got {_shown(actual)}")


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + "…"
