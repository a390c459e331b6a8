"""Messages of the push session (WebSocket, subprotocol `lineshaft.v1`): envelopes `{id, re, type, body}`.

The worker sends `hello`, `credit`, `report`; the coordinator answers each with `re` set to its `id`
(`welcome`, `credited`, `reported`, or `error`), and pushes `tasks` and `directive` whenever there are any.
`id` is chosen by the sender and only compared; a message without one is answered without `re`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from lineshaft.wire.grammar import LeaseSpan, Names
from lineshaft.wire.messages import UNSET, Answer, Directive, Raw, Request, UnsetType
from lineshaft.wire.workers import ClaimedTask, Worker

SUBPROTOCOL = "lineshaft.v1"

MessageId = str | int


class Envelope(Request, kw_only=True):
    """One message: `body` is the struct that `type` names, still raw."""

    type: str
    id: MessageId | None = None
    re: MessageId | None = None
    body: Raw | UnsetType = UNSET


class Hello(Request, kw_only=True):
    """The first message: who the worker is, what it holds, and the claim that its credit is used for."""

    worker: Worker
    holding: list[str] | None = None
    queues: Names | None = None
    names: Names | None = None
    lease: LeaseSpan | None = None
    start: bool | None = None


class Welcome(Answer, kw_only=True):
    """Which of the leases in `holding` still stand, and which are lost."""

    kept: list[str]
    lost: list[str]
    position: int = 0


class Credit(Request, kw_only=True):
    """How many tasks the worker takes in flight, an absolute number; 0 stops the push."""

    max: Annotated[int, Meta(ge=0, le=1000)]


class Credited(Answer, kw_only=True):
    """The credit is in force."""

    max: int


class PushedTasks(Answer, kw_only=True):
    """Tasks leased to this worker."""

    tasks: list[ClaimedTask]
    position: int


class PushedDirective(Answer, kw_only=True):
    """What the coordinator wants of a task's holder; without `task_id` (drain) of the whole worker."""

    directive: Directive
    task_id: str | None = None
    lease_token: str | None = None
    reason: str | None = None
