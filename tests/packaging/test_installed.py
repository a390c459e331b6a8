"""The wheel alone, on every Python that it says it runs on: one task from one end to the other."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lineshaft import __version__
from tests.docs.desk import ROOT, Desk
from tests.packaging.conftest import Environment, run, uv
from tests.packaging.interpreters import versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Elsewhere(Desk):
    """A desk whose commands are those of another environment, where a warning is an error."""

    def __init__(self, folder: Path, environment: Environment) -> None:
        super().__init__(folder)
        self._bin = str(environment.folder / "bin")

    @property
    def environment(self) -> dict[str, str]:
        kept = super().environment
        kept = {name: value for name, value in kept.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return kept | {"PATH": os.pathsep.join([self._bin, os.defpath]), "PYTHONWARNINGS": "error"}


@pytest.fixture(params=versions())
def environment(request: pytest.FixtureRequest, installed: Callable[[str], Environment]) -> Environment:
    """Give an environment of each version in turn."""
    return installed(request.param)


def test_the_package_promises_the_versions_that_are_tried() -> None:
    assert versions() == ["3.11", "3.12", "3.13", "3.14"]


def test_it_imports_without_a_warning(environment: Environment) -> None:
    every_name = "import lineshaft; [getattr(lineshaft, name) for name in lineshaft.__all__]"
    shown = f"{every_name}; print(lineshaft.__file__)"
    at = Path(run(environment.python, "-W", "error", "-c", shown, cwd=environment.folder).strip())
    assert at == environment.packages / "lineshaft" / "__init__.py"


def test_what_it_needs_is_installed_with_it_and_fits(environment: Environment) -> None:
    uv("pip", "check", "--quiet", "--python", environment.python)
    listed = json.loads(uv("pip", "list", "--format", "json", "--python", environment.python))
    names = {package["name"] for package in listed}
    assert names.isdisjoint({"pytest", "hypothesis", "mypy", "ruff", "pip"})


def test_a_task_goes_from_one_end_to_the_other(environment: Environment, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "first_task.py", tmp_path)
    with Elsewhere(tmp_path, environment) as desk:
        assert desk.run("lineshaft", "--version") == f"lineshaft {__version__}\n"
        desk.serve("lineshaft serve")  # the store as it is without a word: SQLite, durable
        worker = desk.start("lineshaft worker first_task:app")
        assert desk.run("python", "first_task.py") == "invoice 3 is on its way\n"
        sent = desk.run(
            "lineshaft",
            "enqueue",
            "send_invoice",
            '{"invoice_id": 4}',
            "--queue",
            "mail",
            "--wait-for",
            "60s",
        )
        assert "invoice 4 is on its way" in sent
        counted = json.loads(desk.run("lineshaft", "queues", "list", "--json"))
        assert counted["queues"][0]["queue"] == "mail"
        told = desk.output_of(worker)
        assert re.search(r"Traceback|Warning", told) is None, told
