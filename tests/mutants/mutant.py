"""One mutant: what it breaks, where, and who must notice."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


class Misfit(Exception):
    """An edit does not fit the code as it is now: the mutant must follow the change of the code."""


@dataclass(frozen=True)
class Edit:
    """Replace `anchor`, which stands exactly once in a file below `src/lineshaft`, by `becomes`.

    Where the file has it more than once, `where` names the function too: `"core/lanes.py:Lane.head"`. So
    anchors can be short, and what moves in its file is found.
    """

    where: str
    anchor: str
    becomes: str

    @property
    def file(self) -> str:
        """Return the file's place below the package."""
        return self.where.partition(":")[0]

    def applied(self, source: str) -> str:
        """Return the mutated source of the file. Raises `Misfit`."""
        name = self.where.partition(":")[2]
        start, end = _extent(source, name, self.where) if name else (0, len(source))
        body = source[start:end]
        found = body.count(self.anchor)
        if found != 1:
            raise Misfit(f"{self.where} has {self.anchor!r} {found} times, not once")
        mutated = source[:start] + body.replace(self.anchor, self.becomes) + source[end:]
        try:
            same = ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source))
        except SyntaxError as error:
            raise Misfit(f"{self.where} mutated is not Python: {error}") from error
        if same:
            raise Misfit(f"{self.where} mutated means the same")
        return mutated


@dataclass(frozen=True)
class Mutant:
    """A broken promise."""

    name: str
    breaks: str
    """What is not true any more, in words."""
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    """The tests that must fail: node ids below `tests/`, the fastest that say it."""

    def apply(self, package: Path) -> list[Path]:
        """Mutate a copy of the package and return the files changed. Raises `Misfit`."""
        changed = []
        for edit in self.edits:
            path = package / edit.file
            if not path.exists():
                raise Misfit(f"there is no {edit.file}")
            path.write_text(edit.applied(path.read_text()))
            changed.append(path)
        return changed


def mutant(name: str, breaks: str, *edits: Edit, caught_by: tuple[str, ...]) -> Mutant:
    """Make a mutant of its edits in order."""
    return Mutant(name, breaks, edits, caught_by)


def _extent(source: str, name: str, where: str) -> tuple[int, int]:
    """Return from where to where (characters) a function or class goes."""
    nodes: list[ast.stmt] = list(ast.parse(source).body)
    found: ast.stmt | None = None
    for part in name.split("."):
        named = [
            node
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == part
        ]
        if len(named) != 1:
            raise Misfit(f"{where} is there {len(named)} times, not once")
        found = named[0]
        nodes = list(named[0].body)
    assert found is not None and found.end_lineno is not None
    lines = source.splitlines(keepends=True)
    return len("".join(lines[: found.lineno - 1])), len("".join(lines[: found.end_lineno]))
