"""Whatever goes wrong in a command, the reader is told what to do next."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lineshaft
from lineshaft import cli, errors
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.trouble import _GENERAL, _HINTS, Trouble, judge
from lineshaft.errors import LineshaftError, Unavailable
from tests.cli.runs import run_here, said

SOURCES = sorted(Path(inspect.getfile(cli)).parent.rglob("*.py"))


def _every_error() -> list[type[LineshaftError]]:
    for module in pkgutil.walk_packages(lineshaft.__path__, "lineshaft."):
        if "conformance" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind: type[LineshaftError]) -> Iterator[type[LineshaftError]]:
        for child in kind.__subclasses__():
            if child.__module__.startswith("lineshaft."):
                yield child
                yield from below(child)

    return sorted(set(below(LineshaftError)), key=lambda kind: kind.__name__)


EVERY_ERROR = _every_error()


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_has_a_next_step_of_its_own(kind: type[LineshaftError]) -> None:
    error = kind.__new__(kind)
    LineshaftError.__init__(error, "it went wrong")
    if isinstance(error, Trouble):
        return  # says it itself, see below
    verdict = judge(error, url="http://127.0.0.1:7077")
    assert verdict.hint
    retryable = verdict.code is ExitCode.UNAVAILABLE
    abstract = kind is errors.Retryable  # never raised itself
    assert retryable or abstract or kind.type in _HINTS, "a new type of error: say in _HINTS what to do"


def test_every_exit_code_has_a_next_step() -> None:
    assert set(_GENERAL) == set(ExitCode) - {ExitCode.OK}
    for code in _GENERAL:
        assert judge(Trouble("x", code=code)).hint == _GENERAL[code]


def test_a_time_that_the_coordinator_names_is_said() -> None:
    assert judge(Unavailable("busy", retry_after=3.0)).hint == "nothing is lost: repeat the command after 3 s"


def test_every_trouble_that_a_command_raises_says_what_to_do() -> None:
    silent = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", None) == "Trouble"
        and path.name != "trouble.py"
        and not any(keyword.arg == "hint" for keyword in node.keywords)
    ]
    assert silent == []


def test_no_command_leaves_in_any_other_way() -> None:
    """Only errors of ours, those of usage (which name the help), and an exit code at the end of a command."""
    known = {
        "Trouble",
        "Invalid",
        "BadParameter",
        "_unknown",
        "Exit",
        "ValueError",
        "LineshaftError",
        "TypeError",
    }
    raised: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call | ast.Name | ast.Attribute):
                called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                raised.add(getattr(called, "attr", None) or getattr(called, "id", ""))
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("exit", "_exit"):
                raised.add(f"{path.name} calls exit")
    assert raised - known == set()


USAGE = [
    (["nonsense"], "lineshaft -h"),
    (["enqueue"], "lineshaft enqueue -h"),
    (["enqueue", "mail", "{broken"], "lineshaft enqueue -h"),
    (["enqueue", "mail", "text"], """a string needs quotes of its own: '"text"'"""),
    (["enqueue", "mail", "@/no/such/file"], "cannot read /no/such/file"),
    (["enqueue", "mail", "1", "--delay", "soon"], "expected a duration"),
    (["enqueue", "mail", "1", "--run-at", "noon"], "expected an RFC"),
    (["enqueue", "mail", "1", "--resource", "gpu"], "name=value"),
    (["tasks", "list", "--state", "asleep"], "expected one of scheduled"),
    (["tasks", "cancel"], "ids, or a filter such as --queue or --state"),
    (["tasks", "retry", "a", "--queue", "b"], "give ids or a filter"),
    (["tasks", "delete", "a", "--dry-run"], "counts what a filter matches"),
    (["worker"], "give either MODULE:APP, or --exec with a program"),
    (["worker", "nocolon"], "name a module and its App, such as `jobs:app`"),
    (["worker", "--exec", "no-such-program"], "name one that is on PATH, or its whole path"),
    (["worker", "--exec", ""], "such as --exec 'wc -w'"),
    (["worker", "a:b", "--queues", "mail=many"], "such as mail=10"),
    (["worker", "a:b", "--name", "mail"], "are chosen by --queues"),
    (["keys", "create", "ci", "--scope", "all"], "is none of enqueue, work, read, admin"),
    (["keys", "list", "--store", "memory://"], "name a store that lasts"),
    (["serve", "--store", "mysql://x"], "sqlite:///relative.db"),
    (["serve", "--store", "memory://", "--listen", "here"], "HOST:PORT"),
    (["serve", "--store", "memory://", "--listen", "0.0.0.0:0"], "or say --insecure"),
    (["serve", "--store", "sqlite:////proc/x/y.db"], "name another place with --store"),
    (["tasks", "list"], "start one with `lineshaft serve`"),
    (["version", "--config", "/no/such.toml"], "name a file that can be read"),
    (["top", "--interval", "often"], "expected a duration"),
    (["demo", "/no/such/directory"], "no such file"),
]


@pytest.mark.parametrize(("arguments", "step"), USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_the_next_step_is_on_the_screen(arguments: list[str], step: str, tmp_path: Path) -> None:
    ended = run_here(*arguments, cwd=tmp_path)
    assert ended.code not in (ExitCode.OK, ExitCode.FAILED)
    assert step in said(ended.err), ended.err
    assert ended.out == ""


def test_a_settings_file_is_told_what_it_could_say(tmp_path: Path) -> None:
    (tmp_path / "lineshaft.toml").write_text("ulr = 'http://127.0.0.1:9'\n")
    assert "did you mean `url`?" in said(run_here("top", cwd=tmp_path).err)
    (tmp_path / "lineshaft.toml").write_text("url = \n")
    assert "mend it, or name another" in said(run_here("top", cwd=tmp_path).err)
