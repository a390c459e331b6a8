"""The life of a task: one for each id, remembered as long as promised, counted and told as it was."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

LIVES = (
    mutant(
        "dedup-skipped",
        "an id that is enqueued again makes another task",
        Edit("core/enqueue.py", "if task is not None:", "if False:"),
        caught_by=("core/test_enqueue.py::test_enqueueing_an_id_again_returns_the_task_that_is_there",),
    ),
    mutant(
        "dedup-forgets-after-load",
        "a finished task that memory does not hold, as after a load, is not looked for in the store",
        Edit("core/memory.py", "if keys:", "if False:"),
        Edit("core/memory.py", "raise Missing([key])", "return None"),
        caught_by=(
            (
                "core/test_enqueue.py"
                "::test_an_id_names_its_task_also_after_it_finished_and_was_forgotten_by_memory"
            ),
        ),
    ),
    mutant(
        "evicted-id-taken-for-new",
        "an id that memory has evicted is taken for one that was never stored",
        Edit("core/memory.py", "tenant.highest_stored = task_id", "pass"),
        caught_by=("core/test_stored_ids.py::test_an_evicted_task_is_found_again",),
    ),
    mutant(
        "loaded-id-taken-for-new",
        "an id that was stored before the load is taken for one that was never stored",
        Edit("core/memory.py", "if position else", "if False else"),
        caught_by=(
            (
                "core/test_stored_ids.py"
                "::test_after_a_load_an_id_from_before_is_looked_for_and_a_later_one_is_not"
            ),
        ),
    ),
    mutant(
        "fast-clock-forgotten",
        "an id that a client's fast clock has put ahead of time is taken for new after a load",
        Edit("core/enqueue.py", "memory.note_id(tenant, task.id)", "pass"),
        caught_by=("core/test_stored_ids.py::test_an_id_of_a_fast_clock_is_found_after_a_load",),
    ),
    mutant(
        "digest-taken-for-an-id",
        "two ids whose digests are equal name one task (SQLite)",
        Edit("store/sqlite_read.py", "if (task.tenant, task.id) == keys[number]:", "if True:"),
        caught_by=("store/test_sqlite_ids.py::test_ids_in_one_place_of_the_index_name_a_task_each",),
    ),
    mutant(
        "conflict-not-told",
        "another body under a known id passes for the same, though the client asked",
        Edit("core/enqueue.py", "task.fingerprint != new.fingerprint", "False"),
        caught_by=("core/test_enqueue.py::test_conflict_error_refuses_another_body_and_accepts_the_same",),
    ),
    mutant(
        "generation-ignored",
        "a manual retry begins no new generation, so a repeat of it cannot be told from a mistake",
        Edit("core/control.py", "run.generation += 1", "run.generation += 0"),
        caught_by=("core/test_control.py::test_a_manual_retry_begins_a_new_generation",),
    ),
    mutant(
        "sweep-hits-a-successor",
        "a sweep changes a task that took the id of the one it found",
        Edit("core/control.py", "task.seq != seq", "False"),
        caught_by=(
            "core/test_control.py::test_a_sweep_never_touches_a_task_enqueued_anew_under_the_same_id",
        ),
    ),
    mutant(
        "live-task-pruned",
        "a task that was retried by hand is deleted when its first retention is over (memory)",
        Edit("store/memory.py", "and _prune_at(task) == prune_at", ""),
        caught_by=("store/test_conformance.py::TestMemoryStore::test_an_open_task_is_never_pruned",),
    ),
    mutant(
        "revived-task-pruned",
        "a task that is retried just before its retention is over is deleted before that is durable",
        Edit("engine/pruning.py", "min(now, now if oldest is None else oldest)", "now"),
        caught_by=(
            "engine/test_pruning.py::test_a_task_revived_just_in_time_is_not_pruned_before_that_is_durable",
        ),
    ),
    mutant(
        "pruned-before-its-time",
        "finished tasks are kept no longer than memory has room",
        Edit("core/memory.py", "now + task.spec.retention", "now"),
        caught_by=("core/test_outcomes.py::test_a_finished_task_is_kept_for_its_retention",),
    ),
    mutant(
        "row-not-kept",
        "the row of a task that ends is not among what the commit stores",
        Edit(
            "core/memory.py",
            "self.move(tenant, task, state, reason)",
            "self.move(tenant, task, state, reason); self.ledger.rows.pop(task.seq, None)",
        ),
        caught_by=(
            "core/test_outcomes.py::test_the_same_outcome_again_gets_the_same_answer_and_changes_nothing",
        ),
    ),
    mutant(
        "snapshot-shared",
        "a row that was answered changes with the shard afterwards",
        Edit("core/task.py", "if twin.run is not None:", "if False:"),
        caught_by=("core/test_waits.py::test_a_snapshot_that_was_answered_does_not_change_later",),
    ),
    mutant(
        "counters-drift",
        "a task that moves on is counted twice",
        Edit("core/memory.py", "counts[state] += 1", "counts[state] += 2"),
        caught_by=("core/test_overview.py::test_stats_equal_a_recount",),
    ),
    mutant(
        "history-has-gaps",
        "a move that is followed by another within one commit is not told",
        Edit(
            "core/ledger.py",
            "changes=self.changes,",
            "changes=list({each.seq: each for each in self.changes}.values()),",
        ),
        caught_by=("core/test_claiming.py::test_a_claim_leases_and_starts",),
    ),
    mutant(
        "open-task-lost-at-load",
        "tasks that wait for their time are not found again after a restart",
        Edit(
            "core/loading.py",
            "if task.lease is None:",
            "if task.state == 0:\n            pass\n        elif task.lease is None:",
        ),
        caught_by=("core/test_enqueue.py::test_a_scheduled_task_is_claimed_on_time_after_a_reload",),
    ),
)
