"""What `lineshaft doctor` checks of a coordinator: whether it answers, takes our key, and gets work done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.findings import Finding, ok, trouble, warning
from lineshaft.cli.session import Session
from lineshaft.cli.trouble import judge
from lineshaft.errors import LineshaftError, NotFound, Unavailable
from lineshaft.values.instants import parse_instant

if TYPE_CHECKING:
    from lineshaft import wire

MAX_SKEW = 1.0
LOOKED_AT = 20
"""Tasks that are asked about one by one; of a long backlog those that have waited longest."""
SILENT_COORDINATOR = 10.0
"""Seconds; with the usual ownership lease it would be dead long before."""
OF_LATE = 100
"""Failed tasks that are looked through."""
SILENT = 2 / 3
"""The share of a lease without a word after which a worker counts as silent: two heartbeats were missed."""


async def coordinator(session: Session, *, expected: bool, served_at: str | None = None) -> list[Finding]:
    """Check what answers at the URL; with `expected` False nobody need be there.

    `served_at` is where the coordinator is that has the store open, as its lock file tells.
    """
    try:
        root: wire.Root = await session.call("root", timeout=5)
    except LineshaftError as error:
        return [_unreached(error, session.url, expected=expected, served_at=served_at)]
    found = [ok("coordinator", f"{session.url} answers, version {root.version}"), *_version(root)]
    try:
        health: wire.Health = await session.call("ready", timeout=5)
    except LineshaftError as error:
        return [*found, _unready(error, session.url)]
    found.append(_ready(health))
    found += _others(health)
    try:
        stats: wire.Stats = await session.call("stats", timeout=5)
        queues: wire.QueueList = await session.call("queues", timeout=5)
        workers: wire.WorkerList = await session.call("workers", timeout=5)
        found += [_skew(stats), _key(session)]
        found += _standing(queues, workers.workers)
        found += await _waiting(session)
        found += await _silent(session, stats, workers.workers)
        found += await _poison(session)
    except LineshaftError as error:
        verdict = judge(error, url=session.url)
        named = "api key" if error.status in (401, 403) else "coordinator"
        return [*found, trouble(named, verdict.reason, verdict.hint)]
    return found


def _version(root: wire.Root) -> Iterator[Finding]:
    from lineshaft.cli.version import version

    if root.version != version():
        yield warning("versions", f"here {version()}, there {root.version}", "bring both to the same version")


def _unreached(error: LineshaftError, url: str, *, expected: bool, served_at: str | None) -> Finding:
    verdict = judge(error, url=url)
    if verdict.code is ExitCode.UNREACHABLE and served_at is not None and served_at != url:
        return trouble(
            "coordinator", verdict.reason, f"the store is served at {served_at}: --url {served_at}"
        )
    if verdict.code is ExitCode.UNREACHABLE and not expected:
        return ok("coordinator", f"none at {url}")
    if error.status == 403:
        host = urlsplit(url).hostname
        return trouble("host", verdict.reason, f"start it with --allowed-host {host}")
    return trouble("coordinator", verdict.reason, verdict.hint)


def _unready(error: LineshaftError, url: str) -> Finding:
    verdict = judge(error, url=url)
    if not isinstance(error, Unavailable):
        return trouble("readiness", verdict.reason, verdict.hint)
    return trouble(
        "readiness",
        verdict.reason,
        "its log says more; `lineshaft doctor --store URL` on its machine looks at its disk",
    )


def _ready(health: wire.Health) -> Finding:
    place = f"{health.store}, survives {health.tier}"
    if health.tier in (None, "none"):
        return warning(
            "readiness", f"{health.store}: a restart forgets everything", "use --store sqlite:///jobs.db"
        )
    if health.reason is not None:
        return warning("readiness", f"{place}: {health.reason}", "see the page of the store in the docs")
    return ok("readiness", place)


def _others(health: wire.Health) -> Iterator[Finding]:
    """Say who else is on the store, and what keeps them from reaching each other."""
    coordinators = health.coordinators
    if coordinators is None:
        return
    for one in coordinators:
        place = one.address or "a coordinator inside an App"
        what = f"{place} has {len(one.shards)} shards" + (", and is leaving" if one.leaving else "")
        twins = sum(other.address == one.address for other in coordinators)
        loopback = urlsplit(one.address).hostname in ("127.0.0.1", "localhost", "::1")
        if not one.address:
            yield warning("coordinators", f"{what}; others cannot reach it", "let it say an address")
        elif twins > 1:
            yield warning(
                "coordinators", f"{what}; so says another", "give each an address of its own (--address)"
            )
        elif loopback and len(coordinators) > 1 and not _is_loopback_only(coordinators):
            yield warning(
                "coordinators",
                f"{what}; other machines cannot reach it there",
                "start it with --address http://HOST:PORT",
            )
        elif one.silent_for > SILENT_COORDINATOR:
            yield warning(
                "coordinators", f"{what}, and is silent for {one.silent_for:.0f} s", "look after it"
            )
        else:
            yield ok("coordinators", what + (" (asked here)" if one.here else ""))
    versions = sorted({one.version for one in coordinators})
    if len(versions) > 1:
        yield warning("versions", f"the coordinators are {', '.join(versions)}", "bring all to the same")


def _is_loopback_only(coordinators: Sequence[wire.CoordinatorInfo]) -> bool:
    return all(urlsplit(one.address).hostname in ("127.0.0.1", "localhost", "::1") for one in coordinators)


def _skew(stats: wire.Stats) -> Finding:
    skew = parse_instant(stats.now, field="now") / 1000 - time.time()
    if abs(skew) > MAX_SKEW:
        return warning("clocks", f"the coordinator's is {skew:+.1f} s from ours", "let NTP set both")
    return ok("clocks", "the coordinator's agrees with ours")


def _key(session: Session) -> Finding:
    if session.api_key is not None:
        return ok("api key", "accepted")
    if urlsplit(session.url).hostname in ("127.0.0.1", "localhost", "::1"):
        return ok("api key", "none needed: only this machine is expected to reach it")
    return warning(
        "api key",
        "none needed: whoever reaches it may do everything",
        "make one: `lineshaft keys create NAME --scope admin`",
    )


def _standing(queues: wire.QueueList, workers: Sequence[wire.WorkerInfo]) -> Iterator[Finding]:
    backlog = sum(queue.backlog for queue in queues.queues)
    if backlog and not workers:
        yield warning("workers", f"none, and {_wait(backlog)}", "start one with `lineshaft worker`")
    elif backlog and all(worker.draining for worker in workers):
        yield warning(
            "workers",
            f"all {len(workers)} are draining, and {_wait(backlog)}",
            "start others; a drained one is to be stopped and started again",
        )
    else:
        yield ok("workers", f"{len(workers)} seen lately")
    for queue in queues.queues:
        if queue.paused and queue.backlog:
            yield warning(
                "queues",
                f"{queue.queue} is paused, and {_wait(queue.backlog)}",
                f"lineshaft queues resume {queue.queue}",
            )


async def _waiting(session: Session) -> list[Finding]:
    """Ask why those wait that have waited longest: whether there is a worker that could take them at all."""
    from lineshaft import wire

    page: wire.TaskPage = await session.call(
        "search", body=wire.Search(state="queued", sort="created_at", limit=LOOKED_AT), timeout=5
    )
    found: dict[tuple[str, str], list[str]] = {}
    for task in page.tasks:
        explained = await _explain(session, task.task_id)
        for reason in explained.reasons if explained is not None else ():
            if reason.code == "no_worker":
                todo = f"start a worker that has it: --capability, --resource ({_explained(task)})"
            elif reason.code == "no_claim" and "no live worker" in reason.detail:
                todo = f"start a worker for queue {task.queue} that knows {task.name} ({_explained(task)})"
            else:
                continue
            found.setdefault((reason.detail, task.queue), []).append(todo)
    return [
        warning("tasks", f"{detail} ({_wait(len(todos))} in {queue})", todos[0])
        for (detail, queue), todos in found.items()
    ]


async def _silent(session: Session, stats: wire.Stats, workers: Sequence[wire.WorkerInfo]) -> list[Finding]:
    """Look for leases that nobody has renewed for the time of two heartbeats."""
    from lineshaft import wire

    now = parse_instant(stats.now, field="now")
    seen = {worker.worker_id: parse_instant(worker.seen_at, field="seen_at") for worker in workers}
    page: wire.TaskPage = await session.call(
        "search", body=wire.Search(state="running", sort="created_at", limit=LOOKED_AT), timeout=5
    )
    found = []
    for task in page.tasks:
        # A worker may have taken a longer or a shorter lease than the task asks for: both must say so.
        silent = (now - seen.get(task.worker_id or "", 0)) / 1000
        left = await _left_of_lease(session, task, now)
        if left is None or task.lease is None or task.worker_id not in seen:
            continue
        if silent > SILENT * task.lease and left < (1 - SILENT) * task.lease:
            found.append(
                warning(
                    "heartbeats",
                    f"{task.worker_id} holds task {task.task_id} and has said nothing for {silent:.0f} s",
                    f"see whether it is alive and not frozen; in {max(0.0, left):.0f} s others get the task",
                )
            )
    return found


async def _left_of_lease(session: Session, task: wire.Task, now: int) -> float | None:
    explained = await _explain(session, task.task_id)
    reasons = () if explained is None or explained.state != "running" else explained.reasons
    until = next((reason.until for reason in reasons if reason.until), None)
    return None if until is None else (parse_instant(until, field="until") - now) / 1000


async def _poison(session: Session) -> list[Finding]:
    """Look for tasks that failed because each worker that held them fell silent."""
    from lineshaft import wire

    page: wire.TaskPage = await session.call(
        "search", body=wire.Search(state="failed", sort="-finished_at", limit=OF_LATE), timeout=5
    )
    poison = [task for task in page.tasks if task.reason == "too_many_lost_leases"]
    if not poison:
        return []
    last = poison[0]
    count = "1 task" if len(poison) == 1 else f"{len(poison)} tasks"
    return [
        warning(
            "poison",
            f"{count} of late took their workers along, {last.task_id} ({last.name}) the last",
            f"see what it did with `lineshaft tasks history {last.task_id}` (memory, a crash, a blocked "
            f"process?), mend it, then `lineshaft tasks retry {last.task_id}`",
        )
    ]


async def _explain(session: Session, task_id: str) -> wire.Explanation | None:
    try:
        explained: wire.Explanation = await session.call("explain", id=task_id, timeout=5)
    except NotFound:
        return None  # it has gone in the meantime
    return explained


def _explained(task: wire.Task) -> str:
    return f"`lineshaft tasks explain {task.task_id}`"


def _wait(count: int) -> str:
    return "1 task waits" if count == 1 else f"{count} tasks wait"
