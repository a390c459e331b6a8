"""Errors of the SDK as values: they cross process borders, and show where it failed."""

from __future__ import annotations

import pickle
import traceback

import pytest

from lineshaft import App, EnqueueFailed, TaskFailed
from lineshaft.errors import Conflict
from lineshaft.testing import harness


async def test_a_failure_shows_the_workers_stack_and_can_be_pickled() -> None:
    app = App("memory://")

    @app.task(max_retries=0)
    async def declines() -> None:
        raise PermissionError("the card is declined")

    async with harness(app):
        with pytest.raises(TaskFailed) as caught:
            await app.enqueue_and_wait(declines)
    failure = caught.value
    copy = pickle.loads(pickle.dumps(failure))
    for one in (failure, copy):
        assert one.failure_type == "PermissionError"
        shown = "".join(traceback.format_exception_only(one))
        assert "In the worker:" in shown
        assert 'raise PermissionError("the card is declined")' in shown
    assert (copy.reason, copy.task_id, copy.stack) == (failure.reason, failure.task_id, failure.stack)


def test_a_failed_bulk_can_be_pickled() -> None:
    error = EnqueueFailed("one was refused", errors={3: Conflict("it is there already", task_id="x")})
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.errors[3].reason) == ("one was refused", "it is there already")
