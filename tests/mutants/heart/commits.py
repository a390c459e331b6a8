"""The commit: fenced, whole, once, and its unknown outcome settled by nothing but itself."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

COMMITS = (
    mutant(
        "memory-store-ignores-the-fence",
        "an owner that was followed by another goes on committing (memory)",
        Edit("store/memory.py", "self.owner is not None and", "True or"),
        caught_by=(
            (
                "store/test_conformance.py::TestMemoryStore"
                "::test_acquisition_fences_the_commits_of_the_owner_before"
            ),
        ),
    ),
    mutant(
        "sqlite-store-ignores-the-fence",
        "an owner that was followed by another goes on committing (SQLite)",
        Edit(
            "store/sqlite_write.py:Writer._advance",
            "AND epoch = ? AND owner = ?",
            "AND ? IS NOT NULL AND ? IS NOT NULL",
        ),
        caught_by=(
            (
                "store/test_conformance.py::TestSQLiteStore"
                "::test_acquisition_fences_the_commits_of_the_owner_before"
            ),
        ),
    ),
    mutant(
        "position-ignored",
        "a batch is applied whatever its position (SQLite)",
        Edit("store/sqlite_write.py", "AND position = ?", "AND ? IS NOT NULL"),
        caught_by=("store/test_conformance.py::TestSQLiteStore::test_a_position_ahead_is_fenced",),
    ),
    mutant(
        "repeated-batch-applied-again",
        "the last batch, sent again, is not known by its nonce (memory)",
        Edit("store/memory.py", "batch.nonce == data.nonce", "not data.nonce"),
        caught_by=(
            (
                "store/test_conformance.py::TestMemoryStore"
                "::test_the_last_batch_again_succeeds_and_changes_nothing"
            ),
        ),
    ),
    mutant(
        "torn-commit",
        "the position is committed before the rows, so a batch may be stored in part (SQLite)",
        Edit(
            "store/sqlite_write.py",
            "_forget(connection, batch.forgotten)",
            'connection.execute("COMMIT"); connection.execute("BEGIN"); _forget(connection, batch.forgotten)',
        ),
        caught_by=(
            "store/test_sqlite_faults.py::test_a_value_that_cannot_be_stored_is_rejected_and_nothing_else_is_stored",
        ),
    ),
    mutant(
        "commit-not-synced",
        "a commit is acknowledged before it is on the disk (SQLite)",
        Edit("store/sqlite.py", "= {self._synchronous}", "= OFF"),
        caught_by=("store/test_sqlite_opening.py::test_commits_are_synced_as_the_tier_says",),
    ),
    mutant(
        "unknown-outcome-taken-as-success",
        "a commit that was not answered counts as durable",
        Edit("engine/runner.py", "self._unanswered(error)", "return sent"),
        caught_by=(
            "engine/test_unknown_outcomes.py::test_the_same_batch_is_sent_until_its_outcome_is_known",
        ),
    ),
    mutant(
        "unknown-outcome-taken-as-failure",
        "a commit that was not answered counts as not applied, and its commands fail",
        Edit("engine/runner.py", "self._unanswered(error)", "raise Fenced(told(error)) from None"),
        caught_by=("engine/test_unknown_outcomes.py::test_health_says_since_when_the_store_does_not_answer",),
    ),
    mutant(
        "unknown-outcome-settled-by-a-fresh-batch",
        "what was not answered is sent again under another nonce",
        Edit(
            "engine/runner.py",
            "self._unanswered(error)",
            "self._unanswered(error); batch.nonce = self._nonces()",
        ),
        caught_by=(
            "engine/test_unknown_outcomes.py::test_the_same_batch_is_sent_until_its_outcome_is_known",
        ),
    ),
    mutant(
        "wrong-half-blamed",
        "of two commands in a rejected batch the first is refused unseen",
        Edit(
            "engine/bisect.py",
            "if len(suspects) > 1:",
            "if len(suspects) == 2:\n"
            "        runner.intake.drop_unapplied(suspects[0], Invalid(rejection.reason))\n"
            "        return [suspects[1:]]\n"
            "    if len(suspects) > 1:",
        ),
        caught_by=("engine/test_bisect.py::test_the_culprit_alone_is_refused",),
    ),
    mutant(
        "bisect-out-of-order",
        "after a rejected batch the second half of its commands is applied before the first",
        Edit(
            "engine/bisect.py",
            "[handles[:middle], handles[middle:]]",
            "[handles[middle:], handles[:middle]]",
        ),
        caught_by=("engine/test_bisect.py::test_what_is_applied_again_is_applied_in_its_order",),
    ),
)
