"""Read transcripts into steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass
class Send:
    """A request; `background` names it where its answer is taken later."""

    line: int
    method: str
    path: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""
    raw: bool = False
    background: str | None = None


@dataclass
class Expect:
    """What an answer must be."""

    line: int
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""
    contains: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    empty: bool = False
    background: str | None = None


@dataclass
class Socket:
    """Something to do with a WebSocket: open, send, receive or close."""

    line: int
    verb: str
    name: str
    argument: str = ""


Step = Send | Expect | Socket


def transcripts(names: list[str] | None = None) -> list[Path]:
    """Return the files of the transcripts, all or those named."""
    if names:
        return [HERE / f"{name.removesuffix('.txt')}.txt" for name in names]
    return sorted(HERE.glob("*.txt"))


def parse(path: Path) -> list[Step]:
    """Read one transcript."""
    steps: list[Step] = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.startswith("#"):
            continue
        step = _beginning(number, text)
        if step is not None:
            steps.append(step)
        elif text.strip():
            if not steps or isinstance(steps[-1], Socket):
                raise ValueError(f"{path.name}:{number}: what does this line belong to? {text!r}")
            _continue(steps[-1], text)
        elif steps and isinstance(steps[-1], Send) and steps[-1].body:
            steps[-1].body += "\n"
    return steps


def _beginning(number: int, text: str) -> Step | None:
    mark, _, rest = text.partition(" ")
    if mark == ">":
        method, path = rest.split(" ", 1)
        return Send(number, method, path)
    if mark == "&":
        name, method, path = rest.split(" ", 2)
        return Send(number, method, path, background=name)
    if mark == "<":
        return Expect(number, int(rest))
    if mark == "<&":
        name, status = rest.split()
        return Expect(number, int(status), background=name)
    if mark == "!":
        verb, name, *argument = rest.split(" ", 2)
        return Socket(number, verb, name, argument[0] if argument else "")
    return None


def _continue(step: Send | Expect, text: str) -> None:
    header = _header(text)
    if header is not None and not step.body:
        step.headers.append(header)
    elif isinstance(step, Send):
        if text.startswith("raw "):
            step.raw = True
            text = text[4:]
        step.body += ("\n" if step.body else "") + text
    else:
        _continue_expectation(step, text)


def _continue_expectation(step: Expect, text: str) -> None:
    mark, _, rest = text.partition(" ")
    if text == "empty":
        step.empty = True
    elif mark in ("contains", "lacks", "streams"):
        getattr(step, mark).append(rest)
    else:
        step.body += text + "\n"


def _header(text: str) -> tuple[str, str] | None:
    name, colon, value = text.partition(":")
    if not colon or not name or not all(letter.isalnum() or letter == "-" for letter in name):
        return None
    return (name, value.strip()) if name[0].isupper() else None
