"""What happened, line by line; and a digest by which two runs are compared."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

import msgspec

from lineshaft.core import commands as c
from lineshaft.core.replies import Claimed, Enqueued, Found, Reported
from lineshaft.core.task import Task
from lineshaft.errors import LineshaftError


class Trace:
    """Lines with the virtual time at which they were written."""

    def __init__(self, *, loud: bool) -> None:
        self._loud = loud
        self._digest = blake2b(digest_size=16)
        self.lines = 0

    def __call__(self, who: str, what: str) -> None:
        """Write a line."""
        line = f"{asyncio.get_running_loop().time():10.4f} {who:<12} {what}"
        self.lines += 1
        self._digest.update(line.encode())
        if self._loud:
            print(line)

    @property
    def digest(self) -> str:
        """Return what distinguishes this run from all others."""
        return self._digest.hexdigest()


def brief(value: Any) -> str:
    """Say in a few words what a command or a reply is."""
    match value:
        case c.Enqueue(tenant=tenant, tasks=tasks):
            return f"enqueue {tenant}/{','.join(task.id for task in tasks)}"
        case c.Report(tenant=tenant, items=items, claim=claim):
            ops = ",".join(f"{type(op).__name__.lower()} {op.task_id} {op.token}" for op in items)
            return f"report {tenant} [{ops}]{' +claim' if claim else ''}"
        case c.Claim(tenant=tenant, claim_id=claim_id, worker=worker, max=most):
            return f"claim {tenant}/{worker.id if worker else '-'} {claim_id} max {most}"
        case c.Command():
            about = getattr(value, "id", getattr(value, "queue", ""))
            return f"{type(value).__name__.lower()} {value.tenant}/{about}"
        case Enqueued(items=items, position=position):
            return f"{[brief(getattr(item, 'task', item)) for item in items]} @{position}"
        case Found(task=task, position=position):
            return f"{brief(task)} @{position}"
        case Claimed(tasks=tasks, position=position):
            return f"{[brief(task) for task in tasks]} @{position}"
        case Reported(items=items, tasks=tasks, position=position):
            told = [brief(item) if isinstance(item, LineshaftError) else item.state.word for item in items]
            return f"{told} {[brief(task) for task in tasks]} @{position}"
        case Task():
            fence = f" lease {value.lease.fence}" if value.lease else ""
            return f"{value.id}#{value.seq} {value.state.word} {value.attempt}{fence}"
        case LineshaftError():
            return f"{value.type}: {value.reason}"
        case msgspec.Struct():
            return type(value).__name__
        case _:
            return str(value)[:80]
