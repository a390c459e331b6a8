"""Tasks, queues and workers from the command line, against a real coordinator."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.processes import free_port
from tests.cli.conftest import Process
from tests.cli.runs import Ended, command, environment, run, run_here, said

Lineshaft = Callable[..., Ended]
Start = Callable[..., Process]


def test_an_id_names_one_task(lineshaft: Lineshaft) -> None:
    first = lineshaft("enqueue", "mail", '{"to": 1}', "--task-id", "inv-3")
    again = lineshaft("enqueue", "mail", '{"to": 1}', "--task-id", "inv-3")
    assert (first.code, first.out, first.err) == (ExitCode.OK, "inv-3\n", "")
    assert (again.code, again.out) == (ExitCode.OK, "inv-3\n")
    assert "inv-3 was there already (queued)" in again.err


def test_numbers_keep_their_spelling(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", '{"z": 12345678901234567890, "a": 1.10}', "--task-id", "big")
    assert (
        '"payload":{"z": 12345678901234567890, "a": 1.10}' in lineshaft("tasks", "get", "big", "--json").out
    )


def test_a_payload_comes_from_standard_input_or_a_file(lineshaft: Lineshaft, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_text("[1]\n")
    assert lineshaft("enqueue", "mail", "-", "--task-id", "in", stdin=" [2] ").code == ExitCode.OK
    assert lineshaft("enqueue", "mail", f"@{tmp_path}/payload.json", "--task-id", "file").code == ExitCode.OK
    payloads = [lineshaft("tasks", "get", name, "--json").document["payload"] for name in ("in", "file")]
    assert payloads == [[2], [1]]


def test_options_of_a_task_reach_it(lineshaft: Lineshaft) -> None:
    lineshaft(
        *["enqueue", "mail", "1", "--task-id", "t", "--queue", "q", "--priority", "-5", "--delay", "1h"],
        *["--timeout", "5m", "--lease", "10s", "--max-retries", "7", "--tag", "a", "--tag", "b"],
        *["--capability", "gpu", "--resource", "gpu=1", "--resource", "memory=2GiB"],
    )
    task = lineshaft("tasks", "get", "t", "--json").document
    assert (task["queue"], task["priority"], task["state"], task["max_retries"]) == ("q", -5, "scheduled", 7)
    assert (task["timeout"], task["lease"], task["tags"]) == (300, 10, ["a", "b"])
    assert task["worker_affinity"]["capability"] == ["gpu"]


def test_tasks_are_found_and_paged(lineshaft: Lineshaft) -> None:
    for number in range(3):
        lineshaft("enqueue", "mail", "1", "--task-id", f"t{number}", "--queue", "a" if number else "b")
    newest_first = lineshaft("tasks", "list", "--json").document["tasks"]
    assert [task["task_id"] for task in newest_first] == ["t2", "t1", "t0"]
    first = lineshaft("tasks", "list", "--queue", "a", "--limit", "1", "--json").document
    second = lineshaft("tasks", "list", "--queue", "a", "--after", first["next"], "--json").document
    assert [page["tasks"][0]["task_id"] for page in (first, second)] == ["t2", "t1"]
    everything = lineshaft("tasks", "list", "--all", "--sort", "created_at", "--json")
    assert [task["task_id"] for task in everything.lines] == ["t0", "t1", "t2"]
    table = lineshaft("tasks", "list", "--limit", "2")
    assert "t2" in table.out
    assert "there are more: --after" in table.err
    assert lineshaft("tasks", "list", "--state", "failed").err == "no task matches\n"


def test_a_life_is_told(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--task-id", "t", "--delay", "1h")
    explained = lineshaft("tasks", "explain", "t")
    assert explained.out.startswith("t is scheduled\n")
    assert "until" in explained.out
    assert lineshaft("tasks", "promote", "t").out == "t: queued\n"
    assert lineshaft("tasks", "explain", "t", "--json").document["reasons"][0]["code"] in (
        "no_claim",
        "no_worker",
    )
    assert lineshaft("tasks", "cancel", "t", "--reason", "not now").out == "t: cancelled\n"
    assert lineshaft("tasks", "get", "t", "--wait").code == ExitCode.FAILED
    assert lineshaft("tasks", "retry", "t").out == "t: queued\n"
    history = lineshaft("tasks", "history", "t")
    assert "enqueued" in history.out
    lineshaft("tasks", "cancel", "t")
    assert lineshaft("tasks", "delete", "t").out == "t: deleted\n"
    assert lineshaft("tasks", "get", "t").code == ExitCode.REFUSED


def test_an_unknown_task_is_refused(lineshaft: Lineshaft) -> None:
    for verb in ("get", "cancel", "retry", "promote", "delete", "explain", "history"):
        ended = lineshaft("tasks", verb, "nobody", "--json")
        assert ended.code == ended.error["exit_code"] == ExitCode.REFUSED
        assert ended.error["error"]["type"] == "not_found"


def test_of_several_ids_each_is_done_for_itself(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--task-id", "t")
    ended = lineshaft("tasks", "cancel", "nobody", "t")
    assert ended.code == ExitCode.REFUSED
    assert ended.out == "t: cancelled\n"
    assert "error: " in ended.err


def test_a_filter_changes_many_after_a_yes(lineshaft: Lineshaft) -> None:
    for number in range(3):
        lineshaft("enqueue", "mail", "1", "--task-id", f"t{number}", "--queue", "q")
    assert lineshaft("tasks", "cancel", "--queue", "q", "--dry-run").out == "3 tasks match\n"
    refused = lineshaft("tasks", "cancel", "--queue", "q")
    assert refused.code == ExitCode.USAGE
    assert "3 tasks match, and nobody can be asked whether to cancel them" in refused.err
    assert "add --yes, or count first with --dry-run" in refused.err
    assert lineshaft("tasks", "cancel", "--queue", "q", "--yes", "--json").document["changed"] == 3
    assert (
        lineshaft("tasks", "delete", "--state", "cancelled", "--yes").out == "3 matched, delete changed 3\n"
    )


def test_one_task_is_counted_as_one(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--queue", "q")
    assert lineshaft("tasks", "cancel", "--queue", "q", "--dry-run").out == "1 task matches\n"
    refused = lineshaft("tasks", "cancel", "--queue", "q")
    assert "1 task matches, and nobody can be asked whether to cancel it" in refused.err
    assert lineshaft("tasks", "cancel", "--queue", "q", "--yes").out == "1 matched, cancel changed 1\n"


def test_what_is_piped_has_no_blanks_at_the_ends_of_lines(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", '{"a": "something longer than most"}', "--task-id", "t")
    for arguments in (["tasks", "get", "t"], ["tasks", "list"], ["top", "--once"]):
        lines = lineshaft(*arguments).out.splitlines()
        assert lines
        assert lines == [line.rstrip() for line in lines]


def test_what_the_coordinator_refuses_names_the_field(lineshaft: Lineshaft) -> None:
    ended = lineshaft("enqueue", "mail", "1", "--lease", "1ms")
    assert ended.code == ExitCode.REFUSED
    assert "(field lease)" in ended.err
    assert lineshaft("tasks", "list", "--after", "nonsense").code == ExitCode.REFUSED


def test_a_wait_that_is_over_is_told(lineshaft: Lineshaft) -> None:
    ended = lineshaft("enqueue", "mail", "1", "--task-id", "t", "--wait-for", "100ms")
    assert ended.code == ExitCode.UNAVAILABLE
    assert "task t is still queued" in ended.err
    assert lineshaft("tasks", "get", "t", "--wait-for", "100ms").code == ExitCode.UNAVAILABLE


def test_queues_are_stopped_and_started(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--queue", "q")
    paused = lineshaft("queues", "pause", "q", "r").out.splitlines()
    assert paused == ["paused q (1 waiting, 0 running)", "paused r (0 waiting, 0 running)"]
    assert lineshaft("queues", "close", "q", "--json").lines[0]["closed"] is True
    listed = {queue["queue"]: queue for queue in lineshaft("queues", "list", "--json").document["queues"]}
    assert (listed["q"]["paused"], listed["q"]["closed"], listed["q"]["backlog"]) == (True, True, 1)
    assert "paused, closed" in lineshaft("queues", "list").out
    refused = lineshaft("enqueue", "mail", "1", "--queue", "q")
    assert refused.code == ExitCode.REFUSED
    assert "open the queue with `lineshaft queues open NAME`" in refused.err
    lineshaft("queues", "open", "q")
    lineshaft("queues", "resume", "q")
    assert lineshaft("enqueue", "mail", "1", "--queue", "q").code == ExitCode.OK


def test_the_shell_is_offered_the_queues_there_are(lineshaft: Lineshaft, coordinator: str) -> None:
    lineshaft("enqueue", "mail", "1", "--queue", "invoices")
    asked = {"_LINESHAFT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "lineshaft queues pause in"}
    assert "invoices" in run("queues", url=coordinator, **asked).out
    assert "invoices" not in run("queues", **asked).out


def test_no_worker_is_said_and_an_unknown_one_refused(lineshaft: Lineshaft) -> None:
    assert lineshaft("workers").err == "no worker has been seen lately; start one with `lineshaft worker`\n"
    assert lineshaft("workers", "list", "--json").document == {"workers": []}
    assert lineshaft("workers", "drain", "nobody").code == ExitCode.REFUSED


def test_the_feed_is_followed(lineshaft: Lineshaft, coordinator: str) -> None:
    following = subprocess.Popen(
        command("tasks", "tail", "--json", "--limit", "2", "--queue", "q"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(coordinator),
    )
    assert following.stderr is not None
    assert following.stderr.readline() == "following what happens from now on; Ctrl-C ends it\n"
    lineshaft("enqueue", "mail", "1", "--task-id", "other")
    lineshaft("enqueue", "mail", "1", "--task-id", "t", "--queue", "q")
    lineshaft("tasks", "cancel", "t")
    out, _ = following.communicate(timeout=30)
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["queued", "cancelled"]


def test_a_cursor_that_is_none_is_refused(lineshaft: Lineshaft) -> None:
    assert lineshaft("tasks", "tail", "--after", "nonsense").code == ExitCode.REFUSED


def test_top_shows_what_is_there(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "1", "--task-id", "t", "--queue", "q")
    shown = lineshaft("top", "--once")
    assert shown.code == ExitCode.OK
    assert "survives: power loss" in said(shown.out)
    assert "queued 1" in said(shown.out)
    assert "queued 1" in said(lineshaft("top").out)  # piped, it is shown once
    snapshot = lineshaft("top", "--once", "--json").document
    assert snapshot["stats"]["counts"]["queued"] == 1
    assert snapshot["queues"][0]["queue"] == "q"


def test_a_reader_who_leaves_early_is_no_error(lineshaft: Lineshaft, coordinator: str) -> None:
    for number in range(3):
        lineshaft("enqueue", "mail", "1", "--task-id", f"t{number}")
    listing = " ".join(command("tasks", "list", "--all", "--json"))
    done = subprocess.run(
        ["sh", "-c", f"{listing} | head -n 1"],
        capture_output=True,
        text=True,
        env=environment(coordinator),
        check=True,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["task_id"] == "t2"


def test_ctrl_c_ends_a_command_that_waits(lineshaft: Lineshaft, start: Start, coordinator: str) -> None:
    following = start("top", "--json", ready="\n", url=coordinator)
    assert following.stop(signal.SIGINT) == ExitCode.INTERRUPTED


def test_the_text_of_a_task_cannot_steer_the_terminal(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", '"\x7f\u202e[red]boo[/red]"', "--task-id", "t")
    shown = lineshaft("tasks", "get", "t").out
    assert "\\x7f\\u202e[red]boo[/red]" in shown


def test_a_task_is_shown_without_what_it_does_not_have(lineshaft: Lineshaft) -> None:
    lineshaft("enqueue", "mail", "--task-id", "t", "--queue", "nobody")
    shown = dict(line.split(maxsplit=1) for line in lineshaft("tasks", "get", "t").out.splitlines())
    assert shown["payload"].strip() == "null"
    assert {"error", "metadata", "checkpoint", "usage", "tags"}.isdisjoint(shown)


def test_measuring_a_running_coordinator(lineshaft: Lineshaft, coordinator: str) -> None:
    measured = lineshaft("bench", "--url", coordinator, "--tasks", "500", "--json")
    assert measured.code == ExitCode.OK, measured.err
    assert measured.document["tier"] == "power loss"
    assert all(figure["count"] > 0 for figure in measured.document["figures"])
    assert lineshaft("tasks", "list", "--json").document["tasks"] == []


def test_what_waits_outlives_a_restart_of_the_coordinator(start: Start, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    serve = ("serve", "--store", f"sqlite:///{tmp_path / 'a.db'}", "--listen", address)
    url = f"http://{address}"
    first = start(*serve, ready="\n")
    following = start(
        "tasks", "tail", url=url, on="stderr", ready="following what happens from now on; Ctrl-C ends it\n"
    )
    waiting = start("enqueue", "mail", "1", "--task-id", "t", "--wait", "--json", url=url, ready="")
    wait_until(lambda: run_here("tasks", "get", "t", url=url).code == ExitCode.OK)
    first.stop(signal.SIGKILL)
    following.wait_for("the coordinator is away; waiting for it …\n")
    start(*serve, ready="\n")
    following.wait_for("the coordinator is back\n")
    run_here("tasks", "cancel", "t", url=url)
    assert json.loads(waiting.wait_for("\n"))["state"] == "cancelled"
    assert waiting.process.wait(10) == ExitCode.FAILED


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask until it holds."""
    while not holds():
        pass
