"""What a worker reports: outcomes as items of the wire, and what the coordinator's refusals mean for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lineshaft.errors import Conflict, Invalid, LineshaftError, Malformed, NotFound, Retryable
from lineshaft.sdk import encoding
from lineshaft.sdk.options import duration
from lineshaft.sdk.outcomes import Cancelled, Completed, Failed, Outcome, Released, Snoozed
from lineshaft.wire import workers as wire
from lineshaft.wire.tasks import NULL, Progress, TaskError

if TYPE_CHECKING:
    from lineshaft.sdk.context import News
    from lineshaft.sdk.held import Held

_OVERHEAD = 256
_MAX_REASON = 1_000


class Entry:
    """One item on its way to the coordinator; `final` where it ends the lease, `size` in bytes, about."""

    __slots__ = ("final", "held", "item", "news", "size")

    def __init__(self, held: Held, item: wire.Item, *, final: bool, news: News | None = None) -> None:
        self.held = held
        self.item = item
        self.final = final
        self.news = news
        self.size = _OVERHEAD + _size(item)


def outcome(task: wire.ClaimedTask, outcome: Outcome) -> wire.Item:
    """Give an outcome as an item; one that has no JSON form becomes a failure that says so."""
    match outcome:
        case Completed():
            return _complete(task, outcome)
        case Failed():
            return _fail(task, outcome)
        case Snoozed(delay=delay):
            return _snooze(task, delay)
        case Cancelled(reason=reason):
            text = None if reason is None else _clean(reason)[:_MAX_REASON]
            return wire.CancelItem(task_id=task.task_id, lease_token=task.lease_token, reason=text)
        case Released():
            return wire.ReleaseItem(task_id=task.task_id, lease_token=task.lease_token)


def start(task: wire.ClaimedTask) -> wire.Item:
    """Give the item that asks to begin a prefetched task."""
    return wire.StartItem(task_id=task.task_id, lease_token=task.lease_token)


def heartbeat(task: wire.ClaimedTask, news: News | None = None) -> wire.HeartbeatItem:
    """Give the item that keeps the lease, with what the handler has said since the last."""
    item = wire.HeartbeatItem(task_id=task.task_id, lease_token=task.lease_token)
    if news is not None and news.progress is not None:
        item.progress = Progress(**news.progress)
    if news is not None and news.checkpoint is not None:
        item.checkpoint = msgspec.Raw(news.checkpoint)
    return item


def substitute(entry: Entry, error: LineshaftError) -> Entry | None:
    """Give what to report in place of an item that was refused for what it says; None after the last
    resort.
    """
    item = entry.item
    kind = "result_refused" if isinstance(item, wire.CompleteItem) else "outcome_refused"
    if isinstance(item, wire.FailItem):
        if item.error is None or (item.error.type or "").endswith("_refused"):
            return None
        kind = "error_refused"
    message = f"the coordinator refused the outcome: {error.reason}"[:_MAX_REASON]
    retry = item.retry if isinstance(item, wire.FailItem) else False
    failed = Failed(type=kind, message=message, retry=bool(retry))
    return Entry(entry.held, _fail(entry.held.task, failed), final=True)


def is_temporary(error: LineshaftError) -> bool:
    """Tell whether the same item will do later."""
    return isinstance(error, Retryable)


def is_final(error: LineshaftError) -> bool:
    """Tell whether nothing can be said of the task any more: the lease is lost, or the task is gone."""
    return isinstance(error, Conflict | NotFound)


def is_about_content(error: LineshaftError) -> bool:
    """Tell whether a request was refused for what is in it."""
    return isinstance(error, Malformed | Invalid)


def _complete(task: wire.ClaimedTask, completed: Completed) -> wire.Item:
    result = NULL
    if completed.result is not None:
        try:
            result = msgspec.Raw(encoding.encode(completed.result))
        except Exception as error:  # an `enc_hook` of a model may raise anything
            message = f"the result of {task.name} has no JSON form: {error}"
            return _fail(task, Failed(type="result_not_json", message=message, retry=False))
    item = wire.CompleteItem(task_id=task.task_id, lease_token=task.lease_token, result=result)
    if completed.result_ttl is not None:
        try:
            item.result_ttl = duration(completed.result_ttl, "result_ttl")
        except Invalid as error:
            message = f"`result_ttl` of {task.name}: {error.reason}"
            return _fail(task, Failed(type="invalid_outcome", message=message, retry=False))
    return item


def _fail(task: wire.ClaimedTask, failed: Failed) -> wire.Item:
    error = TaskError(type=_clean(failed.type), message=_clean(failed.message))
    if failed.stack is not None:
        error.stack = _clean(failed.stack)
    if failed.data is not None:
        try:
            error.data = msgspec.Raw(encoding.encode(failed.data))
        except Exception:  # as above; the failure matters more than what came with it
            error.data = msgspec.Raw(encoding.encode(repr(failed.data)[:_MAX_REASON]))
    item = wire.FailItem(task_id=task.task_id, lease_token=task.lease_token, error=error)
    if not failed.retry:
        item.retry = False
    if failed.retry_after is not None:
        try:
            item.retry_after = duration(failed.retry_after, "retry_after")
        except Invalid as wrong:
            error.message = f"{failed.message} (its retry_after is ignored: {wrong.reason})"
    return item


def _snooze(task: wire.ClaimedTask, delay: Any) -> wire.Item:
    try:
        return wire.SnoozeItem(
            task_id=task.task_id, lease_token=task.lease_token, for_=duration(delay, "delay")
        )
    except Invalid as error:
        message = f"{task.name} snoozed for {delay!r}: {error.reason}"
        return _fail(task, Failed(type="invalid_outcome", message=message, retry=False))


def _clean(text: object) -> str:
    """Give text that UTF-8 can carry, whatever a handler has put there."""
    clean = text if isinstance(text, str) else str(text)
    return clean if clean.isascii() else clean.encode("utf-8", "replace").decode()


def _size(item: wire.Item) -> int:
    if isinstance(item, wire.CompleteItem):
        return len(memoryview(item.result)) if isinstance(item.result, msgspec.Raw) else 0
    if isinstance(item, wire.FailItem) and item.error is not None:
        return len(item.error.message or "") + len(item.error.stack or "")
    return 0
