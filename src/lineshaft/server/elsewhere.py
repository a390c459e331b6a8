"""Calls made at other coordinators by this one itself, for tenants whose tasks are spread over shards."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from lineshaft.errors import BY_TYPE, LineshaftError, NotOwner, Unavailable
from lineshaft.server import fields
from lineshaft.server.calls import Calls
from lineshaft.server.change_calls import Expired
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.forwarding import Ask, Forwarder
from lineshaft.server.identity import Identity
from lineshaft.server.responses import Response
from lineshaft.server.settings import Limits
from lineshaft.wire import CALLS, Call, ErrorBody
from lineshaft.wire.targets import target

_encode = msgspec.json.Encoder().encode


class RemoteCalls:
    """Makes a call where the shard of the identity's tenant is, which may come to be here."""

    def __init__(self, forwarder: Forwarder, calls: Calls) -> None:
        self._forwarder = forwarder
        self._calls = calls
        self._endpoints = {name: Endpoint(call, Limits()) for name, call in CALLS.items()}
        self._decoders: dict[Any, msgspec.json.Decoder[Any]] = {}

    async def call(
        self,
        call: Call,
        identity: Identity,
        *,
        id: str | None = None,
        query: Any = None,
        body: Any = None,
        traceparent: str | None = None,
    ) -> Any:
        """Make a call and return its answer struct. Raises `LineshaftError`; cancelled, it hangs up."""
        given: dict[str, Any] = {"id": id, "query": query, "body": body, "traceparent": traceparent}
        if self._forwarder.is_here(identity.tenant):
            try:
                return await self._calls.call(call, identity, **given)
            except NotOwner:
                pass  # it is moving, and nothing was done
        headers = [(b"content-type", b"application/json")] if call.body is not None else []
        if traceparent is not None:
            headers.append((b"traceparent", traceparent.encode("latin-1")))
        ask = Ask(
            tenant=identity.tenant,
            identity=identity,
            method=call.method,
            target=target(call, id, query),
            headers=headers,
            body=b"" if call.body is None else b"{}" if body is None else _encode(body),
            may_repeat=lambda: self._endpoints[call.name].may_repeat(body),
        )
        while True:
            # In a task of its own: whoever serves a request may have none.
            response = await asyncio.get_running_loop().create_task(self._forwarder.forward(ask))
            if response is not None:
                return self._read(call, query, body, response)
            try:
                return await self._calls.call(call, identity, **given)
            except NotOwner:
                continue  # it has moved on

    def _read(self, call: Call, query: Any, body: Any, response: Response) -> Any:
        if response.status == 204:
            return None
        if response.status >= 300 and response.status not in call.statuses:
            raise _refusal(response)
        type = _answer(call, query, body, response.status)
        decoder = self._decoders.get(type)
        if decoder is None:
            decoder = self._decoders[type] = msgspec.json.Decoder(type)
        try:
            return decoder.decode(response.body)
        except msgspec.MsgspecError as error:
            raise Unavailable(
                f"another coordinator answered `{call.name}` in a way that is not understood here: {error}"
            ) from None


def _answer(call: Call, query: Any, body: Any, status: int) -> Any:
    """Return the struct of an answer; a claim that is made here always says `max`."""
    varies = False
    if call.name in ("enqueue", "put"):
        varies = query is not None and fields.wait(query.wait) > 0 and status != 202
    elif call.name == "cancel":
        varies = body is not None and body.lease_token is not None
    return call.variant if varies else call.answer


def _refusal(response: Response) -> LineshaftError:
    try:
        told = msgspec.json.decode(response.body, type=ErrorBody)
    except msgspec.MsgspecError:
        return Unavailable(f"another coordinator answered with status {response.status}", retry_after=1.0)
    info = told.error
    if info.earliest is not None:
        return Expired(info.reason, info.earliest)
    kind = BY_TYPE.get(info.type, LineshaftError)
    return kind(info.reason, field=info.field, task_id=info.task_id, retry_after=told.retry_after)
