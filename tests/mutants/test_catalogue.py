"""Every mutant still fits the code as it is now, and stands in the table of docs/reliability.md."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.forge import ROOT
from tests.mutants.heart import MUTANTS
from tests.mutants.mutant import Edit, Misfit, Mutant
from tests.mutants.survey import SUITES

PACKAGE = ROOT / "src" / "lineshaft"
PAGE = ROOT / "docs" / "reliability.md"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    """Where this fails, the code was changed under a mutant: let its edit in tests/mutants/heart follow.

    The edit must break the same promise as before; `python -m tests.mutants --only NAME` tells whether it
    is caught.
    """
    sources: dict[str, str] = {}
    for edit in mutant.edits:
        source = sources.get(edit.file) or (PACKAGE / edit.file).read_text()
        sources[edit.file] = edit.applied(source)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_catch_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.caught_by
    for test in mutant.caught_by:
        file, *names = test.split("::")
        source = (ROOT / "tests" / file).read_text()
        for name in names[:-1]:
            assert re.search(rf"^class {name}\b", source, re.MULTILINE), test
        if names and "conformance" in file:
            suite = PACKAGE / "store" / "conformance"
            source = "\n".join(path.read_text() for path in suite.glob("*.py"))
        assert not names or re.search(rf"\bdef {names[-1]}\(", source), test


def test_names_are_unique_and_at_least_twelve() -> None:
    names = Counter(mutant.name for mutant in MUTANTS)
    assert max(names.values()) == 1 and len(names) >= 12


def test_the_table_has_every_mutant_and_who_catches_it() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [(name, breaks) for name, breaks, _ in rows] == [(each.name, each.breaks) for each in MUTANTS]
    for (name, _, suites), mutant in zip(rows, MUTANTS, strict=True):
        told = set(suites.split(", "))
        assert told <= set(SUITES), name
        first = mutant.caught_by[0].partition("/")[0]
        assert {"core": "core", "engine": "engine", "cluster": "cluster", "store": "stores"}[first] in told, (
            name
        )


def test_an_edit_that_does_not_fit_is_told() -> None:
    source = "def a():\n    x = 1\n\n\ndef b():\n    x = 1\n"
    assert Edit("f.py:b", "x = 1", "x = 2").applied(source).endswith("def b():\n    x = 2\n")
    for edit, told in (
        (Edit("f.py", "x = 1", "x = 2"), "2 times"),
        (Edit("f.py:c", "x = 1", "x = 2"), "is there 0 times"),
        (Edit("f.py:a", "x = 1", "x == ("), "not Python"),
        (Edit("f.py:a", "x = 1", "x  =  1"), "means the same"),
    ):
        with pytest.raises(Misfit, match=told):
            edit.applied(source)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misfit, match=r"no gone\.py"):
        Mutant("m", "nothing", (Edit("gone.py", "a", "b"),), ()).apply(tmp_path)
