"""No mutant survives, and a trial tells a catch from everything else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mutants.heart import MUTANTS
from tests.mutants.mutant import Edit, Mutant
from tests.mutants.trial import Verdict, Workshop

pytestmark = pytest.mark.slow

HEARTBEAT = "core/test_leases.py::test_a_heartbeat_extends_the_lease"


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop() as workshop:
        yield workshop


@pytest.mark.timeout(300)
def test_without_a_mutant_those_tests_pass(workshop: Workshop) -> None:
    tests = dict.fromkeys(f"tests/{test}" for mutant in MUTANTS for test in mutant.caught_by)
    trial = workshop.run(None, list(tests))
    assert trial.verdict is Verdict.SURVIVED, trial


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_caught(workshop: Workshop, mutant: Mutant) -> None:
    trial = workshop.run(mutant)
    assert trial.verdict is Verdict.CAUGHT, (
        f"{mutant.breaks}: {trial.verdict.value}\n{trial.test} {trial.told}"
    )


def broken(edit: Edit, test: str) -> Mutant:
    return Mutant("broken", "something", (edit,), (test,))


def test_a_mutant_that_nobody_looks_at_survives(workshop: Workshop) -> None:
    mutant = broken(Edit("core/lanes.py", "task.spec.priority", "0"), HEARTBEAT)
    assert workshop.run(mutant).verdict is Verdict.SURVIVED


def test_code_that_breaks_down_is_no_catch(workshop: Workshop) -> None:
    renewed = Edit("core/outcomes.py:_heartbeat", "memory.renew(task)", "memory.renew(task.nothing)")
    asserted = Edit("core/outcomes.py:_heartbeat", "memory.renew(task)", "raise AssertionError")
    for edit in (renewed, asserted):
        assert workshop.run(broken(edit, HEARTBEAT)).verdict is Verdict.CRASHED


def test_code_that_hangs_is_no_catch(workshop: Workshop) -> None:
    edit = Edit("core/outcomes.py:_heartbeat", "memory.renew(task)", "while True: pass")
    trial = workshop.run(broken(edit, HEARTBEAT), [f"tests/{HEARTBEAT}", "--timeout=1"])
    assert trial.verdict is Verdict.CRASHED


def test_code_that_cannot_be_imported_is_no_catch(workshop: Workshop) -> None:
    edit = Edit("core/outcomes.py:report", "def report(", "import nowhere\n\n\ndef report(")
    assert workshop.run(broken(edit, HEARTBEAT)).verdict is Verdict.INVALID


def test_a_test_that_is_not_there_is_no_catch(workshop: Workshop) -> None:
    edit = Edit("core/lanes.py", "task.spec.priority", "0")
    assert workshop.run(broken(edit, f"{HEARTBEAT}_and_more")).verdict is Verdict.INVALID


def test_the_copy_is_whole_again_after_each(workshop: Workshop) -> None:
    edit = Edit("core/outcomes.py:_heartbeat", "memory.renew(task)", "pass")
    assert workshop.run(broken(edit, HEARTBEAT)).verdict is Verdict.CAUGHT
    assert workshop.run(None, [f"tests/{HEARTBEAT}"]).verdict is Verdict.SURVIVED
