"""Exit codes: what a script can tell from how a command ended."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit code of every command; each has one meaning."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the task failed or was cancelled; something was found wrong",
    ExitCode.USAGE: "wrong options, arguments or configuration",
    ExitCode.UNREACHABLE: "no coordinator answers there",
    ExitCode.REFUSED: "refused: unknown task, wrong state, no permission …",
    ExitCode.UNAVAILABLE: "unavailable, overloaded or not in time: may be repeated",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C, SIGTERM)",
}
