"""Time: monotonic, never backwards, and nobody's lease ends because the coordinator could not listen."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

TIME = (
    mutant(
        "lease-by-wall-clock",
        "whatever the wall clock shows is the present, so a jump takes every lease",
        Edit(
            "engine/shard_time.py",
            "if trusted >= self._now:",
            "trusted = self._clock.now()\n        if trusted >= self._now:",
        ),
        caught_by=("engine/test_time.py::test_a_large_jump_is_refused_and_forgotten_when_it_is_put_right",),
    ),
    mutant(
        "step-takes-time-from-leases",
        "a small step of the wall clock shortens every lease by it",
        Edit("engine/intake.py", "if stepped:", "if False:"),
        caught_by=("engine/test_time.py::test_a_step_forward_takes_no_time_from_leases",),
    ),
    mutant(
        "time-runs-backwards",
        "the shard's present follows a wall clock that is set back",
        Edit("core/shard.py", "max(memory.ledger.now, now)", "now"),
        caught_by=("core/test_leases.py::test_time_never_runs_backwards",),
    ),
    mutant(
        "time-forgotten-at-load",
        "after a restart the present may be before what was decided by",
        Edit("engine/shard_time.py", "max(self._now, float(instant))", "self._now"),
        caught_by=("engine/test_time.py::test_it_does_not_begin_before_what_was_decided_last",),
    ),
    mutant(
        "lease-lost-in-a-stall",
        "leases run out while no heartbeat could be stored",
        Edit("engine/housekeeping.py:Housekeeping._tick", "leases=not intake.stalled", "leases=True"),
        Edit("engine/housekeeping.py:Housekeeping._keep_house", "leases=not intake.stalled", "leases=True"),
        caught_by=("engine/test_stalls.py::test_leases_do_not_run_out_while_a_commit_is_in_flight",),
    ),
    mutant(
        "stall-taken-from-leases",
        "the time of a stall is missing from every lease afterwards",
        Edit("engine/runner.py", "if stalled:", "if False:"),
        caught_by=("engine/test_stalls.py::test_they_run_out_afterwards_with_what_they_had_left",),
    ),
    mutant(
        "lease-lost-to-a-restart",
        "a lease runs out because the coordinator was down",
        Edit("core/loading.py", "if lease.renewals < MAX_RENEWALS:", "if False:"),
        caught_by=("core/test_leases.py::test_a_lease_is_extended_by_the_time_that_nobody_owned_the_shard",),
    ),
    mutant(
        "dead-worker-kept-by-restarts",
        "a coordinator that restarts often keeps the lease of a dead worker for ever",
        Edit("core/loading.py", "if lease.renewals < MAX_RENEWALS:", "if True:"),
        caught_by=("core/test_leases.py::test_repeated_outages_do_not_keep_a_dead_workers_lease_for_ever",),
    ),
    mutant(
        "leases-pay-for-culprits",
        "a client that sends what cannot be stored uses up the outages that a lease survives",
        Edit("engine/bisect.py", "*, new_outage: bool = False", "*, new_outage: bool = True"),
        caught_by=(
            (
                "engine/test_bisect.py"
                "::test_however_often_culprits_make_it_load_a_lease_is_charged_for_one_outage"
            ),
        ),
    ),
    mutant(
        "retry-without-backoff",
        "a failed task runs again at once",
        Edit("core/outcomes.py", "memory.now + delay", "memory.now"),
        caught_by=("core/test_backoff.py::test_a_failed_task_waits_longer_each_time",),
    ),
    mutant(
        "claimed-before-run-at",
        "a delayed task is handed out at once",
        Edit("core/enqueue.py", "State.SCHEDULED if run_at > now else State.QUEUED", "State.QUEUED"),
        caught_by=("core/test_enqueue.py::test_a_delayed_task_is_scheduled_and_becomes_queued_when_due",),
    ),
    mutant(
        "expired-task-handed-out",
        "a task that did not start in time is handed out late",
        Edit("core/claims.py", "head.expires_at > memory.now", "True"),
        caught_by=(
            "core/test_enqueue.py::test_nobody_is_given_a_task_past_expires_at_though_the_tick_is_late",
        ),
    ),
    mutant(
        "timeout-ignored",
        "an attempt may take as long as it likes",
        Edit("core/claims.py", "if task.spec.timeout is not None:", "if False:"),
        caught_by=("core/test_leases.py::test_a_timeout_without_retries_left_fails_the_task",),
    ),
)
