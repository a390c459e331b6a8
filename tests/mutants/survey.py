"""Which suites as a whole notice a mutant, each by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.mutants.mutant import Mutant
from tests.mutants.trial import Trial, Verdict, Workshop

_QUICK = ("-m", "not slow and not faults")

SUITES: dict[str, tuple[str, ...]] = {
    "core": ("tests/core", *_QUICK),
    "engine": ("tests/engine", *_QUICK),
    "cluster": ("tests/cluster", *_QUICK),
    "stores": ("tests/store", *_QUICK),
    "simulator": ("tests/simulation/test_simulation.py::test_every_promise_holds",),
    "protocol": ("tests/transcripts", *_QUICK),
    "faults": ("tests/faults/test_kill.py", "tests/faults/test_freeze.py", "--timeout=600"),
}
"""Suite → what pytest is given."""


_REACHED = {
    "core/": {"core", "engine", "simulator", "protocol", "faults"},
    "engine/": {"engine", "cluster", "simulator", "protocol", "faults"},
    "store/memory": {"stores", "engine", "simulator", "protocol"},
    "store/sqlite": {"stores", "faults"},
}
"""Beginning of a file → the suites that run its code; the others cannot notice."""


def survey(workshop: Workshop, mutant: Mutant, suites: Sequence[str], *, seeds: int) -> dict[str, Trial]:
    """Run those of the suites that can notice the mutant, each until its first catch."""
    [reached] = {name for name in _REACHED if any(edit.file.startswith(name) for edit in mutant.edits)}
    return {
        suite: workshop.run(mutant, _arguments(suite, seeds), stop=True)
        for suite in suites
        if suite in _REACHED[reached]
    }


def row(mutant: Mutant, found: Mapping[str, Trial]) -> str:
    """Return the mutant's row of the table: a suite that only crashes on it does not catch it."""
    caught = [suite for suite, trial in found.items() if trial.verdict is Verdict.CAUGHT]
    return f"| `{mutant.name}` | {mutant.breaks} | {', '.join(caught) or '—'} |"


def _arguments(suite: str, seeds: int) -> list[str]:
    arguments = list(SUITES[suite])
    return [*arguments, f"--seeds={seeds}"] if suite == "simulator" else arguments
