"""What a person can do wrong before any coordinator is asked: each mistake, its message and its exit code."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lineshaft.cli.exits import ExitCode
from tests.cli.runs import run, run_here, said

WRONG = [
    (["nonsense"], "No such command 'nonsense'"),
    (["tasks", "list", "--nonsense"], "No such option: --nonsense"),
    (["enqueue"], "Missing argument 'NAME'"),
    (["enqueue", "mail", "{broken"], "not JSON"),
    (["enqueue", "mail", "text"], "a string needs quotes of its own"),
    (["enqueue", "mail", "@/no/such/file"], "cannot read /no/such/file"),
    (["enqueue", "mail", "1", "--resource", "gpu"], "is not of the form name=value"),
    (["enqueue", "mail", "1", "--wait-for", "soon"], "expected a duration"),
    (["enqueue", "mail", "1", "--priority", "high"], "--priority"),
    (["enqueue", "mail", "1", "--delay", "soon"], "'--delay': `delay` cannot be 'soon': expected a duration"),
    (["enqueue", "mail", "1", "--delay", "-1s"], "must not be negative"),
    (["enqueue", "mail", "1", "--run-at", "noon"], "'--run-at': `run_at` cannot be 'noon': expected an RFC"),
    (["enqueue", "x y"], "`name` cannot be 'x y': a name is 1 to 128"),
    (["enqueue", "mail", "1", "--queue", "x y"], "`queue` cannot be 'x y'"),
    (["enqueue", "mail", "1", "--task-id", "_x"], "`task_id` cannot be '_x'"),
    (["tasks", "list", "--state", "asleep"], "'asleep' is no state; expected one of scheduled, waiting"),
    (["tasks", "cancel", "--state", "done"], "'done' is no state"),
    (["tasks", "list", "--limit", "0"], "--limit"),
    (["tasks", "cancel"], "say which tasks to cancel"),
    (["tasks", "retry", "a", "--queue", "b"], "give ids or a filter, not both"),
    (["tasks", "delete", "a", "--dry-run"], "it has no meaning with ids"),
    (["worker"], "give either MODULE:APP, or --exec"),
    (["worker", "a:b", "--exec", "cat"], "give either MODULE:APP, or --exec"),
    (["worker", "a:b", "--name", "mail"], "goes with --exec"),
    (["worker", "a:b", "--queues", "mail=many"], "expected NAME=N"),
    (["worker", "a:b", "--queues", "mail=0"], "must be an integer from 1"),
    (["worker", "a:b", "--grace", "long"], "expected a duration"),
    (["worker", "--exec", "cat", "--processes", "2"], "every task is a process anyway"),
    (["worker", "--exec", "cat", "--log-level", "loud"], "is none of debug, info"),
    (["keys", "create", "ci", "--scope", "everything"], "is none of enqueue, work, read, admin"),
    (["top", "--interval", "often"], "expected a duration"),
    (["demo", "/no/such/directory"], "cannot read the directory /no/such/directory: no such file"),
    (["version", "--config", "/no/such.toml"], "cannot read /no/such.toml"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_mistake_is_told_with_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    ended = run_here(*arguments, cwd=tmp_path)
    assert message in said(ended.err)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")


WRONG_WORK = [
    (["no_such_module:app"], "there is no module `no_such_module`"),
    (["nocolon"], "is not of the form module:app"),
    (["json:app"], "module `json` has no `app`"),
    (["json:dumps"], "not a lineshaft.App"),
    (["--exec", "no-such-program --x"], "there is no program 'no-such-program'"),
    (["--exec", "'unclosed"], "No closing quotation"),
    (["--exec", "cat", "--name", "bad name"], "a name is 1 to 128 of"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG_WORK, ids=[" ".join(words) for words, _ in WRONG_WORK]
)
def test_work_that_cannot_be_found_is_told(arguments: list[str], message: str, tmp_path: Path) -> None:
    ended = run("worker", *arguments, cwd=tmp_path)
    assert message in said(ended.err)
    assert ended.code == ExitCode.USAGE


def test_a_module_that_cannot_be_imported_is_told_with_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import json\n\nnothing_like_this\n")
    ended = run("worker", "broken:app", cwd=tmp_path)
    assert ended.code == ExitCode.USAGE
    assert "importing `broken` failed: NameError: name 'nothing_like_this' is not defined" in said(ended.err)
    assert 'broken.py", line 3' in ended.err


UNREACHABLE = [
    ["tasks", "list"],
    ["tasks", "get", "a", "--wait"],
    ["tasks", "tail"],
    ["enqueue", "mail", "1"],
    ["queues", "pause", "a", "b"],
    ["workers"],
    ["workers", "drain", "w"],
    ["top"],
    ["top", "--once"],
    ["keys", "list"],
    ["bench"],
]


@pytest.mark.parametrize("arguments", UNREACHABLE, ids=" ".join)
def test_where_nobody_answers_the_message_says_what_to_do(arguments: list[str], tmp_path: Path) -> None:
    ended = run_here(*arguments, cwd=tmp_path)
    assert ended.code == ExitCode.UNREACHABLE
    assert "cannot reach a coordinator at http://127.0.0.1:9 (Connection refused)" in ended.err
    assert "start one with `lineshaft serve`" in ended.err
    assert ended.out == ""


def test_with_json_an_error_is_a_document_on_standard_error() -> None:
    ended = run_here("tasks", "list", "--json")
    assert ended.code == ended.error["exit_code"] == ExitCode.UNREACHABLE
    assert ended.error["error"]["type"] == "unreachable"
    assert ended.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["--json", "tasks", "list"], ["--json", "workers"], ["workers", "--json", "list"]],
    ids=" ".join,
)
def test_json_may_be_said_before_the_command(arguments: list[str]) -> None:
    assert run_here(*arguments).error["error"]["type"] == "unreachable"


def test_something_else_that_answers_is_told() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ended = run_here("tasks", "list", url=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert ended.code == ExitCode.UNREACHABLE
    assert "is no coordinator (status 501 without an explanation)" in ended.err


@pytest.mark.parametrize("url", ["not-a-url", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    ended = run_here("tasks", "list", url=url)
    assert ended.code == ExitCode.USAGE
    assert "is not an address of a coordinator" in ended.err


def test_help_tells_every_exit_code() -> None:
    ended = run_here("--help")
    assert ended.code == ExitCode.OK
    for code in ExitCode:
        assert f" {code.value}  " in ended.out


def test_every_command_has_help_and_json() -> None:
    groups = {
        "tasks": ["list", "get", "cancel", "retry", "promote", "delete", "explain", "history", "tail"],
        "queues": ["list", "pause", "resume", "close", "open"],
        "workers": ["list", "drain"],
        "keys": ["create", "list", "revoke"],
    }
    for group, names in groups.items():
        listed = run_here(group, "--help").out
        for name in names:
            assert f" {name} " in listed
    for name in ("serve", "worker", "enqueue", "demo", "bench", "top", "doctor", "version"):
        assert "--json" in run_here(name, "--help").out


def test_the_version_is_told_in_two_ways() -> None:
    assert run_here("--version").out.startswith("lineshaft 0.")
    assert set(run_here("version", "--json").document) == {"lineshaft", "python", "sqlite"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_emitted(shell: str) -> None:
    ended = run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.code == ExitCode.OK
    assert "_LINESHAFT_COMPLETE" in ended.out


def test_completion_is_installed(tmp_path: Path) -> None:
    ended = run(
        "--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert ended.code == ExitCode.OK
    assert "_LINESHAFT_COMPLETE" in (tmp_path / ".bash_completions" / "lineshaft.sh").read_text()


def test_completion_offers_commands_and_states() -> None:
    def completed(line: str) -> list[str]:
        # As the script that `--show-completion zsh` prints asks for it.
        return run(_LINESHAFT_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line).out.split("\n")

    assert any("queues" in word for word in completed("lineshaft que"))
    assert any("running" in word for word in completed("lineshaft tasks list --state ru"))


@pytest.mark.parametrize("option", ["schema=A-b", "shards=0", "synchronous_commit=maybe", "shard=4"])
def test_a_mistake_in_the_url_of_a_store_is_one_of_usage(option: str) -> None:
    ended = run_here("serve", "--store", f"postgresql://somebody@127.0.0.1:1/jobs?{option}")
    assert ended.code == ExitCode.USAGE, ended.err
    assert option.partition("=")[0] in ended.err
