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
        raise ValueError("names no program: give its command line, such as --exec 'wc -w'")
    if shutil.which(argv[0]) is None:
        raise ValueError(
            f"there is no program {argv[0]!r} here that can be executed: name one that is on PATH, or its "
            "whole path"
        )
    return argv


class ProgramExecutor:
    """Executes every attempt by running the program; takes the place of the SDK's executor in a worker."""

    def __init__(self, argv: Sequence[str], *, url: str, names: list[str] | None = None) -> None:
        self._argv = tuple(argv)
        self._url = url
        self.names = names
        """The types of tasks that the worker asks for, None for any."""

    async def execute(self, name: str, payload: bytes, context: Context) -> Outcome:
        """Run the program once. Where the attempt is interrupted, its processes are gone at the end."""
        try:
            transport, run = await asyncio.get_running_loop().subprocess_exec(
                _Run,
                *self._argv,
                env=os.environ | _environment(name, context, self._url),
                start_new_session=True,
            )
        except OSError as error:
            return Failed(type="cannot_execute", message=f"{self._argv[0]}: {error.strerror}")
        try:
            return await run.outcome(payload)
        except BaseException:
            await run.end()
            raise
        finally:
            transport.close()


class _Run(asyncio.SubprocessProtocol):
    """One process and what it says.

    A protocol and not streams: the exit of the process is one thing, the end of its pipes another, since
    what it left behind may hold them open for ever.
    """

    def __init__(self) -> None:
        self._exited = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._output = bytearray()
        self._too_much = False
        self._tail = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            # Passed on as well, so that a program's log lands where the worker's does.
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()
            self._tail += data
            del self._tail[:-TAIL]
        elif len(self._output) + len(data) > MAX_OUTPUT:
            self._too_much = True
        else:
            self._output += data

    def process_exited(self) -> None:
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hung_up.set()

    async def outcome(self, payload: bytes) -> Outcome:
        stdin = self._transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        stdin.write(payload)  # a program need not read it: a broken pipe is none of our business
        stdin.close()
        await self._exited.wait()
        self._kill_group(signal.SIGKILL)
        await _within(PATIENCE, self._hung_up)
        code = self._transport.get_returncode()
        assert code is not None
        return self._judge(code)

    async def end(self) -> None:
        """Ask the process group to end, then make it."""
        if not self._exited.is_set():
            self._kill_group(signal.SIGTERM)
            await _within(PATIENCE, self._exited)
            self._kill_group(signal.SIGKILL)
            await self._exited.wait()

    def _kill_group(self, number: signal.Signals) -> None:
        # The group's number is the process's; it is not given away while a member of the group lives.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), number)

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


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


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
