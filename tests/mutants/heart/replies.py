"""The reply barrier: nothing is shown that a fence could still erase."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

REPLIES = (
    mutant(
        "reply-before-commit",
        "a reply leaves as soon as it is computed",
        Edit("engine/barrier.py:Barrier.hold", "if position <= self.durable and", "if True or"),
        caught_by=("engine/test_reply_barrier.py::test_a_reply_waits_for_its_commit",),
    ),
    mutant(
        "read-escapes-the-barrier",
        "a read shows what is not durable; writes wait",
        Edit(
            "engine/intake.py",
            "position = shard.observed()",
            'position = 0 if type(handle.command).__name__ == "Get" else shard.observed()\n'
            "        if not position and answer is not PARKED:\n"
            "            handle.settle(answer)",
        ),
        caught_by=("engine/test_reply_barrier.py::test_a_read_waits_for_what_it_shows",),
    ),
    mutant(
        "refusal-escapes-the-barrier",
        "a refusal tells of what is not durable",
        Edit(
            "engine/intake.py",
            "position = shard.observed()",
            "position = shard.observed()\n"
            "        if isinstance(answer, LineshaftError):\n"
            "            handle.settle(answer)",
        ),
        caught_by=("engine/test_reply_barrier.py::test_a_refusal_waits_for_what_it_gives_away",),
    ),
    mutant(
        "delivery-escapes-the-barrier",
        "a parked claim is answered before its leases are durable",
        Edit(
            "engine/intake.py:Intake._collect", "self.barrier.hold(shard.observed(),", "self.barrier.hold(0,"
        ),
        caught_by=("engine/test_reply_barrier.py::test_what_time_alone_brings_waits_for_its_commit_too",),
    ),
    mutant(
        "directive-escapes-the-barrier",
        "a worker is told to cancel before the cancel is durable",
        Edit(
            "engine/barrier.py",
            "if position <= self.durable and not self._held:",
            "if True:",
        ),
        caught_by=("engine/test_reply_barrier.py::test_a_directive_is_told_when_its_cause_is_durable",),
    ),
    mutant(
        "ownership-never-runs-out",
        "replies leave though another owner may have come",
        Edit(
            "engine/barrier.py",
            "until == math.inf or until > self._monotonic()",
            "until > 0",
        ),
        caught_by=(
            "engine/test_reply_barrier.py::test_a_reply_waits_until_a_tenure_that_ran_out_is_confirmed",
            (
                "cluster/test_crew.py"
                "::test_who_is_cut_off_answers_nothing_from_memory_once_another_may_have_its_shards"
            ),
        ),
    ),
    mutant(
        "renewal-confirms-what-came-later",
        "an ownership confirmed once lets out also what was computed since",
        Edit("engine/barrier.py", "held[0][1] <= self._confirmed_count", "True"),
        caught_by=(
            (
                "engine/test_reply_barrier.py"
                "::test_a_commit_that_took_longer_than_the_tenure_confirms_only_what_was_computed_before"
            ),
        ),
    ),
    mutant(
        "next-tenure-for-old-replies",
        "what was computed before its coordinator was taken for dead leaves under its next membership",
        Edit("engine/cluster/holdings.py:Holdings.lost", "runner.forgo()", "pass"),
        caught_by=(
            "cluster/test_crew.py::test_who_is_taken_for_dead_while_it_gives_a_shard_away_shows_nothing_old",
        ),
    ),
    mutant(
        "late-acquisition-serves",
        "a shard is served though it had become another's before it was acquired",
        Edit(
            "engine/runner.py:Runner.take_over",
            "snapshot = await self.store.load(self.ownership)\n"
            "        await self._tenure.stand(self.shard_number, self.owner)",
            "snapshot = await self.store.load(self.ownership)",
        ),
        caught_by=("cluster/test_crew.py::test_an_acquisition_that_lands_late_serves_nobody",),
    ),
    mutant(
        "dead-unseen",
        "members are taken for dead for a time in which nobody looked",
        Edit("engine/cluster/sightings.py:Sightings._is_blind", "return now", "return False and now"),
        caught_by=(
            "cluster/test_roster.py::test_nobody_is_dead_for_whom_nobody_looked",
            "cluster/test_crew.py::test_nobody_is_taken_for_dead_because_the_store_was_away",
        ),
    ),
    mutant(
        "tenure-from-the-answer",
        "a beat is believed from when it was answered, not from when it was sent",
        Edit(
            "engine/cluster/membership.py:Membership._confirm",
            "sent + self.lease * VALID / 1000",
            "self._now() + self.lease * VALID / 1000",
        ),
        caught_by=("cluster/test_crew.py::test_a_beat_counts_from_when_it_was_sent",),
    ),
    mutant(
        "fenced-replies-shown",
        "what a fence erased is answered as if it were durable",
        Edit(
            "engine/runner.py",
            "dropped = self.intake.drop()",
            "self.barrier.durable += 1_000; self.barrier.release(); dropped = self.intake.drop()",
        ),
        caught_by=("engine/test_reply_barrier.py::test_a_fence_keeps_a_read_from_showing_what_it_erased",),
    ),
    mutant(
        "value-shown-before-its-commit",
        "a result can be read before it is durable",
        Edit(
            "engine/runner.py",
            "stall = clock.call_later(",
            "self.cache.add(batch); stall = clock.call_later(",
        ),
        caught_by=("engine/test_reading.py::test_a_value_is_not_shown_before_it_is_durable",),
    ),
    mutant(
        "search-does-not-wait",
        "a search with min_position shows the time before it",
        Edit("engine/engine.py", "if min_position is not None:", "if False:"),
        caught_by=("engine/test_reading.py::test_a_search_waits_for_what_it_must_show",),
    ),
    mutant(
        "stale-read-believed-after-a-fence",
        "rows that were read for the shard before the fence are applied to the one after it",
        Edit(
            "engine/look_ups.py",
            "if generation != intake.generation:",
            "if False:",
        ),
        caught_by=("engine/test_look_ups.py::test_a_read_that_a_fence_overtook_is_made_again",),
    ),
    mutant(
        "evicted-under-a-read",
        "memory forgets a finished task while a read that does not know of it is under way",
        Edit("engine/intake.py", "and not self.look_ups.reading", ""),
        caught_by=(
            (
                "engine/test_look_ups.py"
                "::test_a_read_that_says_absent_loses_against_what_was_enqueued_finished_and_forgotten"
            ),
        ),
    ),
    mutant(
        "overload-unbounded",
        "whatever comes is taken, until memory is full",
        Edit("engine/admission.py", "if self.commands == 0 or (", "if True or ("),
        caught_by=("engine/test_overload.py::test_too_many_commands_are_refused_with_429",),
    ),
)
