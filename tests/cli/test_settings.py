"""Where a value comes from: command line, environment, TOML, default, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineshaft.cli.exits import ExitCode
from tests.cli.runs import Ended, run_here, said


def tried_url(ended: Ended) -> str:
    """Return the address that a command could not reach, which tells what it was set to."""
    assert ended.code == ExitCode.UNREACHABLE, ended.err
    return ended.err.partition("coordinator at ")[2].partition(" ")[0]


def test_the_command_line_wins_over_environment_and_file(tmp_path: Path) -> None:
    (tmp_path / "lineshaft.toml").write_text('url = "http://127.0.0.1:3"\n')
    listing = ("tasks", "list")
    assert tried_url(run_here(*listing, "--url", "http://127.0.0.1:1", cwd=tmp_path)) == "http://127.0.0.1:1"
    assert tried_url(run_here(*listing, url="http://127.0.0.1:2", cwd=tmp_path)) == "http://127.0.0.1:2"
    assert tried_url(run_here(*listing, url="", cwd=tmp_path)) == "http://127.0.0.1:3"


def test_pyproject_and_a_named_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.lineshaft]\nurl = "http://127.0.0.1:4"\n')
    named = tmp_path / "other.toml"
    named.write_text('[tasks.list]\nurl = "http://127.0.0.1:5"\n')
    assert tried_url(run_here("tasks", "list", url="", cwd=tmp_path)) == "http://127.0.0.1:4"
    assert (
        tried_url(run_here("tasks", "list", "--config", str(named), url="", cwd=tmp_path))
        == "http://127.0.0.1:5"
    )
    through_environment = run_here("tasks", "list", url="", cwd=tmp_path, LINESHAFT_CONFIG=str(named))
    assert tried_url(through_environment) == "http://127.0.0.1:5"


def test_a_table_is_for_its_command_alone(tmp_path: Path) -> None:
    (tmp_path / "lineshaft.toml").write_text('[worker]\nqueues = {mail = "many"}\n')
    assert "expected NAME=N" in said(run_here("worker", "a:b", cwd=tmp_path).err)
    assert run_here("tasks", "list", cwd=tmp_path).code == ExitCode.UNREACHABLE


def test_lists_numbers_and_flags_arrive_as_options(tmp_path: Path) -> None:
    (tmp_path / "lineshaft.toml").write_text(
        '[worker]\nqueues = ["mail", "default"]\nconcurrency = 20000\npush = false\n'
    )
    assert "--concurrency" in said(run_here("worker", "a:b", cwd=tmp_path).err)


def test_names_in_the_file_are_those_of_the_options(tmp_path: Path) -> None:
    (tmp_path / "lineshaft.toml").write_text(
        '[worker]\nexec = "no-such-program"\nid = "w"\nlog-level = "info"\n'
    )
    ended = run_here("worker", cwd=tmp_path)
    assert "there is no program 'no-such-program' here" in said(ended.err)
    (tmp_path / "lineshaft.toml").write_text('program = "cat"\n')
    assert "`program` is not a setting" in said(run_here("worker", cwd=tmp_path).err)


MISTAKES = [
    ("urll = 1\n", "`urll` is not a setting of this version; did you mean `url`?"),
    (
        '[serve]\nstor = "x"\n',
        "[serve] has `stor`, which is not a setting of this version; did you mean `store`?",
    ),
    ('[tasks.lst]\nurl = "x"\n', "did you mean `list`?"),
    ("[nonsense]\n", "`nonsense` is not a setting of this version"),
    ("= 1\n", "lineshaft.toml is not TOML"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_in_the_file_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "lineshaft.toml").write_text(text)
    ended = run_here("tasks", "list", cwd=tmp_path)
    assert message in said(ended.err)
    assert ended.code == ExitCode.USAGE


def test_the_pyproject_of_another_tool_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("this is not TOML")
    assert run_here("tasks", "list", cwd=tmp_path).code == ExitCode.UNREACHABLE
