"""A short life of a store, one call after the other, in a process that may be killed at any point of it.

    python -m tests.faults.scripted STORE LEDGER [PLAN]   live it once
    python -m tests.faults.scripted                       live it for each line of standard input

A line is `{"store", "ledger", "plan"}`, answered with the exit status of a process of its own. A plan is what
`failing_vfs` is to do. The ledger gets a line for each call as soon as it is acknowledged, written before the
next is made: so of the calls that are not in it at most one can have had an effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from lineshaft.embedded.coordinator import Coordinator
from lineshaft.errors import Retryable
from lineshaft.wire import CALLS
from tests.faults import failing_vfs

Answers = dict[str, Any]
"""What the calls were answered, by their names in the script."""


class Step(NamedTuple):
    """One call: its name here, that of the protocol, the id in its path, and what makes its body."""

    name: str
    call: str
    id: str | None
    body: Callable[[Answers], Any]


def _claim(name: str, **more: Any) -> Step:
    body = {"claim_id": name, "worker": {"id": "w", "incarnation": "i"}, "lease": "1h", **more}
    return Step(name, "claim", None, lambda _: body)


def _held(name: str, call: str, id: str, claim: str, **body: Any) -> Step:
    def made(answers: Answers) -> Any:
        [token] = [task["lease_token"] for task in answers[claim]["tasks"] if task["task_id"] == id]
        return {"lease_token": token, **body}

    return Step(name, call, id, made)


def _plain(name: str, call: str, id: str | None, body: Any = None) -> Step:
    return Step(name, call, id, lambda _: body)


LARGE = "x" * 9_000
"""More than fits a page, so that one value is many writes."""

STEPS: tuple[Step, ...] = (
    _plain("put", "put", "a", {"name": "n", "payload": {"of": "a"}}),
    _plain("bulk", "bulk", None, [{"task_id": id, "name": "n", "payload": LARGE} for id in ("b", "c", "d")]),
    _claim("first", max=3),
    _held("checkpoint", "heartbeat", "a", "first", checkpoint={"page": 7}, progress={"done": 1}),
    _held("complete", "complete", "a", "first", result=LARGE),
    _held("fail", "fail", "b", "first", error={"type": "E", "message": "m"}, retry_after="1h"),
    _plain("patch", "patch", "d", {"priority": 5, "payload": {"of": "d"}}),
    _held("release", "release", "c", "first"),
    _plain("cancel", "cancel", "d", {}),
    _plain("retry", "retry", "a", {}),
    _claim("second", max=2),
    _held("report", "complete", "c", "second", result={"of": "c"}),
    _plain("pause", "pause_queue", "default", {}),
    _plain("delete", "delete", "d"),
)
REOPENED = (_plain("late", "put", "e", {"name": "n"}),)
"""What comes after the store was closed in good order and opened again."""

WHOLE = (*STEPS, REOPENED[0])


async def live(store: str, ledger: int) -> None:
    """Live the script, with the ledger written to a descriptor."""
    answers: Answers = {}
    for steps in (STEPS, REOPENED):
        async with opened(store) as coordinator:
            for step in steps:
                answers[step.name] = await insist(coordinator, step, answers, ledger)
                note(ledger, {"step": step.name})
    note(ledger, {"step": "closed"})


async def insist(coordinator: Coordinator, step: Step, answers: Answers, ledger: int) -> Any:
    """Make a call until it is answered with something else than "not now"; note each such refusal."""
    while True:
        try:
            return await perform(coordinator, step, answers)
        except Retryable as error:
            note(ledger, {"refused": step.name, "reason": error.reason})
            await asyncio.sleep(0.05)


async def perform(coordinator: Coordinator, step: Step, answers: Answers) -> Any:
    """Make a call; return its answer as JSON would have it. Raises `LineshaftError`."""
    call = CALLS[step.call]
    answer = await coordinator.call(call, id=step.id, query=None, body=step.body(answers), traceparent=None)
    return json.loads(msgspec.json.encode(answer))


@contextlib.asynccontextmanager
async def opened(store: str) -> AsyncIterator[Coordinator]:
    """Open a store with a coordinator over it; opening is repeated where the store cannot for now."""
    coordinator = await _open(store)
    try:
        yield coordinator
    finally:
        await coordinator.close()


async def _open(store: str) -> Coordinator:
    while True:
        try:
            return await Coordinator.open(store)
        except Retryable:
            await asyncio.sleep(0.05)


def note(ledger: int, line: dict[str, Any]) -> None:
    os.write(ledger, json.dumps(line).encode() + b"\n")


def once(store: str, ledger: str, plan: dict[str, Any] | None) -> None:
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    vfs = None if plan is None else failing_vfs.install(failing_vfs.Plan(**plan))
    asyncio.run(live(store, descriptor))
    if vfs is not None:
        note(descriptor, {"writes": vfs.count})


def each() -> None:
    """Live it in a forked process for each order; that is much quicker than to start Python each time."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                once(**json.loads(line))
                status = 0
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        once(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if sys.argv[3:] else None)
    else:
        each()
