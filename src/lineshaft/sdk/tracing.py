"""The W3C trace context that tasks are enqueued in; a handler's own reaches the tasks that it enqueues."""

from __future__ import annotations

from contextvars import ContextVar

traceparent: ContextVar[str | None] = ContextVar("lineshaft_traceparent", default=None)
"""Set it to enqueue within a trace; a worker sets it to that of the task at hand."""
