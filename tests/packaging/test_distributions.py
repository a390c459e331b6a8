"""The archives: what is in them, and that the sdist is enough to make the wheel again."""

from __future__ import annotations

import email
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from lineshaft import __version__
from tests.docs.desk import ROOT
from tests.packaging.conftest import Distributions

pytestmark = pytest.mark.slow


def test_the_wheel_holds_the_package_with_its_types_and_licence(
    distributions: Distributions,
) -> None:
    inside = _contents(distributions.wheel)
    metadata = f"lineshaft-{__version__}.dist-info"
    assert "lineshaft/py.typed" in inside
    assert inside[f"{metadata}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert {name.partition("/")[0] for name in inside} == {"lineshaft", metadata}


def test_the_wheel_holds_every_module_and_no_test(distributions: Distributions) -> None:
    modules = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "lineshaft").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = {name for name in _contents(distributions.wheel) if name.startswith("lineshaft/")}
    assert inside == modules
    assert [name for name in inside if "test_" in name or name.endswith(".pyc")] == []


def test_the_wheel_says_what_the_project_says(distributions: Distributions) -> None:
    inside = _contents(distributions.wheel)
    told = email.message_from_bytes(inside[f"lineshaft-{__version__}.dist-info/METADATA"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert told["Name"] == "lineshaft"
    assert told["Version"] == __version__ == project["version"]
    assert told["Requires-Python"] == project["requires-python"]
    assert told["License-Expression"] == project["license"]
    assert sorted(told.get_all("Classifier") or ()) == sorted(project["classifiers"])
    plain = [need for need in told.get_all("Requires-Dist") or () if "extra ==" not in need]
    assert sorted(plain) == sorted(project["dependencies"])
    assert (
        b"lineshaft = lineshaft.cli.main:main"
        in inside[f"lineshaft-{__version__}.dist-info/entry_points.txt"]
    )


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_tree(distributions: Distributions) -> None:
    assert distributions.wheel_of_sdist.name == distributions.wheel.name
    assert _contents(distributions.wheel_of_sdist) == _contents(distributions.wheel)


def test_the_sdist_holds_what_its_tests_need_and_nothing_of_a_machine(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    needed = (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "Makefile",
        "requirements/dev.txt",
        "tools/environment.sh",
    )
    assert [name for name in needed if not any(one.startswith(name) for one in inside)] == []
    for folder in ("tests", "docs", "examples", "bench"):
        assert any(name.startswith(f"{folder}/") for name in inside), folder
    assert [name for name in inside if name.endswith((".pyc", ".db", ".lock", ".log"))] == []
    assert {name.partition("/")[0] for name in inside}.isdisjoint({".venv", ".git", ".hypothesis", "dist"})


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
