"""Whether an output is the one that a document shows: the same but for what is another each time.

In JSON every field must be there and none besides; instants, positions, tokens and the like must only be of
the same kind. In a text ids, instants, spans of time, digests and the width of columns may differ,
and `…` stands for anything on its line, or alone on it for any lines.
"""

from __future__ import annotations

import json
import re
from typing import Any

_VARYING = {
    "position", "as_of", "next", "fence", "lease_token", "uptime", "oldest_age", "now", "at", "pid",
    "key", "key_id", "version", "owner", "until",
}  # fmt: skip
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_KINDS = {
    "INSTANT": _INSTANT.pattern,
    "ID": r"\b[0-9a-f]{26}\b",
    "DIGEST": r"\b[0-9a-f]{64}\b",
    "SPAN": r"\b(?:\d+(?:\.\d+)? (?:ms|s|min)(?: ago)?|now)\b",
    "RULE": "─+",
    " ": " +",
}


def values_of(text: str) -> list[Any]:
    """Decode JSON values that stand one after another."""
    decoder = json.JSONDecoder()
    values = []
    at = 0
    while text := text[at:].lstrip():
        value, at = decoder.raw_decode(text)
        values.append(value)
    return values


def differences(shown: Any, given: Any, path: str = "$") -> list[str]:
    """Say where JSON that was given is not as it is shown."""
    if isinstance(shown, dict) and isinstance(given, dict):
        found = [f"{path}.{key} is shown, but not given" for key in shown.keys() - given.keys()]
        found += [f"{path}.{key} is given, but not shown" for key in given.keys() - shown.keys()]
        for key in shown.keys() & given.keys():
            found += _of_field(key, shown[key], given[key], f"{path}.{key}")
        return found
    if isinstance(shown, list) and isinstance(given, list) and len(shown) == len(given):
        pairs = enumerate(zip(shown, given, strict=True))
        return [one for at, (s, g) in pairs for one in differences(s, g, f"{path}[{at}]")]
    if isinstance(shown, str) and isinstance(given, str) and _pattern(shown).fullmatch(given):
        return []
    return [] if shown == given else [f"{path}: {shown!r} is shown, {given!r} is given"]


def is_text_as_shown(shown: str, given: str) -> bool:
    """Tell whether a text fits what is shown of it."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else _pattern(line).pattern + r"\n" for line in _plain(shown).split("\n")
    )
    return re.fullmatch(pattern, _plain(given) + "\n") is not None


def _of_field(name: str, shown: Any, given: Any, path: str) -> list[str]:
    if name in _VARYING or name.endswith("_at"):
        instants = [isinstance(one, str) and bool(_INSTANT.fullmatch(one)) for one in (shown, given)]
        numbers = [isinstance(one, (int, float)) and not isinstance(one, bool) for one in (shown, given)]
        alike = instants[0] == instants[1] and (all(numbers) or type(shown) is type(given))
        return [] if alike else [f"{path}: {shown!r} is shown, {given!r} is given, which is of another kind"]
    return differences(shown, given, path)


def _plain(text: str) -> str:
    """Replace what is another each time by what kind of thing it is."""
    for kind, meant in _KINDS.items():
        text = re.sub(meant, kind, text)
    return "\n".join(line.strip() for line in text.strip("\n").split("\n"))


def _pattern(shown: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in shown.split("…")))
