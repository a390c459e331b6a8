"""Any program as a worker: what its exit code, output and death mean for the task."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lineshaft.cli import program
from lineshaft.cli.program import ProgramExecutor, as_json, parse_program
from lineshaft.sdk.context import Context
from lineshaft.sdk.outcomes import Completed, Failed, Outcome
from lineshaft.wire import ClaimedTask, Raw


def context(**fields: Any) -> Context:
    task = ClaimedTask(
        task_id="t-1",
        lease_token="7-1",
        name="mail",
        queue="default",
        attempt=2,
        max_retries=3,
        fence=7,
        lease_ttl=30,
        enqueued_at="2026-01-02T03:04:05.678Z",
        payload=Raw(b"null"),
        **fields,
    )
    client: Any = None
    return Context(task, client)


def executor(code: str, *arguments: str) -> ProgramExecutor:
    return ProgramExecutor([sys.executable, "-c", code, *arguments], url="http://127.0.0.1:7077")


async def outcome_of(code: str, payload: bytes = b"null") -> Outcome:
    return await executor(code).execute("mail", payload, context())


async def test_its_output_is_the_result() -> None:
    copied = await outcome_of(
        "import sys; sys.stdout.write(sys.stdin.read())", b'{"big": 12345678901234567890}'
    )
    assert copied == Completed(msgspec.Raw(b'{"big": 12345678901234567890}'))


async def test_text_becomes_a_string_and_silence_null() -> None:
    assert await outcome_of("print('two\\nlines')") == Completed(msgspec.Raw(b'"two\\nlines"'))
    assert await outcome_of("pass") == Completed(msgspec.Raw(b"null"))


@pytest.mark.parametrize(
    ("output", "result"),
    [
        (b"", b"null"),
        (b" \n", b"null"),
        (b"3\n", b"3"),
        (b"[1, NaN]", b'"[1, NaN]"'),
        (b"caf\xe9", '"caf\N{REPLACEMENT CHARACTER}"'.encode()),
        (b'"ready"', b'"ready"'),
    ],
)
def test_what_counts_as_json(output: bytes, result: bytes) -> None:
    assert as_json(output) == result


@pytest.mark.parametrize(
    ("code", "kind", "retry"),
    [
        (1, "exit_code", True),
        (64, "usage_error", False),
        (65, "data_error", False),
        (75, "temporary_failure", True),
        (255, "exit_code", True),
    ],
)
async def test_its_exit_code_decides(code: int, kind: str, retry: bool) -> None:
    failed = await outcome_of(
        f"import sys; print('first\\nno such invoice', file=sys.stderr); sys.exit({code})"
    )
    assert isinstance(failed, Failed)
    assert (failed.type, failed.retry, failed.data) == (kind, retry, {"exit_code": code})
    assert failed.message == f"exited with {code}: no such invoice"
    assert failed.stack == "first\nno such invoice"


async def test_only_the_end_of_a_long_complaint_is_kept() -> None:
    failed = await outcome_of("import sys; sys.stderr.write('x' * 100000 + 'end'); sys.exit(1)")
    assert isinstance(failed, Failed)
    assert failed.stack is not None
    assert failed.stack.endswith("end")
    assert len(failed.stack) == program.TAIL


async def test_a_program_that_is_killed_is_tried_again() -> None:
    failed = await outcome_of("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert failed == Failed(type="killed", message="killed by SIGKILL")


async def test_a_program_need_not_read_its_payload() -> None:
    assert await outcome_of("pass", b'"' + b"x" * 1_000_000 + b'"') == Completed(msgspec.Raw(b"null"))


async def test_too_much_output_fails_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MAX_OUTPUT", 1000)
    failed = await outcome_of("print('x' * 2000)")
    assert isinstance(failed, Failed)
    assert (failed.type, failed.retry) == ("result_too_large", False)


async def test_it_is_told_of_its_task() -> None:
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    done = await executor(code).execute("mail", b"null", context(traceparent="00-ab-cd-01"))
    assert isinstance(done, Completed)
    told = msgspec.json.decode(done.result)
    assert told["TRACEPARENT"] == "00-ab-cd-01"
    assert {
        name.removeprefix("LINESHAFT_"): told[name] for name in told if name.startswith("LINESHAFT_TASK")
    } == {
        "TASK_ID": "t-1",
        "TASK_NAME": "mail",
    }
    assert [told[f"LINESHAFT_{word}"] for word in ("ATTEMPT", "FENCE", "LEASE_TOKEN")] == ["2", "7", "7-1"]


async def test_what_it_leaves_behind_is_killed_and_holds_nobody_up() -> None:
    code = (
        "import subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(child.pid)"
    )
    done = await asyncio.wait_for(outcome_of(code), 30)
    assert isinstance(done, Completed)
    await gone(int(bytes(done.result)))


async def test_an_interrupted_program_is_gone_with_all_its_processes(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "open(sys.argv[1] + '.part', 'w').write(f'{os.getpid()} {child.pid}');"
        "os.rename(sys.argv[1] + '.part', sys.argv[1]); time.sleep(600)"
    )
    running = asyncio.create_task(executor(code, str(note)).execute("mail", b"null", context()))
    await until(note.exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for pid in note.read_text().split():
        await gone(int(pid))


async def gone(pid: int) -> None:
    """Wait until a process is no more, or only has to be collected by whoever inherits it."""
    await until(lambda: is_gone(pid))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (ProcessLookupError, FileNotFoundError):
        return True


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 (what it waits for is outside of this process)
        await asyncio.sleep(0.01)


def test_a_command_line_is_split_as_a_shell_would() -> None:
    assert parse_program("sh -c 'echo \"$1\"' name") == ["sh", "-c", 'echo "$1"', "name"]
    for text, message in (
        ("", "names no program"),
        ("'", "No closing quotation"),
        ("/no/such", "there is no program"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_program(text)
