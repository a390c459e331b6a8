"""Worker processes killed, frozen, drained and supervised, at a real coordinator."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from lineshaft import App, TaskFailed
from lineshaft.sdk.loading import load_app
from lineshaft.sdk.stop_signals import ECHO
from lineshaft.sdk.supervisor import Supervisor
from lineshaft.sdk.worker_settings import worker_settings
from tests.sdk import workshop_tasks as tasks
from tests.sdk.conftest import Coordinator, Process, Workshop, until

pytestmark = pytest.mark.faults


@pytest.fixture
async def app(coordinator: Coordinator) -> AsyncIterator[App]:
    async with App(coordinator.url) as app:
        yield app


def at(coordinator: Coordinator) -> dict[str, str]:
    return {"LINESHAFT_URL": coordinator.url}


async def test_a_killed_workers_task_runs_elsewhere(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    first = workshop.worker(**at(coordinator))
    handle = await app.enqueue(tasks.wait_for, "go")
    await workshop.until("go started 1")
    first.send(signal.SIGKILL)
    workshop.allow("go")
    second = workshop.worker(**at(coordinator))
    assert await handle.result("20s") == f"{second.process.pid} in attempt 2"
    info = await handle.info()
    assert (info.attempt, info.lost_leases) == (2, 1)


async def test_a_frozen_workers_late_outcome_changes_nothing(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    frozen = workshop.worker(**at(coordinator))
    handle = await app.enqueue(tasks.wait_for, "go")
    await workshop.until("go started 1")
    frozen.send(signal.SIGSTOP)
    other = workshop.worker(**at(coordinator))
    await workshop.until("go started 2")
    workshop.allow("go")
    assert await handle.result("20s") == f"{other.process.pid} in attempt 2"
    other.send(signal.SIGTERM)
    assert await other.ended() == 0
    frozen.send(signal.SIGCONT)
    # It is told that the lease is lost, and goes on working.
    assert await app.enqueue_and_wait(tasks.who) == frozen.process.pid
    assert await handle.result() == f"{other.process.pid} in attempt 2"
    info = await handle.info()
    assert [(one.attempt, one.outcome) for one in info.attempts or []] == [
        (1, "lease_lost"),
        (2, "completed"),
    ]


async def test_sigterm_finishes_what_runs_and_gives_back_the_rest(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    worker = workshop.worker("--grace", "1s", "--concurrency", "3", **at(coordinator))
    quick, endless = await app.enqueue(tasks.wait_for, "quick"), await app.enqueue(tasks.wait_for, "endless")
    deaf = await app.enqueue(tasks.block, "deaf")
    for event in ("quick started 1", "endless started 1", "deaf started 1"):
        await workshop.until(event)
    worker.send(signal.SIGTERM)
    await said(worker, "stops claiming")
    workshop.allow("quick")
    assert await worker.ended() == 0
    assert (await quick.result("1s")).endswith("in attempt 1")
    for handle in (endless, deaf):
        info = await handle.info()
        assert (info.state, info.attempt, info.lost_leases) == ("queued", 0, 0)
    assert "endless interrupted 1" in workshop.events()


async def test_a_second_signal_ends_at_once(app: App, coordinator: Coordinator, workshop: Workshop) -> None:
    worker = workshop.worker("--grace", "1h", **at(coordinator))
    handle = await app.enqueue(tasks.wait_for, "never")
    await workshop.until("never started 1")
    worker.send(signal.SIGTERM)
    await said(worker, "stops claiming")
    first_at = time.monotonic()

    async def is_no_echo() -> bool:
        return time.monotonic() >= first_at + ECHO

    await until(is_no_echo, True)
    worker.send(signal.SIGTERM)
    assert await worker.ended(10) == 0
    assert (await handle.info()).attempt == 0


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_signal_that_comes_twice_in_a_moment_lets_tasks_finish(
    app: App, coordinator: Coordinator, workshop: Workshop, processes: str
) -> None:
    worker = workshop.worker("--grace", "1h", "--processes", processes, **at(coordinator))
    handle = await app.enqueue(tasks.wait_for, "go")
    await workshop.until("go started 1")
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGINT)
    await said(worker, "stops claiming")
    workshop.allow("go")
    assert await worker.ended(20) == 0
    assert (await handle.result("1s")).endswith("in attempt 1")


async def said(process: Process, text: str) -> None:
    async def seen() -> bool:
        return text in process.said()

    await until(seen, True, said=process.said)


async def test_a_crash_is_charged_to_its_task_and_the_process_starts_again(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    workshop.worker("--processes", "2", **at(coordinator))
    before = {await app.enqueue_and_wait(tasks.who) for _ in range(10)}
    handle = await app.enqueue(tasks.crash)
    with pytest.raises(TaskFailed, match="was killed by SIGKILL while it executed this task") as caught:
        await handle.result("20s")
    assert caught.value.failure_type == "worker_crashed"
    assert workshop.events() == ["crash 1", "crash 2"]
    info = await handle.info()
    assert (info.attempt, info.lost_leases) == (2, 0)
    assert await app.enqueue_and_wait(tasks.add, 1, 2) == 3
    assert len(before) <= 2


async def test_a_crash_is_not_charged_to_those_who_only_waited(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    transport = app.open_transport()
    supervisor = Supervisor(
        "tasks:app",
        worker_settings(concurrency=3),
        processes=1,
        transport=transport,
        directory=workshop.folder,
        url=coordinator.url,
    )
    running = asyncio.create_task(supervisor.run())
    bystander = await app.enqueue(tasks.wait_for, "go")
    await workshop.until("go started 1")
    crashing = await app.enqueue(tasks.crash)
    with pytest.raises(TaskFailed, match="worker_crashed"):
        await crashing.result("20s")
    workshop.allow("go")
    assert (await bystander.result("20s")).endswith("in attempt 1")
    assert (await bystander.info()).lost_leases == 0
    assert len(supervisor.pids) == 1
    supervisor.stop()
    await asyncio.wait_for(running, 20)
    await transport.close()


async def test_what_was_on_its_way_to_a_process_that_died_waits_for_no_lease(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    transport = app.open_transport()
    supervisor = Supervisor(
        "tasks:app",
        worker_settings({"default": 5, "mail": 5}),
        processes=1,
        transport=transport,
        directory=workshop.folder,
        url=coordinator.url,
    )
    running = asyncio.create_task(supervisor.run())
    hog = await app.enqueue(tasks.hog.configure(max_retries=0))
    await workshop.until("hog 1")  # from now on it reads nothing of what is pushed
    handles = await app.enqueue_many(
        tasks.add.configure(queue=queue).bind(1, 2) for queue in ("default", "mail", "default")
    )

    async def states() -> set[str]:
        return {await handle.state() for handle in handles}

    await until(states, {"running"})
    os.kill(supervisor.pids[0], signal.SIGKILL)
    assert [await handle.result("15s") for handle in handles] == [3, 3, 3]
    assert {(info.attempt, info.lost_leases) for info in [await one.info() for one in handles]} == {(1, 0)}
    with pytest.raises(TaskFailed, match="worker_crashed"):
        await hog.result("5s")
    supervisor.stop()
    await asyncio.wait_for(running, 20)
    await transport.close()


@pytest.mark.parametrize("words", [1, 2])
async def test_a_process_that_does_not_stop_is_killed_and_its_tasks_go_back(
    app: App, coordinator: Coordinator, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    monkeypatch.setattr("lineshaft.sdk.supervisor.PATIENCE", 0.5 if words == 1 else 3600)
    monkeypatch.setattr("lineshaft.sdk.supervisor.HURRIED", 0.5)
    transport = app.open_transport()
    supervisor = Supervisor(
        "tasks:app",
        worker_settings(grace=0),
        processes=1,
        transport=transport,
        directory=workshop.folder,
        url=coordinator.url,
    )
    running = asyncio.create_task(supervisor.run())
    handle = await app.enqueue(tasks.hog)
    await workshop.until("hog 1")
    for _ in range(words):
        supervisor.stop()
    await asyncio.wait_for(running, 20)
    info = await handle.info()
    assert (info.state, info.attempt, info.lost_leases) == ("queued", 0, 0)
    await transport.close()


async def test_crashes_without_a_task_stop_the_whole(coordinator: Coordinator, workshop: Workshop) -> None:
    (workshop.folder / "tasks.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (workshop.folder / "starter.py").write_text(
        "import sys\nfrom lineshaft import App\napp = App()\n"
        "if sys.argv[0].endswith('child.py'):\n    import tasks\n"
    )
    worker = workshop.worker("--processes", "2", app="starter:app", **at(coordinator))
    assert await worker.ended(30) != 0
    assert "worker processes crashed 5 times within 10 s without a task to blame" in worker.said().replace(
        "\n", " "
    )
    assert "SIGSEGV" in worker.said()


async def test_the_supervisor_takes_its_processes_along(
    app: App, coordinator: Coordinator, workshop: Workshop
) -> None:
    for ending in (signal.SIGTERM, signal.SIGKILL):
        supervisor = workshop.worker("--processes", "2", **at(coordinator))
        children = set()
        while len(children) < 2:
            children.add(await app.enqueue_and_wait(tasks.who))
        supervisor.send(ending)
        assert await supervisor.ended() == (0 if ending is signal.SIGTERM else -signal.SIGKILL)

        async def alive(pids: frozenset[int] = frozenset(children)) -> list[int]:
            return [pid for pid in pids if is_alive(pid)]

        await until(alive, [])


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_processes_of_an_embedded_app_are_served_by_their_supervisor(workshop: Workshop) -> None:
    url = f"sqlite:///{workshop.folder}/jobs.db"
    async with App(url) as app:
        handle = await app.enqueue(tasks.wait_for, "go")
        crashing = await app.enqueue(tasks.crash)
    supervisor = workshop.worker("--processes", "2", LINESHAFT_URL=url)
    await workshop.until("crash 2")
    workshop.allow("go")

    async def finished() -> bool:
        return any(event.startswith("go finished") for event in workshop.events())

    await until(finished, True, said=supervisor.said)
    supervisor.send(signal.SIGTERM)
    assert await supervisor.ended() == 0
    async with App(url) as app:
        assert (await app.handle(handle.task_id, tasks.wait_for).result("1s")).endswith("in attempt 1")
        with pytest.raises(TaskFailed, match="worker_crashed"):
            await app.handle(crashing.task_id).result("1s")


async def test_one_process_can_be_coordinator_and_worker(workshop: Workshop) -> None:
    url = f"sqlite:///{workshop.folder}/jobs.db"
    async with App(url) as app:
        handle = await app.enqueue(tasks.wait_for, "go")
    worker = workshop.worker(LINESHAFT_URL=url)
    workshop.allow("go")
    await workshop.until("go finished 1")
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    async with App(url) as app:
        assert await app.handle(handle.task_id).result("1s") == f"{worker.process.pid} in attempt 1"


def test_the_module_of_tasks_is_an_app() -> None:
    assert load_app("tests.sdk.workshop_tasks:app") is tasks.app
    assert os.getpid() > 0
