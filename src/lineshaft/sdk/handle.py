"""A handle: what a client holds of a task that it enqueued, typed with the handler's result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from lineshaft.errors import LineshaftError, Retryable
from lineshaft.sdk import encoding
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.failures import ResultTimeout, TaskCancelled, TaskFailed
from lineshaft.sdk.options import seconds
from lineshaft.sdk.outcomes import Duration
from lineshaft.wire import CALLS
from lineshaft.wire import tasks as wire

if TYPE_CHECKING:
    from lineshaft.sdk.client import Client

R_co = TypeVar("R_co", covariant=True)

WAIT = 30.0
"""Seconds that one request waits at the coordinator; a longer wait is several."""

ANSWER = 1.0
"""Seconds beyond its wait that an answer may take where the caller's patience has a limit."""

Seen = wire.Task | wire.Enqueued


class Handle(Generic[R_co]):
    """A task by its id; `created` is False where the id already named a task."""

    def __init__(
        self,
        client: Client,
        task_id: str,
        decoder: msgspec.json.Decoder[Any],
        *,
        seen: Seen | None = None,
        created: bool = True,
    ) -> None:
        self.task_id = task_id
        self.created = created
        self._client = client
        self._decoder = decoder
        self._seen = seen

    async def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the end of the task and give its result, decoded by the handler's annotation.

        Raises TaskFailed, TaskCancelled, ResultTimeout after `timeout` (None: waits for as long as it takes).
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        return await self._result(limit, asyncio.get_running_loop().time(), looked=False)

    async def _result(self, limit: float | None, began: float, *, looked: bool) -> R_co:
        """Wait for the result until `limit` seconds after `began`; without having `looked`, look once."""
        loop = asyncio.get_running_loop()
        until = None if limit is None else began + limit
        backoff = Backoff()
        while self._seen is None or self._seen.state not in ("completed", "failed", "cancelled"):
            left = WAIT if until is None else until - loop.time()
            if left <= 0 and self._seen is not None and looked:
                raise ResultTimeout(
                    f"task {self.task_id} is still {self._seen.state} after {loop.time() - began:.1f} s; "
                    "it goes on, ask its handle again later",
                    task_id=self.task_id,
                )
            try:
                wait = min(max(left, 0.0), WAIT)
                async with asyncio.timeout(None if until is None else wait + ANSWER):
                    self._seen = await self._get(wait)
                looked = True
            except ResultTimeout:
                raise
            except TimeoutError:
                raise ResultTimeout(
                    f"task {self.task_id} cannot be read within {loop.time() - began:.1f} s: the "
                    "coordinator does not answer",
                    task_id=self.task_id,
                ) from None
            except Retryable as error:
                # Reading may always be repeated, so only the caller's own patience ends it.
                pause = backoff.after_failure(error.retry_after)
                if until is not None and loop.time() + pause >= until:
                    raise ResultTimeout(
                        f"task {self.task_id} cannot be read: {error.reason}", task_id=self.task_id
                    ) from error
                await asyncio.sleep(pause)
        if self._seen.state == "cancelled":
            reason = await self._why_cancelled()
            raise TaskCancelled(f"task {self.task_id} was cancelled{reason}", task_id=self.task_id)
        return self._outcome(self._seen)

    async def info(self) -> wire.Task:
        """Read the whole task: state, attempts, progress, result. Raises NotFound once it was pruned."""
        return await self._get(None)

    async def state(self) -> str:
        """Read the state: scheduled, waiting, queued, claimed, running, completed, failed or cancelled."""
        return (await self._get(None)).state

    async def cancel(self, reason: str | None = None) -> wire.Task:
        """Cancel the task; a running one is asked to end. Raises Conflict where it has ended."""
        return await self._write("cancel", wire.Cancel(reason=reason))

    async def retry(self) -> wire.Task:
        """Run the finished task again under the same id. Raises Conflict where it has not ended."""
        return await self._write("retry", wire.Nothing())

    async def promote(self) -> wire.Task:
        """Run the scheduled task now."""
        return await self._write("promote", wire.Nothing())

    async def delete(self) -> wire.Task:
        """Forget the finished task. Raises Conflict where it has not ended."""
        return await self._write("delete", None)

    def __repr__(self) -> str:
        return f"<Handle {self.task_id}>"

    async def _get(self, wait: float | None) -> wire.Task:
        query = None if wait is None else wire.GetQuery(wait=round(wait, 3))
        answer: wire.Task = await self._client.call(
            CALLS["get"], id=self.task_id, query=query, timeout=(wait or 0.0) + 15.0
        )
        return answer

    async def _write(self, verb: str, body: Any) -> wire.Task:
        answer: wire.Task = await self._client.call(CALLS[verb], id=self.task_id, body=body)
        self._seen = None
        return answer

    async def _why_cancelled(self) -> str:
        try:
            reason = (await self.info()).reason
        except LineshaftError:
            return ""
        return f": {reason}" if reason else ""

    def _outcome(self, seen: Seen) -> R_co:
        if seen.state == "completed":
            return self._decode(b"null" if isinstance(seen.result, msgspec.UnsetType) else bytes(seen.result))
        error = msgspec.json.decode(seen.error or b"null", type=_Error | None) or _Error()
        failure = TaskFailed(
            f"task {self.task_id} failed with {error.type}: {error.message}",
            task_id=self.task_id,
            failure_type=error.type,
            stack=error.stack,
            data=error.data,
        )
        if error.stack:
            failure.add_note(f"In the worker:\n{error.stack.rstrip()}")
        raise failure

    def _decode(self, raw: bytes) -> R_co:
        try:
            result: R_co = self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            what, path = encoding.split_path(str(error))
            where = f" at `{path}`" if path else ""
            gone = "; it may have been kept no longer than its result_ttl" if raw == b"null" else ""
            raise TypeError(
                f"the result of task {self.task_id} is not as annotated{where}: {what}{gone}"
            ) from None
        return result


class _Error(msgspec.Struct):
    type: str = "unknown"
    message: str = ""
    stack: str | None = None
    data: Any = None
