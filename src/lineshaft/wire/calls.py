"""The table of calls: what the router, `/openapi.json`, the SDK's transport and the docs all derive from."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from lineshaft.wire import history, operations, tasks, workers


class Call(Struct, frozen=True, kw_only=True):
    """One call of the protocol.

    `{id}` in `path` stands for the one parameter, percent-encoded (a task id, a queue, a worker, a key).
    `scope` is what an API key must have: enqueue, work, read or admin (several with `|` between: any of
    them), "" for open calls. `does` is one line for people.
    """

    name: str
    method: str
    path: str
    answer: Any
    scope: str
    does: str
    query: type[Struct] | None = None
    body: Any = None
    """The request's struct, or `list[Enqueue]`; None where there is none."""
    variant: Any = None
    """Another answer's struct: of a claim without `max`, of an enqueue that waited, of a holder's cancel."""
    section: str = "tasks"
    statuses: tuple[int, ...] = (200,)
    """The statuses of success."""
    media: str = "application/json"
    """The content type of the answer."""
    stream: str | None = None
    """Another content type, of which the answer is a stream; given to who asks for it by `Accept`."""


def _bulk(verb: str, does: str) -> Call:
    return Call(
        name=f"{verb}_many",
        method="POST",
        path=f"/_tasks/_{verb}",
        query=tasks.SweepQuery,
        body=tasks.Sweep,
        answer=tasks.Swept,
        scope="admin",
        does=does,
    )


def _lease(name: str, body: type[Struct], answer: type[Struct], does: str) -> Call:
    path = f"/_tasks/{{id}}/_{name}"
    return Call(
        name=name,
        method="POST",
        path=path,
        body=body,
        answer=answer,
        scope="work",
        does=does,
        section="workers",
    )


def _queue(verb: str, does: str) -> Call:
    return Call(
        name=f"{verb}_queue",
        method="POST",
        path=f"/_queues/{{id}}/_{verb}",
        body=tasks.Nothing,
        answer=operations.Queue,
        scope="admin",
        does=does,
        section="operations",
    )


TASKS = (
    Call(
        name="enqueue",
        method="POST",
        path="/_tasks",
        query=tasks.EnqueueQuery,
        body=tasks.Enqueue,
        answer=tasks.Enqueued,
        variant=tasks.ChangedTask,
        scope="enqueue",
        statuses=(201, 200, 202),
        does="Enqueue a task; with wait answer when it has ended.",
    ),
    Call(
        name="put",
        method="PUT",
        path="/_tasks/{id}",
        query=tasks.EnqueueQuery,
        body=tasks.Enqueue,
        answer=tasks.Enqueued,
        variant=tasks.ChangedTask,
        scope="enqueue",
        statuses=(201, 200, 202),
        does="Enqueue a task under an id of one's own; may be repeated.",
    ),
    Call(
        name="bulk",
        method="POST",
        path="/_tasks/_bulk",
        body=list[tasks.Enqueue],
        answer=tasks.BulkAnswer,
        scope="enqueue",
        does="Enqueue many tasks, each for itself; an array, or NDJSON.",
    ),
    Call(
        name="get",
        method="GET",
        path="/_tasks/{id}",
        query=tasks.GetQuery,
        answer=tasks.Task,
        scope="read",
        does="Read a task; with wait when it has ended.",
    ),
    Call(
        name="find",
        method="GET",
        path="/_tasks",
        query=tasks.Search,
        answer=tasks.TaskPage,
        scope="read",
        does="Find tasks, a page at a time.",
    ),
    Call(
        name="search",
        method="POST",
        path="/_tasks/_search",
        body=tasks.Search,
        answer=tasks.TaskPage,
        scope="read",
        does="Find tasks, with the filter in the body.",
    ),
    Call(
        name="patch",
        method="PATCH",
        path="/_tasks/{id}",
        body=tasks.Patch,
        answer=tasks.ChangedTask,
        scope="enqueue",
        does="Change a task that has not started.",
    ),
    Call(
        name="cancel",
        method="POST",
        path="/_tasks/{id}/_cancel",
        body=tasks.Cancel,
        answer=tasks.ChangedTask,
        variant=workers.OutcomeAnswer,
        scope="enqueue|work",
        does="Cancel a task, or ask its worker to; with lease_token it is the holder's outcome.",
    ),
    Call(
        name="retry",
        method="POST",
        path="/_tasks/{id}/_retry",
        body=tasks.Nothing,
        answer=tasks.ChangedTask,
        scope="enqueue",
        does="Run a finished task again.",
    ),
    Call(
        name="promote",
        method="POST",
        path="/_tasks/{id}/_promote",
        body=tasks.Nothing,
        answer=tasks.ChangedTask,
        scope="enqueue",
        does="Run a scheduled task now.",
    ),
    Call(
        name="delete",
        method="DELETE",
        path="/_tasks/{id}",
        answer=tasks.ChangedTask,
        scope="enqueue",
        does="Forget a finished task; answers with its last state.",
    ),
    _bulk("cancel", "Cancel all tasks that match a filter."),
    _bulk("retry", "Run all finished tasks that match a filter again."),
    _bulk("promote", "Run all scheduled tasks that match a filter now."),
    _bulk("delete", "Forget all finished tasks that match a filter."),
    Call(
        name="history",
        method="GET",
        path="/_tasks/{id}/_history",
        answer=history.History,
        scope="read",
        does="Tell a task's attempts and what happened to it.",
    ),
    Call(
        name="explain",
        method="GET",
        path="/_tasks/{id}/_explain",
        answer=history.Explanation,
        scope="read",
        does="Say why a task is not running.",
    ),
    Call(
        name="changes",
        method="GET",
        path="/_tasks/_changes",
        query=history.ChangesQuery,
        answer=history.Changes,
        stream="text/event-stream",
        scope="read",
        does="Follow state changes, by long poll or (Accept: text/event-stream) as Server-Sent Events.",
    ),
)

WORKERS = (
    Call(
        name="claim",
        method="POST",
        path="/_tasks/_claim",
        query=workers.ClaimQuery,
        body=workers.Claim,
        answer=workers.ClaimedTasks,
        variant=workers.ClaimedTask,
        scope="work",
        statuses=(200, 204),
        does="Lease tasks: one as the whole answer (204 where there is none), or with max a list.",
        section="workers",
    ),
    _lease("start", workers.Start, workers.LeaseAnswer, "Begin to execute a prefetched task."),
    _lease("heartbeat", workers.Heartbeat, workers.LeaseAnswer, "Extend a lease; brings back a directive."),
    _lease("complete", workers.Complete, workers.OutcomeAnswer, "End a task with its result."),
    _lease("fail", workers.Fail, workers.OutcomeAnswer, "End an attempt with an error."),
    _lease("release", workers.Release, workers.OutcomeAnswer, "Give a task back; no attempt is burned."),
    _lease("snooze", workers.Snooze, workers.OutcomeAnswer, "Run a task later; no attempt is burned."),
    Call(
        name="report",
        method="POST",
        path="/_tasks/_report",
        body=workers.Report,
        answer=workers.Reported,
        scope="work",
        does="Report of many leases at once, and claim.",
        section="workers",
    ),
)

OPERATIONS = (
    Call(
        name="root",
        method="GET",
        path="/",
        answer=operations.Root,
        scope="",
        does="Name, version and features.",
        section="operations",
    ),
    Call(
        name="queues",
        method="GET",
        path="/_queues",
        answer=operations.QueueList,
        scope="read",
        does="List the queues.",
        section="operations",
    ),
    Call(
        name="queue",
        method="GET",
        path="/_queues/{id}",
        answer=operations.Queue,
        scope="read",
        does="Read a queue.",
        section="operations",
    ),
    Call(
        name="put_queue",
        method="PUT",
        path="/_queues/{id}",
        body=operations.PutQueue,
        answer=operations.Queue,
        scope="admin",
        does="Make or change a queue.",
        section="operations",
    ),
    _queue("pause", "Let no more tasks of a queue be claimed."),
    _queue("resume", "Let tasks of a queue be claimed again."),
    _queue("close", "Let no more tasks be enqueued."),
    _queue("open", "Let tasks be enqueued again."),
    Call(
        name="scale",
        method="GET",
        path="/_queues/{id}/_scale",
        answer=operations.Scale,
        scope="read",
        does="How much work there is, for autoscalers.",
        section="operations",
    ),
    Call(
        name="workers",
        method="GET",
        path="/_workers",
        answer=operations.WorkerList,
        scope="read",
        does="List the workers seen lately.",
        section="operations",
    ),
    Call(
        name="drain",
        method="POST",
        path="/_workers/{id}/_drain",
        body=operations.Drain,
        answer=operations.WorkerInfo,
        scope="admin",
        does="Let a worker finish what it holds and claim no more.",
        section="operations",
    ),
    Call(
        name="live",
        method="GET",
        path="/_health/live",
        answer=operations.Health,
        scope="",
        does="Whether the process runs.",
        section="operations",
    ),
    Call(
        name="ready",
        method="GET",
        path="/_health/ready",
        answer=operations.Health,
        scope="",
        statuses=(200, 503),
        does="Whether it can take work.",
        section="operations",
    ),
    Call(
        name="metrics",
        method="GET",
        path="/metrics",
        answer=str,
        scope="read",
        media="text/plain; version=0.0.4; charset=utf-8",
        does="Metrics for Prometheus.",
        section="operations",
    ),
    Call(
        name="stats",
        method="GET",
        path="/_stats",
        answer=operations.Stats,
        scope="read",
        does="Counts and gauges.",
        section="operations",
    ),
    Call(
        name="openapi",
        method="GET",
        path="/openapi.json",
        answer=dict,
        scope="",
        does="This protocol as OpenAPI 3.1.",
        section="operations",
    ),
    Call(
        name="keys",
        method="GET",
        path="/_keys",
        answer=operations.KeyList,
        scope="admin",
        does="List the API keys.",
        section="operations",
    ),
    Call(
        name="new_key",
        method="POST",
        path="/_keys",
        body=operations.NewKey,
        answer=operations.Key,
        scope="admin",
        statuses=(201,),
        does="Make an API key; its secret is in this answer only.",
        section="operations",
    ),
    Call(
        name="revoke_key",
        method="DELETE",
        path="/_keys/{id}",
        answer=operations.Revoked,
        scope="admin",
        does="Revoke an API key.",
        section="operations",
    ),
    Call(
        name="tenants",
        method="GET",
        path="/_tenants",
        answer=operations.TenantList,
        scope="admin",
        does="List the tenants and their partitions.",
        section="operations",
    ),
    Call(
        name="put_tenant",
        method="PUT",
        path="/_tenants/{id}",
        body=operations.PutTenant,
        answer=operations.TenantInfo,
        scope="admin",
        does="Spread a tenant's tasks over partitions, before it has any.",
        section="operations",
    ),
)

CALLS: dict[str, Call] = {call.name: call for call in (*TASKS, *WORKERS, *OPERATIONS)}
"""All calls by name. The push session (`GET /_tasks/_session`, WebSocket) is not a call: see `session.py`."""
SESSION_PATH = "/_tasks/_session"
