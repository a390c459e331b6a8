"""`module:app`: found, or an error that says where the way ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineshaft.sdk.loading import AppNotFound, load_app

MODULE = """
from lineshaft import App
app = App("http://127.0.0.1:9")
class Holder: inner = app
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "shop_tasks.py").write_text(MODULE)
    (tmp_path / "broken_tasks.py").write_text("import not_installed_anywhere\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("shop_tasks", "broken_tasks"):
        sys.modules.pop(name, None)


def test_an_app_is_found_by_its_name(folder: Path) -> None:
    app = load_app("shop_tasks:app", directory=folder)
    assert load_app("shop_tasks:Holder.inner", directory=folder) is app


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("shop_tasks", "is not of the form module:app"),
        ("shop_tasks:", "is not of the form module:app"),
        ("no_such_module:app", "there is no module `no_such_module`"),
        ("shop_tasks:other", "module `shop_tasks` has no `other`; it has `app`"),
        ("shop_tasks:number", "`shop_tasks:number` is of type int, not a lineshaft.App"),
    ],
)
def test_a_wrong_name_says_where_the_way_ends(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(AppNotFound) as caught:
        load_app(name, directory=folder)
    assert reason in caught.value.reason
    assert caught.value.field == "app"


def test_an_error_inside_the_module_is_its_own(folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_app("broken_tasks:app", directory=folder)
