"""The promises once more, naively: every question is answered by scanning a list.

An independent second opinion for the state-machine test. It knows nothing of lanes, deadlines or batches, and
shares no code with the shard: where the two disagree, one of them breaks a promise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LOST_LIMIT = 5
OPEN = ("scheduled", "queued", "claimed", "running")


@dataclass
class Held:
    """A lease: its number, its holder and when it runs out."""

    fence: int
    worker: str
    ttl: int
    expires_at: int
    claim_id: str | None
    started_at: int | None = None


@dataclass
class Job:
    """A task as its owner would describe it."""

    arrival: int
    id: str
    name: str
    queue: str
    priority: int
    run_at: int
    state: str
    max_retries: int = 3
    timeout: int | None = None
    expires_at: int | None = None
    retention: int = 7 * 24 * 3_600_000
    needs: frozenset[str] = frozenset()
    attempt: int = 0
    generation: int = 1
    lost: int = 0
    held: Held | None = None
    cancel: bool = False
    settled: tuple[int, object, str] | None = None
    """The outcome that ended the last lease: its fence, what was said, and the state that it led to."""
    keep_until: int | None = None
    result: bytes | None = None
    time_out_at: int | None = None


@dataclass
class Model:
    """The whole world of one tenant."""

    now: int
    jobs: dict[str, Job] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    fence: int = 0
    arrivals: int = 0

    # Asking.

    def visible(self, id: str) -> Job | None:
        """Find a task that was not forgotten and is within its retention."""
        job = self.jobs.get(id)
        if job is not None and job.keep_until is not None and job.keep_until <= self.now:
            return None
        return job

    def takes(self, job: Job, *, queues: object, names: object, abilities: frozenset[str]) -> bool:
        """Tell whether such a claim could have the task now."""
        return (
            job.state == "queued"
            and job.queue not in self.paused
            and (queues is None or job.queue in queues)  # type: ignore[operator]
            and (names is None or job.name in names)  # type: ignore[operator]
            and job.needs <= abilities
        )

    def choose(self, most: int, *, queues: object, names: object, abilities: frozenset[str]) -> list[Job]:
        """Name what a claim gets: the first of those that it can have."""
        able = [
            job
            for job in self.jobs.values()
            if self.takes(job, queues=queues, names=names, abilities=abilities)
        ]
        return sorted(able, key=lambda job: (job.priority, job.run_at, job.arrival))[:most]

    def counts(self) -> dict[str, int]:
        """Count by state what is not forgotten."""
        counts: dict[str, int] = {}
        for job in self.jobs.values():
            counts[job.state] = counts.get(job.state, 0) + 1
        return counts

    # Doing.

    def enqueue(self, job: Job) -> Job | None:
        """Take a task in; None where the queue is closed."""
        existing = self.visible(job.id)
        if existing is not None:
            return existing
        if job.queue in self.closed:
            return None
        job.arrival, self.arrivals = self.arrivals, self.arrivals + 1
        self.jobs[job.id] = job
        return job

    def lease(self, job: Job, worker: str, *, ttl: int, claim_id: str | None, start: bool) -> None:
        """Hand a task to a worker."""
        self.fence += 1
        job.state, job.settled = "claimed", None
        job.held = Held(self.fence, worker, ttl, self.now + ttl, claim_id)
        if start:
            self.begin(job)

    def begin(self, job: Job) -> None:
        """Count an attempt."""
        assert job.held is not None
        job.state, job.attempt, job.held.started_at = "running", job.attempt + 1, self.now
        job.time_out_at = None if job.timeout is None else self.now + job.timeout

    def of_claim(self, claim_id: str) -> list[Job]:
        """Name what is still held of a claim."""
        held = [job for job in self.jobs.values() if job.held is not None and job.held.claim_id == claim_id]
        return sorted(held, key=lambda job: job.held.fence if job.held else 0)

    def extend(self, job: Job) -> None:
        """Let a lease run from now again."""
        assert job.held is not None
        job.held.expires_at = max(job.held.expires_at, self.now + job.held.ttl)

    def end(self, job: Job, state: str) -> None:
        """Finish a task."""
        job.state, job.held, job.keep_until = state, None, self.now + job.retention

    def again(self, job: Job, delay: int | None) -> None:
        """Run a task again: after a delay, or (None) at its old place."""
        job.held = None
        if job.cancel:
            self.end(job, "cancelled")
            return
        if delay is not None:
            job.run_at = self.now + delay
        job.state = "scheduled" if job.run_at > self.now else "queued"

    def give_back(self, job: Job, delay: int | None) -> None:
        """Release or snooze: the attempt did not count."""
        if job.state == "running":
            job.attempt -= 1
        self.again(job, delay)

    def failed(self, job: Job, *, retry: bool = True, delay: int | None = None) -> None:
        """End an attempt badly."""
        if retry and job.attempt <= job.max_retries:
            self.again(job, 1_000 * 2 ** (job.attempt - 1) if delay is None else delay)
        elif job.cancel:
            self.end(job, "cancelled")
        else:
            self.end(job, "failed")

    def lose(self, job: Job) -> None:
        """A lease ran out."""
        job.lost += 1
        used_up = job.state == "running" and job.attempt == job.max_retries + 1
        if (job.lost >= LOST_LIMIT or used_up) and not job.cancel:
            self.end(job, "failed")
        else:
            self.again(job, None)

    def run_anew(self, job: Job) -> None:
        """Retry a finished task by hand."""
        job.generation, job.attempt, job.lost, job.cancel = job.generation + 1, 0, 0, False
        job.keep_until = job.result = None
        job.run_at, job.state = self.now, "queued"
        if job.expires_at is not None and job.expires_at <= self.now:
            job.expires_at = None

    def reload(self, down: int) -> None:
        """Nobody owned the shard for a while: leases and time limits begin anew."""
        self.now += down
        for job in self.jobs.values():
            if job.held is not None:
                self.extend(job)
                if job.time_out_at is not None:
                    job.time_out_at = max(job.time_out_at, self.now + job.held.ttl)

    def prune(self, margin: int) -> None:
        """Forget what is past its retention."""
        for job in list(self.jobs.values()):
            if job.keep_until is not None and job.keep_until + margin <= self.now:
                del self.jobs[job.id]

    # Time.

    def next_instant(self) -> int | None:
        """Name the next instant at which time alone does something."""
        instants = [instant for job in self.jobs.values() for instant in self._instants(job)]
        return min(instants, default=None)

    def _instants(self, job: Job) -> list[int]:
        found = []
        if job.state == "scheduled":
            found.append(job.run_at)
        if (
            job.state in ("scheduled", "queued", "claimed")
            and job.attempt == 0
            and job.expires_at is not None
        ):
            found.append(job.expires_at)
        if job.held is not None:
            found.append(job.held.expires_at)
            if job.state == "running" and job.time_out_at is not None:
                found.append(job.time_out_at)
        return found

    def happen(self) -> None:
        """Let happen what is due now."""
        for job in list(self.jobs.values()):
            if job.state == "scheduled" and job.run_at <= self.now:
                job.state = "queued"
            if (
                job.state in ("queued", "scheduled", "claimed")
                and job.attempt == 0
                and job.expires_at is not None
                and job.expires_at <= self.now
            ):
                self.end(job, "cancelled")
            if job.state == "running" and job.time_out_at is not None and job.time_out_at <= self.now:
                self.failed(job)
            if job.held is not None and job.held.expires_at <= self.now:
                self.lose(job)
