"""What mypy --strict and pyright (strict) see of the installed wheel in a user's project.

Both are given the same two modules: `user_project.py` beside this file and the cases of `tests/typing`.
What is an error to one must be an error to the other, on the same lines and on no others.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment, run
from tests.packaging.interpreters import RUNNING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
MODULES = (HERE / "user_project.py", HERE.parent / "typing" / "cases.py")
OF_MYPY = re.compile(r"^([\w.]+):(\d+): (error|note): (.*?)(?:  \[[a-z-]+\])?$")

Lines = dict[tuple[str, int], str]


@pytest.fixture(scope="module")
def project(
    installed: Callable[[str], Environment], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Environment]:
    """Lay a user's project, outside this tree, and give it with the environment that it uses."""
    folder = tmp_path_factory.mktemp("project")
    for module in MODULES:
        shutil.copy(module, folder)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    return folder, installed(RUNNING)


def expected(mark: str) -> Lines:
    """Return what stands behind a mark at the ends of lines, by module and line."""
    return {
        (module.name, number): line.partition(mark)[2].strip()
        for module in MODULES
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if mark in line
    }


def mypy(folder: Path, environment: Environment) -> tuple[Lines, Lines]:
    """Return the errors and the revealed types that mypy tells."""
    command = ("mypy", "--strict", "--no-error-summary", "--python-executable", environment.python)
    names = [module.name for module in MODULES]
    told = run(sys.executable, "-m", *command, *names, cwd=folder, may_fail=True)
    errors: Lines = {}
    revealed: Lines = {}
    for line in told.splitlines():
        if (found := OF_MYPY.match(line)) is None:
            continue
        place = (found[1], int(found[2]))
        if found[3] == "error":
            errors[place] = f"{errors.get(place, '')}{found[4]}\n"
        elif found[4].startswith("Revealed type is"):
            revealed[place] = found[4].removeprefix('Revealed type is "').removesuffix('"')
    return errors, revealed


def pyright(folder: Path, environment: Environment) -> tuple[Lines, Lines]:
    """Return the errors and the revealed types that pyright tells."""
    command = (sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", environment.python)
    report = json.loads(run(*command, cwd=folder, may_fail=True, PYRIGHT_PYTHON_IGNORE_WARNINGS="1"))
    errors: Lines = {}
    revealed: Lines = {}
    for told in report["generalDiagnostics"]:
        place = (Path(told["file"]).name, told["range"]["start"]["line"] + 1)
        if told["severity"] == "information":
            revealed[place] = re.sub(r'^Type of ".*" is "(.*)"$', r"\1", told["message"], flags=re.DOTALL)
        else:
            errors[place] = f"{errors.get(place, '')}{told['message']}\n"
    return errors, revealed


def plain(shown: str) -> str:
    """Return a type without the modules of its names, which the checkers show or do not."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", shown).replace("builtins.", "").replace("def ", "")


def test_mypy_sees_the_types_and_the_mistakes(project: tuple[Path, Environment]) -> None:
    errors, revealed = mypy(*project)
    wanted = expected("  # E: ")
    missed = {place: text for place, text in wanted.items() if text not in errors.get(place, "")}
    surplus = {place: text for place, text in errors.items() if place not in wanted}
    assert (missed, surplus) == ({}, {})
    types = {place: text.partition("||")[0].strip() for place, text in expected("  # R: ").items()}
    assert {place: plain(text) for place, text in revealed.items()} == types


def test_pyright_sees_the_types_and_the_mistakes(project: tuple[Path, Environment]) -> None:
    errors, revealed = pyright(*project)
    wanted = set(expected("  # E: "))
    assert ({*wanted} - {*errors}, {at: errors[at] for at in {*errors} - wanted}) == (set(), {})
    types = {place: text.rpartition("||")[2].strip() for place, text in expected("  # R: ").items()}
    assert {place: plain(text) for place, text in revealed.items()} == types


def test_no_type_of_the_package_is_unknown_to_pyright(
    installed: Callable[..., Environment], tmp_path: Path
) -> None:
    folder, environment = tmp_path, installed(RUNNING, "[all]")
    command = ("pyright", "--verifytypes", "lineshaft", "--ignoreexternal", "--outputjson")
    path = f"{environment.folder / 'bin'}:/usr/bin:/bin"  # it asks the `python` that it finds there
    report = json.loads(run(sys.executable, "-m", *command, cwd=folder, may_fail=True, PATH=path))
    complete = report["typeCompleteness"]
    assert Path(complete["pyTypedPath"]) == environment.packages / "lineshaft" / "py.typed"
    counts = complete["exportedSymbolCounts"]
    assert counts["withKnownType"] > 1000
    assert (counts["withUnknownType"], complete["otherSymbolCounts"]["withUnknownType"]) == (0, 0)
