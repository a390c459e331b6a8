"""Leases: one holder, a token that only rises, one outcome, and a count of what was tried."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

LEASES = (
    mutant(
        "no-fence-at-outcome",
        "an outcome is taken from whoever sends it while anybody holds the lease",
        Edit(
            "core/outcomes.py",
            'run.lease is not None and op.token == f"{run.lease.fence:x}-{task.seq:x}"',
            "run.lease is not None",
        ),
        caught_by=("core/test_leases.py::test_a_stale_token_changes_nothing",),
    ),
    mutant(
        "token-reused-after-restart",
        "fences start again where the shard is loaded again",
        Edit("core/ledger.py", "self.fence = counters.fence", "self.fence = 0"),
        caught_by=("core/test_leases.py::test_fences_and_tokens_rise_with_every_lease",),
    ),
    mutant(
        "another-outcome-taken-for-a-repeat",
        "with a token that is spent any outcome is answered as if it were the first",
        Edit("core/outcomes.py", "and settled.digest == outcome_digest(op)", ""),
        caught_by=("core/test_outcomes.py::test_another_outcome_for_the_same_token_is_a_lost_lease",),
    ),
    mutant(
        "results-told-apart-by-length",
        "another result of the same length passes for a repetition",
        Edit("core/outcomes.py:outcome_digest", "(len(result), result)", '(len(result), b"")'),
        caught_by=("core/test_outcomes.py::test_another_result_for_the_same_token_is_a_lost_lease",),
    ),
    mutant(
        "long-results-not-told-apart",
        "another result passes for a repetition where both are too long to be kept as they are",
        Edit(
            "core/outcomes.py:outcome_digest",
            "return told if len(told) <= _SHORT else blake2b(told, digest_size=16).digest()\n    match",
            "return told if len(told) <= _SHORT else told[:16]\n    match",
        ),
        caught_by=("core/test_outcomes.py::test_long_results_are_told_apart_too",),
    ),
    mutant(
        "repeated-outcome-refused",
        "an outcome sent again after a lost answer is a lost lease",
        Edit("core/outcomes.py", "settled is not None", "settled is False"),
        caught_by=(
            "core/test_outcomes.py::test_the_same_outcome_again_gets_the_same_answer_and_changes_nothing",
        ),
    ),
    mutant(
        "result-dropped-at-a-repeat",
        "completing again with the same result deletes it",
        Edit(
            "core/outcomes.py",
            "            return OpReply(",
            "            memory.ledger.blobs[(Blob.RESULT, task.seq)] = None\n            return OpReply(",
        ),
        caught_by=(
            "core/test_outcomes.py::test_the_same_outcome_again_gets_the_same_answer_and_changes_nothing",
        ),
    ),
    mutant(
        "attempt-not-counted",
        "an execution that begins uses up nothing",
        Edit("core/claims.py", "run.attempt += 1", "run.attempt += 0"),
        caught_by=("core/test_outcomes.py::test_failing_keeps_the_error_and_counts_up_to_the_limit",),
    ),
    mutant(
        "attempt-counted-at-failure",
        "an attempt counts when it fails, not when it starts, so a worker that dies uses none up",
        Edit("core/claims.py", "run.attempt += 1", "run.attempt += 0"),
        Edit("core/outcomes.py", "spec = task.spec", "spec = task.spec; run.attempt += 1"),
        caught_by=("core/test_leases.py::test_a_lost_lease_that_used_up_the_last_attempt_fails_the_task",),
    ),
    mutant(
        "poison-unlimited",
        "a task that kills its worker is handed out for ever",
        Edit("core/outcomes.py", "run.lost_leases >= MAX_LOST_LEASES or exhausted", "exhausted"),
        caught_by=("core/test_leases.py::test_a_task_fails_when_it_reaches_the_limit_of_lost_leases",),
    ),
    mutant(
        "lost-last-attempt-retried",
        "a lease lost in the last attempt is followed by one more",
        Edit("core/outcomes.py", "MAX_LOST_LEASES or exhausted", "MAX_LOST_LEASES"),
        caught_by=("core/test_leases.py::test_a_lost_lease_that_used_up_the_last_attempt_fails_the_task",),
    ),
    mutant(
        "release-burns-an-attempt",
        "a worker that gives a task back has used one up",
        Edit("core/claims.py", "run.attempt -= 1", "run.attempt -= 0"),
        caught_by=("core/test_outcomes.py::test_giving_back_burns_no_attempt",),
    ),
    mutant(
        "prefetched-outcome-counts-nothing",
        "the outcome of a task whose start was not reported costs no attempt",
        Edit(
            "core/outcomes.py:_begun",
            "begin(memory, tenant, task)",
            "memory.move(tenant, task, State.RUNNING)",
        ),
        caught_by=("core/test_claiming.py::test_an_outcome_of_a_prefetched_task_begins_it",),
    ),
    mutant(
        "heartbeat-extends-nothing",
        "a worker that says it is alive loses its lease all the same",
        Edit("core/outcomes.py:_heartbeat", "memory.renew(task)", "pass"),
        caught_by=("core/test_leases.py::test_a_heartbeat_extends_the_lease",),
    ),
    mutant(
        "lost-lease-never-noticed",
        "the task of a worker that died stays with it",
        Edit("core/deadlines.py", "head[0] <= now", "head[0] <= 0"),
        caught_by=("core/test_leases.py::test_leases_of_many_lengths_are_lost_each_in_its_time",),
    ),
    mutant(
        "cancel-not-delivered-by-heartbeat",
        "a worker that asks is not told that its task is to be cancelled",
        Edit("core/outcomes.py", '"cancel", run.cancel.reason', '"continue", None'),
        caught_by=("core/test_cancel.py::test_a_held_task_is_asked_to_end_by_a_directive",),
    ),
    mutant(
        "cancel-not-delivered-at-once",
        "a worker that listens is not told before its next heartbeat",
        Edit("core/claims.py", "lease.worker_id is not None", "lease.worker_id is None"),
        caught_by=("core/test_cancel.py::test_the_worker_is_told_at_once_where_it_listens",),
    ),
    mutant(
        "cancel-forgotten-at-failure",
        "a task that was to be cancelled and fails is retried",
        Edit("core/outcomes.py:_end_attempt", "if run.cancel is not None:", "if False:"),
        caught_by=("core/test_cancel.py::test_once_asked_whatever_else_ends_the_lease_ends_it_as_cancelled",),
    ),
)
