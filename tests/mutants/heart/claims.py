"""Claims: each task to one, in order, to those who may have it, and repeatable after a lost answer."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

CLAIMS = (
    mutant(
        "non-atomic-claim",
        "a task that comes is given to two who wait for it",
        Edit(
            "core/claims.py",
            "memory.deliveries.append((claimer.ticket, _claimed(memory, tasks)))",
            "for other in (claimer, *list(tenant.claimers.values())[:1]):\n"
            "        memory.unpark(tenant, other)\n"
            "        memory.deliveries.append((other.ticket, _claimed(memory, tasks)))",
        ),
        caught_by=("core/test_parked_claims.py::test_one_task_wakes_one_waiter_first_come_first_served",),
    ),
    mutant(
        "priority-ignored",
        "tasks go by time alone",
        Edit("core/lanes.py", "task.spec.priority", "0"),
        caught_by=("core/test_order.py::test_lower_priority_numbers_run_first",),
    ),
    mutant(
        "run-at-ignored",
        "tasks of one priority go by arrival, whenever they were due",
        Edit("core/lanes.py", "task.run_at", "0"),
        caught_by=("core/test_order.py::test_within_a_priority_the_older_run_at_goes_first_then_arrival",),
    ),
    mutant(
        "late-arrivals-of-a-lane-last",
        "what belongs before the tail of its lane waits until the rest of the lane is gone",
        Edit(
            "core/lanes.py",
            "if heap and (not line or heap[0][0] < order(line[0])):",
            "if heap and not line:",
        ),
        caught_by=("core/test_order.py::test_lower_priority_numbers_run_first",),
    ),
    mutant(
        "window-of-a-lane-skipped",
        "when a lane is tidied up, what waits in its second half is stepped over for ever",
        Edit(
            "core/lanes.py",
            "self.line = deque(task for task in self.line if",
            "self.line = deque(task for task in list(self.line)[: len(self.line) // 2] if",
        ),
        caught_by=("core/test_order.py::test_many_withdrawn_tasks_leave_the_rest_in_order",),
    ),
    mutant(
        "one-lane-served",
        "a claim looks at one lane of those that its worker can serve",
        Edit("core/claims.py", "in _ready_lanes(tenant, claimer)", "in _ready_lanes(tenant, claimer)[:1]"),
        caught_by=("core/test_order.py::test_a_claim_merges_queues_and_names_by_order",),
    ),
    mutant(
        "claim-beyond-its-max",
        "a claim brings more than it asks for, from several lanes",
        Edit("core/claims.py:take", "len(taken) < most", "len(taken) < 2 * most"),
        caught_by=("core/test_order.py::test_max_bounds_a_claim_of_several_lanes",),
    ),
    mutant(
        "claim-beyond-its-max-in-one-lane",
        "a claim brings more than it asks for, from one lane",
        Edit("core/claims.py:_take_in_line", "len(taken) < most", "len(taken) < 2 * most"),
        caught_by=("core/test_order.py::test_max_bounds_a_claim",),
    ),
    mutant(
        "claim-beyond-its-bytes",
        "what a claim brings of several lanes is as large as it comes",
        Edit("core/claims.py:take", "room -= head.payload_size", "room -= 0"),
        caught_by=("core/test_claiming.py::test_what_one_claim_brings_of_several_lanes_is_bounded_too",),
    ),
    mutant(
        "claim-beyond-its-bytes-in-one-lane",
        "what a claim brings of one lane is as large as it comes",
        Edit("core/claims.py:_take_in_line", "room -= head.payload_size", "room -= 0"),
        caught_by=(
            "core/test_claiming.py::test_what_one_claim_brings_is_bounded_by_the_size_of_the_payloads",
        ),
    ),
    mutant(
        "paused-queue-hands-out",
        "tasks of a paused queue are claimed",
        Edit("core/claims.py", "if queue.ready and not queue.paused", "if queue.ready"),
        caught_by=(
            "core/test_claiming.py::test_a_paused_queue_hands_nothing_out_but_takes_outcomes_and_tasks",
        ),
    ),
    mutant(
        "capability-ignored",
        "a task goes to a worker that lacks what it needs",
        Edit("core/fleet.py", "lane.needs <= self.capabilities and", ""),
        caught_by=("core/test_affinity.py::test_a_task_goes_only_to_a_worker_that_has_every_capability",),
    ),
    mutant(
        "resources-oversubscribed",
        "a worker is given more than it has free",
        Edit("core/fleet.py", "- self.used.get(name, 0)", ""),
        caught_by=("core/test_affinity.py::test_resources_are_taken_by_a_lease_and_freed_by_its_end",),
    ),
    mutant(
        "tenant-leak-in-claim",
        "a claim that finds nothing of its tenant is given what another has",
        Edit(
            "core/claims.py:claim",
            "tasks = take(memory, tenant, claimer)",
            "tasks = next(filter(None, (take(memory, each, claimer) for each in"
            " (tenant, *memory.tenants.values()))), [])",
        ),
        caught_by=("core/test_parked_claims.py::test_a_claim_brings_nothing_of_another_tenant",),
    ),
    mutant(
        "tenant-leak-in-look-up",
        "a task id is looked up whoever's it is (SQLite)",
        Edit("store/sqlite_idents.py:_digest", r'f"{tenant}\0{id}"', 'f"{id}"'),
        Edit("store/sqlite_read.py", "(task.tenant, task.id) == keys[number]", "task.id == keys[number][1]"),
        caught_by=(
            "store/test_conformance.py::TestSQLiteStore::test_one_tenant_never_reads_a_row_of_another",
        ),
    ),
    mutant(
        "claim-id-forgotten",
        "a claim repeated after a lost answer brings other tasks, and the first lie until they expire",
        Edit("core/claims.py", "if claim_id is None:", "if True:"),
        caught_by=("core/test_claiming.py::test_repeating_a_claim_id_returns_the_tasks_of_the_first_answer",),
    ),
    mutant(
        "leased-to-nobody",
        "what was leased to a requester that has gone stays leased",
        Edit("engine/intake.py", "elif not handle.superseded:", "elif False:"),
        caught_by=(
            "engine/test_requesters_that_go.py::test_what_was_claimed_but_not_shown_yet_is_released_unburned",
        ),
    ),
    mutant(
        "released-from-under-a-repeat",
        "a requester that goes takes with it what a repeat of its claim was given",
        Edit("engine/intake.py", "elif not handle.superseded:", "else:"),
        caught_by=("engine/test_requesters_that_go.py::test_what_a_repeated_claim_was_given_is_its_own",),
    ),
    mutant(
        "frozen-worker-fed-again",
        "a worker that has just lost a lease is given the task back through its parked claim",
        Edit("core/outcomes.py", "_distrust(memory, tenant, lease)", "pass"),
        caught_by=("core/test_leases.py::test_a_frozen_worker_is_not_given_what_it_has_just_lost",),
    ),
)
