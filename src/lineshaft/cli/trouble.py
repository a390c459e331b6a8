"""Errors, in one place: which exit code, what is said, and what to do next."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec

from lineshaft.cli.exits import ExitCode
from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.base import StoreCorrupt, StoreUnusable

_AT_HOME = (StoreUnusable, StoreCorrupt)
"""Errors of a store that this process opened itself: repeating does not help."""


class Trouble(LineshaftError):
    """A command cannot go on; `hint` says what to do, `code` is the exit code."""

    type = "trouble"

    def __init__(
        self,
        reason: str,
        *,
        code: ExitCode = ExitCode.FAILED,
        hint: str | None = None,
        field: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(reason, field=field, task_id=task_id)
        self.code = code
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_trouble_again, (self.reason, self.code, self.hint, self.field, self.task_id))


def _trouble_again(
    reason: str, code: ExitCode, hint: str | None, field: str | None, task_id: str | None
) -> Trouble:
    return Trouble(reason, code=code, hint=hint, field=field, task_id=task_id)


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a command failed: printed for people, or as `{"error": …}` with `--json`."""

    code: ExitCode
    type: str
    reason: str
    hint: str | None = None
    field: str | None = None
    task_id: str | None = None

    def as_document(self) -> dict[str, Any]:
        """Return what `--json` prints to standard error."""
        return {
            "error": {k: v for k, v in msgspec.to_builtins(self).items() if v is not None and k != "code"}
        } | {"exit_code": int(self.code)}


def judge(error: LineshaftError, *, url: str | None = None) -> Verdict:
    """Decide what is said about an error, and the exit code; `url` is the coordinator that was called."""
    refused = _connection_error(error)
    if refused is not None:
        where = f" at {url}" if url else ""
        return Verdict(
            code=ExitCode.UNREACHABLE,
            type="unreachable",
            reason=f"cannot reach a coordinator{where} ({refused})",
            hint="start one with `lineshaft serve`, or say where it is with --url or LINESHAFT_URL",
        )
    if _from_somebody_else(error):
        return Verdict(
            code=ExitCode.UNREACHABLE,
            type="not_a_coordinator",
            reason=f"what answers at {url or 'that address'} is no coordinator ({error.reason})",
            hint="look at the address (--url, LINESHAFT_URL), and at what stands between",
        )
    code, hint = _code_and_hint(error)
    return Verdict(
        code=code,
        type=error.type,
        reason=error.reason,
        hint=hint,
        field=error.field,
        task_id=error.task_id,
    )


def _code_and_hint(error: LineshaftError) -> tuple[ExitCode, str | None]:
    if isinstance(error, Trouble):
        return error.code, error.hint
    hint = _BUSY if _is_busy(error) else _HINTS.get(error.type)
    if error.status in (408, 429, 503) and not isinstance(error, _AT_HOME):
        after = f" after {error.retry_after:g} s" if error.retry_after else ""
        return ExitCode.UNAVAILABLE, hint or f"nothing is lost: repeat the command{after}"
    if isinstance(error, TimeoutError):
        return ExitCode.UNAVAILABLE, hint
    if error.status == 422 and error.field in _SETTINGS:
        return ExitCode.USAGE, hint
    if 400 <= error.status < 500 or isinstance(error, _AT_HOME):
        return ExitCode.REFUSED, hint
    return ExitCode.FAILED, hint


def _is_busy(error: LineshaftError) -> bool:
    """Tell whether somebody listens already where we were to."""
    met = error.__context__
    return error.field == "listen" and isinstance(met, OSError) and met.errno == errno.EADDRINUSE


_BUSY = (
    "take another address, such as --listen 127.0.0.1:0 for any free port; where a coordinator runs there "
    "already, use it with --url (`lineshaft doctor` looks at it)"
)


def _from_somebody_else(error: LineshaftError) -> bool:
    """Tell whether the answer was not of our protocol: another program's, or a page of a proxy's own."""
    temporary = isinstance(error, Unavailable)  # a proxy whose coordinator is away
    return (not temporary and error.reason.endswith(_NOT_OURS)) or "not Lineshaft's protocol" in error.reason


_NOT_OURS = "without an explanation"


def _connection_error(error: LineshaftError) -> str | None:
    """Return why there was no connection at all; None for an error that a coordinator answered."""
    # The transport tells of both with the same class, since a worker treats them alike. What it met stays
    # the context of the error.
    met = error.__context__ if isinstance(error, Unavailable) else None
    if met is None or isinstance(met, TimeoutError) or not isinstance(met, OSError):
        return None
    cause = getattr(met, "os_error", None) or met
    code = getattr(cause, "errno", None)
    return os.strerror(code) if code and code > 0 else getattr(cause, "strerror", None) or str(cause)


_SETTINGS = ("url", "listen", "store", "synchronous")
"""Fields that no call has: what is wrong with them was said to this command."""

_HINTS: dict[str, str] = {
    "unauthorized": "give an API key with --api-key or LINESHAFT_API_KEY; `lineshaft keys create` makes one",
    "forbidden": "use a key with that scope, or a host that the coordinator serves (--allowed-host)",
    "queue_closed": "open the queue with `lineshaft queues open NAME`",
    "cursor_expired": "start again without --after",
    "result_timeout": "the task goes on; ask again with `lineshaft tasks get ID --wait 30s`",
    "store_in_use": "stop the other process, or talk to it with --url",
    "schema_too_new": "upgrade this Lineshaft, or go on with the version that wrote the store",
    "lease_lost": "somebody else may hold the task by now; look with `lineshaft tasks history ID`",
}
