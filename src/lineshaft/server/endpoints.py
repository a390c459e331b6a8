"""A call of the table made ready to be served: how its body and query are read and its answer is told."""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.errors import Invalid, LineshaftError, Malformed, UnsupportedMediaType
from lineshaft.server import fields
from lineshaft.server.headers import JSON, NDJSON, Headers
from lineshaft.server.reading import BodyReader, QueryReader
from lineshaft.server.settings import Limits
from lineshaft.server.splitting import array_parts
from lineshaft.server.whole import WholeReader
from lineshaft.values.rawjson import MAX_DEPTH
from lineshaft.wire import Call, Claim, Enqueue, Health, Item, Nothing, Report
from lineshaft.wire.messages import OptionalRaw, Request

_OF_THE_PROCESS = frozenset({"root", "live", "ready", "metrics", "openapi"})
_OF_ALL_TENANTS = frozenset({"keys", "new_key", "revoke_key", "tenants", "put_tenant"})
_NOT_TWICE = frozenset({"retry", "promote", "delete", "new_key", "revoke_key"})
_LEVELS = {"fail": 2, "bulk": 2, "report": 4}
"""How deep a payload may lie inside the message, where that is not 1."""
_ENDED = ("completed", "failed", "cancelled")


class _RawReport(Request, kw_only=True):
    items: list[msgspec.Raw]
    claim: OptionalRaw = None


class Endpoint:
    """One call, ready to be served."""

    def __init__(self, call: Call, limits: Limits) -> None:
        self.call = call
        self.media = call.media.encode()
        self.placed = call.name not in _OF_THE_PROCESS
        """Whether only the owner of a shard can answer it."""
        self.of_all_tenants = call.name in _OF_ALL_TENANTS
        """Whether that shard is the one in which API keys and tenants are."""
        self.writes = call.method != "GET" and call.scope != "read"
        self.limit = limits.batch if call.name in _LEVELS else limits.payload + limits.envelope
        self._most = limits.items
        self._query = QueryReader(call.query)
        self._query_waits = call.query is not None and "wait" in call.query.__struct_fields__
        levels = _LEVELS.get(call.name, 1)
        batch = {"bulk": list[Enqueue], "report": Report}.get(call.name)
        self._batch = None if batch is None else WholeReader(batch, max_depth=MAX_DEPTH + levels)
        if call.name == "bulk":
            self._body = BodyReader(list[msgspec.Raw], levels=levels, items_apart=True)
            self._item = BodyReader(Enqueue)
        elif call.name == "report":
            self._body = BodyReader(_RawReport, levels=levels, items_apart=True)
            self._item = BodyReader(Item, levels=2)
            self._claim = BodyReader(Claim)
        else:
            self._body = BodyReader(call.body or Nothing, levels=levels)

    def checked_media(self, headers: Headers) -> str | None:
        """Return the body's media type, None where there is no body. Raises `UnsupportedMediaType`."""
        if self.call.body is None and not headers.announces_body:
            return None
        media = headers.media_type()
        if media == NDJSON and self.call.name != "bulk":
            raise UnsupportedMediaType(f"expected Content-Type: {JSON}")
        return media

    def read_body(self, body: bytes, media: str | None) -> Any:
        """Return the request's struct, None where the call takes none.

        Of `bulk` and `report` each item is read for itself: an error stands where a bad one was.
        Raises `UnsupportedMediaType`, `Malformed`, `Invalid`.
        """
        if body and media is None:
            raise UnsupportedMediaType(f"say Content-Type: {JSON}")
        if not body and self.call.body is None:
            return None
        if media == NDJSON:
            return self._items([line for line in body.split(b"\n") if line.strip(b" \t\r")])
        if self._batch is not None and (known := self._batch.read(body)) is not None:
            self._limit_items(known if self.call.name == "bulk" else known.items)
            return known
        if self.call.name == "bulk":
            return self._items(self._read_list(body))
        message = self._body.read(body)
        if self.call.name == "report":
            told = b"null" if message.claim is None else bytes(message.claim)
            claim = None if told == b"null" else self._claim.read(told, at="claim")
            return Report(items=self._items(message.items), claim=claim)
        return message if self.call.body is not None else None

    def _read_list(self, body: bytes) -> Any:
        """Return the items, unread; what is wrong inside one is its own affair."""
        try:
            return self._body.read(body)
        except Malformed:
            if (parts := array_parts(body, most=self._most)) is None:
                raise
            return parts

    def _items(self, items: list[Any]) -> list[Any]:
        self._limit_items(items)
        return [self._read_item(bytes(item)) for item in items]

    def _limit_items(self, items: list[Any]) -> None:
        if len(items) > self._most:
            raise Invalid(f"at most {self._most} items", field="items")

    def _read_item(self, item: bytes) -> Any:
        try:
            return self._item.read(item)
        except LineshaftError as error:
            return error

    def read_query(self, query: bytes) -> Any:
        """Return the query's struct. Raises `Malformed`, `Invalid`."""
        try:
            return self._query.read(query.decode("ascii"))
        except UnicodeDecodeError:
            raise Malformed("a query must be percent-encoded") from None

    def waits(self, query: Any, message: Any) -> bool:
        """Tell whether the answer may be long in coming."""
        if self._query_waits and query.wait is not None:
            return True
        name = self.call.name
        claim = message if name == "claim" else message.claim if name == "report" else None
        return claim is not None and claim.wait is not None

    def leases(self, message: Any) -> bool:
        """Tell whether the answer may lease tasks to whoever asks."""
        return self.call.name == "claim" or (self.call.name == "report" and message.claim is not None)

    def may_repeat(self, message: Any) -> bool:
        """Tell whether sending the request again, where its outcome is unknown, does no harm."""
        name = self.call.name
        if name == "enqueue":
            return message.task_id is not None
        if name == "bulk":
            return all(isinstance(item, LineshaftError) or item.task_id is not None for item in message)
        return name not in _NOT_TWICE and not name.endswith("_many")

    def hurried(self, query: Any, message: Any) -> None:
        """Let the request wait for nothing."""
        if self._query_waits:
            query.wait = None
        name = self.call.name
        claim = message if name == "claim" else message.claim if name == "report" else None
        if claim is not None:
            claim.wait = None

    def status(self, query: Any, answer: Any) -> int:
        """Return the status of a success."""
        name = self.call.name
        if name in ("enqueue", "put"):
            if query.wait is not None and answer.state not in _ENDED and fields.wait(query.wait):
                return 202
            return 201 if answer.created else 200
        if isinstance(answer, Health):
            return 200 if answer.status == "ok" else 503
        return self.call.statuses[0]
