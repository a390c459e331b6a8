"""All calls of the protocol: one method each, wire structs in, wire structs out; no HTTP in sight.

`Calls.call` dispatches by the table of calls; the HTTP edge and the transport of embedded apps both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from lineshaft.server.identity import Identity
from lineshaft.server.operation_calls import OperationCalls
from lineshaft.server.partitions.dispatch import SplitCalls
from lineshaft.server.task_calls import TaskCalls
from lineshaft.server.worker_calls import Requester
from lineshaft.wire import CALLS, Call, Nothing

_TRACED = {"enqueue", "put", "bulk"}
_LEASES = {"claim", "report"}
UNDIVIDED = {"root", "live", "ready", "openapi", "keys", "new_key", "revoke_key", "tenants", "put_tenant"}
"""Calls about the process and the installation: no tenant's partitions have a part in them."""


class Calls(SplitCalls, TaskCalls, OperationCalls):
    """One method per call of the table, of the same name."""

    def call(
        self,
        call: Call,
        identity: Identity,
        *,
        id: str | None = None,
        query: Any = None,
        body: Any = None,
        traceparent: str | None = None,
        requester: Requester | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Make a call and return its answer struct, to come (None: a claim without `max` found nothing).

        `body` is the call's struct, and of a bulk enqueue a list of them. `requester` is asked before an
        answer that leases tasks is given. Raises `LineshaftError`.
        """
        split = self.partitioned
        if split and identity.tenant in split and call.name not in UNDIVIDED:
            return split[identity.tenant].call(
                call, identity, id=id, query=query, body=body, traceparent=traceparent, requester=requester
            )
        shape = _SHAPES[call.name]
        arguments: list[Any] = [identity]
        if shape.id:
            arguments.append(id)
        if shape.query is not None:
            arguments.append(shape.query() if query is None else query)
        if shape.body is not None:
            arguments.append(shape.body() if body is None else body)
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self, call.name)
        if shape.traced:
            return method(*arguments, traceparent=traceparent)
        return method(*arguments, requester=requester) if shape.leases else method(*arguments)


class _Shape:
    """Which parameters a call's method takes."""

    def __init__(self, call: Call) -> None:
        self.id = "{id}" in call.path
        self.traced = call.name in _TRACED
        self.leases = call.name in _LEASES
        self.query = call.query
        self.body = None if call.body is Nothing else (list if call.name == "bulk" else call.body)


_SHAPES = {name: _Shape(call) for name, call in CALLS.items()}
