"""Any program as a worker: payload on standard input, result on standard output, and the exit code decides.

| the program | the task |
|---|---|
| exits with 0 | completes; its output is the result: JSON as it is, other text as a string, nothing as null |
| exits with 64 or 65 (EX_USAGE, EX_DATAERR) | fails for good: trying again cannot help |
| exits with 75 (EX_TEMPFAIL) | is tried again, as its retries allow; type `temporary_failure` |
| exits with anything else, or a signal kills it | is tried again, as its retries allow |

It runs in a process group of its own. At a timeout, a cancel or a lost lease the group gets SIGTERM, and
SIGKILL after 1.5 s; what a program leaves running in its group when it exits is killed too. Its environment
has LINESHAFT_TASK_ID, _TASK_NAME, _QUEUE, _ATTEMPT, _MAX_RETRIES, _FENCE, _LEASE_TOKEN and _URL (with which
it can heartbeat and tell of its progress itself), and TRACEPARENT where the task has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from lineshaft.errors import LineshaftError
from lineshaft.sdk.outcomes import Completed, Failed, Outcome
from lineshaft.values.rawjson import check_json

if TYPE_CHECKING:
    from lineshaft.sdk.context import Context

EX_USAGE, EX_DATAERR, EX_TEMPFAIL = 64, 65, 75
MAX_OUTPUT = 8 << 20
TAIL = 4096
"""Bytes of the end of standard error that go into the task's error."""
PATIENCE = 1.5
"""Seconds between SIGTERM and SIGKILL; shorter than what a stopping worker grants its handlers."""


def parse_program(text: str) -> list[str]:
    """Split a command line as a shell would. Raises ValueError, which says what is wrong with it."""
    argv = shlex.split(text)
    if not argv:
        raise ValueError("names no program")
    if shutil.which(argv[0]) is None:
        raise ValueError(f"there is no program {argv[0]!r} here that can be executed")
    return argv


class ProgramExecutor:
    """Executes every attempt by running the program; takes the place of the SDK's executor in a worker."""

    def __init__(self, argv: Sequence[str], *, url: str) -> None:
        self._argv = tuple(argv)
        self._url = url

    async def execute(self, name: str, payload: bytes, context: Context) -> Outcome:
        """Run the program once. Where the attempt is interrupted, its processes are gone at the end."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | _environment(name, context, self._url),
                start_new_session=True,
            )
        except OSError as error:
            return Failed(type="cannot_execute", message=f"{self._argv[0]}: {error.strerror}")
        run = _Run(process)
        try:
            return await run.outcome(payload)
        except BaseException:
            await run.end()
            raise


class _Run:
    """One process and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._output = bytearray()
        self._too_much = False
        self._tail = bytearray()
        self._readers: list[asyncio.Task[None]] = []

    async def outcome(self, payload: bytes) -> Outcome:
        self._readers = [
            asyncio.create_task(self._write(payload)),
            asyncio.create_task(self._read_output()),
            asyncio.create_task(self._read_errors()),
        ]
        code = await self._process.wait()
        # What the program left behind may hold the pipes open for ever.
        self.kill_group(signal.SIGKILL)
        await asyncio.gather(*self._readers)
        return self._judge(code)

    async def end(self) -> None:
        """Ask the process group to end, then make it."""
        if self._process.returncode is None:
            self.kill_group(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._process.wait()
            self.kill_group(signal.SIGKILL)
            await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def kill_group(self, number: signal.Signals) -> None:
        # The group's number is the process's; it is not given away while a member of the group lives.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _write(self, payload: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        # A program need not read its payload.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(payload)
            await stdin.drain()
            stdin.close()
            await stdin.wait_closed()

    async def _read_output(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while chunk := await stdout.read(65_536):
            if len(self._output) + len(chunk) > MAX_OUTPUT:
                self._too_much = True
            else:
                self._output += chunk

    async def _read_errors(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while chunk := await stderr.read(65_536):
            # Passed on as well, so that a program's log lands where the worker's does.
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            self._tail += chunk
            del self._tail[:-TAIL]

    def _judge(self, code: int) -> Outcome:
        if code == 0 and self._too_much:
            return Failed(
                type="result_too_large",
                message=f"wrote more than {MAX_OUTPUT} bytes to its output",
                retry=False,
            )
        if code == 0:
            return Completed(msgspec.Raw(as_json(bytes(self._output))))
        said = self._tail.decode("utf-8", "replace").strip()
        if code < 0:
            return Failed(
                type="killed", message=_join(f"killed by {_signal_name(-code)}", said), stack=said or None
            )
        kind = {EX_TEMPFAIL: "temporary_failure", EX_USAGE: "usage_error", EX_DATAERR: "data_error"}
        return Failed(
            type=kind.get(code, "exit_code"),
            message=_join(f"exited with {code}", said),
            stack=said or None,
            data={"exit_code": code},
            retry=code not in (EX_USAGE, EX_DATAERR),
        )


def as_json(output: bytes) -> bytes:
    """Return what a program wrote as JSON: as it is where it is JSON, else as a string."""
    stripped = output.strip()
    if not stripped:
        return b"null"
    try:
        return check_json(stripped)
    except LineshaftError:
        return msgspec.json.encode(output.decode("utf-8", "replace").removesuffix("\n"))


def _join(what: str, said: str) -> str:
    # The last line is where programs say what went wrong.
    return f"{what}: {said.splitlines()[-1]}" if said else what


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(name: str, context: Context, url: str) -> dict[str, str]:
    found = {
        "LINESHAFT_TASK_ID": context.task_id,
        "LINESHAFT_TASK_NAME": name,
        "LINESHAFT_QUEUE": context.queue,
        "LINESHAFT_ATTEMPT": str(context.attempt),
        "LINESHAFT_MAX_RETRIES": str(context.max_retries),
        "LINESHAFT_FENCE": str(context.fence),
        "LINESHAFT_LEASE_TOKEN": context._task.lease_token,
        "LINESHAFT_URL": url,
    }
    if context.traceparent:
        found["TRACEPARENT"] = context.traceparent
    return found
