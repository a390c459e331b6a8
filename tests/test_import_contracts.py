"""What the import contracts in pyproject.toml cannot see: names inside a module that may be imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "lineshaft"
PURE = ("core", "values")

# The core uses msgspec's structs; turning them into bytes is the store's and the edge's affair.
CODECS = {"msgspec.json", "msgspec.msgpack", "msgspec.yaml", "msgspec.toml"}
# Instants come in with the command.
CLOCKS = {f"datetime.datetime.{name}" for name in ("now", "today", "utcnow")} | {"datetime.date.today"}
# Identifiers and nonces come in with the command; these draw their own.
CHANCE = {"uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7"}


def test_core_uses_no_codec() -> None:
    assert list(uses(CODECS, "core")) == []


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_take_time_and_chance_from_outside(package: str) -> None:
    assert list(uses(CLOCKS | CHANCE, package)) == []


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_neither_wait_nor_touch_files(package: str) -> None:
    impure = (node for _, node in nodes(package) if waits(node) or touches_files(node))
    assert [ast.unparse(node) for node in impure] == []


def test_an_aliased_name_is_still_found() -> None:
    tree = ast.parse("import msgspec.json as j\nfrom datetime import datetime as dt\nj.decode(b'')\ndt.now()")
    assert {name for name, _ in used_names(tree)} >= {"msgspec.json.decode", "datetime.datetime.now"}


def waits(node: ast.AST) -> bool:
    return isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)


def touches_files(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and dotted(node.func) in {"open", "print", "input"}


def uses(forbidden: set[str], package: str) -> Iterator[str]:
    for path in files(package):
        for name, line in used_names(ast.parse(path.read_text())):
            if any(name == word or name.startswith(word + ".") for word in forbidden):
                yield f"{path.relative_to(SOURCE)}:{line} uses {name}"


def used_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every dotted name in the tree and its line, spelled from the module that it was imported from."""
    origins = dict(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            head, _, rest = dotted(node).partition(".")
            origin = origins.get(head, head)
            yield (f"{origin}.{rest}" if rest else origin), node.lineno


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds a, `import a.b as c` binds a.b.
                yield alias.asname or head_of(alias.name), alias.name if alias.asname else head_of(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def head_of(name: str) -> str:
    return name.partition(".")[0]


def dotted(node: ast.AST) -> str:
    """Spell `a.b.c`; empty where the chain does not begin with a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def nodes(package: str) -> Iterator[tuple[Path, ast.AST]]:
    return ((path, node) for path in files(package) for node in ast.walk(ast.parse(path.read_text())))


def files(package: str) -> list[Path]:
    found = sorted((SOURCE / package).rglob("*.py"))
    assert found, f"no source in {package}: did it move?"
    return found
