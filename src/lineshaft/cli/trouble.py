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
    hint: str
    """What to do next; nothing goes wrong without it."""
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


def _code_and_hint(error: LineshaftError) -> tuple[ExitCode, str]:
    code = _code(error)
    if isinstance(error, Trouble):
        return code, error.hint or _GENERAL[code]
    if code is ExitCode.UNAVAILABLE and error.retry_after:
        return code, f"nothing is lost: repeat the command after {error.retry_after:g} s"
    if _is_busy(error):
        return code, _BUSY
    if error.type == "conflict" and error.task_id is None:
        return code, "do what it asks for, then repeat the command"
    return code, _OF_FIELD.get((error.type, error.field)) or _HINTS.get(error.type) or _GENERAL[code]


def _code(error: LineshaftError) -> ExitCode:
    if isinstance(error, Trouble):
        return error.code
    temporary = error.status in (408, 429, 503) and not isinstance(error, _AT_HOME)
    if temporary or isinstance(error, TimeoutError):
        return ExitCode.UNAVAILABLE
    if error.status == 422 and error.field in _SETTINGS:
        return ExitCode.USAGE
    if 400 <= error.status < 500 or isinstance(error, _AT_HOME):
        return ExitCode.REFUSED
    return ExitCode.FAILED


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


_SETTINGS = ("url", "listen", "store", "synchronous", "schema", "shards", "synchronous_commit", "file")
"""Fields that no call has: what is wrong with them was said to this command."""

_GENERAL: dict[ExitCode, str] = {
    ExitCode.FAILED: "`lineshaft doctor` looks for what is wrong; with --log-level debug a log says more",
    ExitCode.USAGE: "`-h` after the command shows what it takes",
    ExitCode.UNREACHABLE: "`lineshaft doctor` looks for what is wrong",
    ExitCode.REFUSED: "change what was refused, or see with `lineshaft tasks get ID` how things stand",
    ExitCode.UNAVAILABLE: "nothing is lost: repeat the command",
    ExitCode.INTERRUPTED: "repeat the command",
}
"""What to do where nothing better is known."""

_NEWER = "`lineshaft version` shows both versions: bring them to the same"
_IN_YOUR_CODE = "this is for the code that uses the App, see docs/workers.md"

_HINTS: dict[str, str] = {
    "malformed": "the request is not as the protocol has it; " + _NEWER,
    "too_large": "send less: keep large data elsewhere, and its address in the payload",
    "unsupported_media_type": "the request is not as the protocol has it; " + _NEWER,
    "method_not_allowed": "the coordinator does not know this call; " + _NEWER,
    "not_owner": "use the address that the coordinator names with --url",
    "unauthorized": "give an API key with --api-key or LINESHAFT_API_KEY; `lineshaft keys create` makes one",
    "forbidden": "use a key with that scope; where a Host is refused, serve it with --allowed-host",
    "not_found": "`lineshaft tasks list` and `lineshaft queues list` show what there is",
    "copy_failed": "make the target empty again, mend what is named, and repeat; the source is as it was",
    "conflict": "see how it stands with `lineshaft tasks get ID`",
    "queue_closed": "open the queue with `lineshaft queues open NAME`",
    "cursor_expired": "start again without --after",
    "invalid": "change what is named there; `-h` after the command shows what it takes",
    "not_supported": "leave it out: this version cannot do that yet",
    "rejected": "the store cannot take it: change what is named there",
    "app_not_found": "name a module and its App, such as `jobs:app`, from the directory that holds jobs.py",
    "enqueue_failed": "enqueue those again that were refused; the others are there",
    "task_failed": "see why with `lineshaft tasks get ID`, then `lineshaft tasks retry ID`",
    "task_cancelled": "see why with `lineshaft tasks get ID`; `lineshaft tasks retry ID` runs it again",
    "result_timeout": "the task goes on; ask again with `lineshaft tasks get ID --wait`",
    "forked_app": _IN_YOUR_CODE,
    "app_closed": _IN_YOUR_CODE,
    "crash_loop": "run one process (without --processes) to see how it ends, and mend that",
    "store_in_use": "stop the other process, or talk to it with --url",
    "store_unusable": "name another place with --store; `lineshaft doctor --store URL` looks at one",
    "store_corrupt": "restore a backup, or name another store; `lineshaft doctor --store URL` looks at one",
    "schema_too_new": "upgrade this Lineshaft, or go on with the version that wrote the store",
    "lease_lost": "somebody else may hold the task by now; look with `lineshaft tasks history ID`",
}

_OF_FIELD: dict[tuple[str, str | None], str] = {
    ("not_found", "key_id"): "`lineshaft keys list` shows the ids of those that are valid",
    ("not_found", "id"): "`lineshaft workers` shows those that were heard of lately",
    ("invalid", "scopes"): "say --scope admin for the first; others can be made with it",
}
"""What to do about an error of a type where it is about this field."""
