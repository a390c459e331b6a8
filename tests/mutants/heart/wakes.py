"""Wake-ups: whoever waits hears of each task that comes, whatever made it ready, and of each answer."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

_WHATEVER = "core/test_parked_claims.py::test_whatever_makes_a_task_ready_wakes_a_waiter"

WAKES = (
    mutant(
        "wake-up-lost-on-enqueue",
        "a parked claim does not hear of a new task",
        Edit(
            "core/enqueue.py",
            "memory.stand_in_line(tenant, task)",
            "memory.stand_in_line(tenant, task); memory.ready_lanes.clear()",
        ),
        caught_by=("core/test_parked_claims.py::test_a_parked_claim_gets_the_task_when_it_comes",),
    ),
    mutant(
        "wake-up-lost-when-due",
        "a parked claim does not hear of a task whose time has come, such as a retry",
        Edit(
            "core/shard.py",
            "memory.stand_in_line(tenant, task)",
            "memory.stand_in_line(tenant, task); memory.ready_lanes.clear()",
        ),
        caught_by=("core/test_parked_claims.py::test_a_scheduled_task_that_falls_due_wakes_a_waiter",),
    ),
    mutant(
        "wake-up-lost-on-release",
        "a parked claim does not hear of a task that was released, lost or retried at once",
        Edit(
            "core/memory.py:Memory.run_again",
            "self.stand_in_line(tenant, task)",
            "self.stand_in_line(tenant, task); self.ready_lanes.clear()",
        ),
        caught_by=(_WHATEVER,),
    ),
    mutant(
        "wake-up-lost-on-resume",
        "a parked claim does not hear that its queue is not paused any more",
        Edit("core/shard.py", "memory.ready_lanes[lane] = tenant", "pass"),
        caught_by=(
            "core/test_claiming.py::test_a_paused_queue_hands_nothing_out_but_takes_outcomes_and_tasks",
        ),
    ),
    mutant(
        "wake-up-lost-on-new-queue",
        "a parked claim does not hear of a queue or name that was not there when it parked",
        Edit("core/tenants.py", "if claimer.serves(lane):", "if False:"),
        caught_by=("core/test_parked_claims.py::test_a_new_queue_or_name_finds_those_that_wait_for_it",),
    ),
    mutant(
        "wake-up-lost-on-freed-resources",
        "a parked claim does not hear that its worker has room again",
        Edit("core/memory.py", "self.freed_workers[worker] = tenant", "pass"),
        caught_by=("core/test_affinity.py::test_a_parked_worker_is_woken_when_its_resources_come_free",),
    ),
    mutant(
        "wake-up-lost-on-the-end",
        "who waits for a task does not hear that it has ended",
        Edit("core/memory.py", "if waits:", "if False:"),
        caught_by=("core/test_waits.py::test_all_who_wait_are_answered_when_the_task_ends",),
    ),
    mutant(
        "one-waiter-per-lane",
        "a bulk of tasks wakes one who waits and leaves the others lying",
        Edit(
            "core/claims.py",
            "while lane.size and lane.claimers and not lane.queue.paused:",
            "if lane.size and lane.claimers and not lane.queue.paused:",
        ),
        Edit("core/claims.py", "                    break", "                    pass"),
        caught_by=(
            "core/test_parked_claims.py::test_a_bulk_fills_the_first_waiter_up_to_its_max_then_the_next",
        ),
    ),
    mutant(
        "commit-not-woken",
        "what gathers while nothing is in flight is not committed until something else comes",
        Edit("engine/intake.py:Intake._applied", "        self._wake()", "        pass"),
        caught_by=("engine/test_reply_barrier.py::test_a_refusal_waits_for_what_it_gives_away",),
    ),
    mutant(
        "deadline-never-set",
        "no timer is set, so time passes unnoticed where nobody asks",
        Edit("engine/timers.py", "if due is not None:", "if False:"),
        caught_by=("engine/test_reply_barrier.py::test_what_time_alone_brings_waits_for_its_commit_too",),
    ),
    mutant(
        "followers-not-woken",
        "who follows the changes does not hear of a commit",
        Edit("engine/changes.py", "if self._waiting:", "if False:"),
        caught_by=("engine/test_reading.py::test_whoever_follows_is_woken_by_a_commit_with_changes",),
    ),
)
