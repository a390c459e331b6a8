"""Options: checked where they are said, and as the wire has them."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest

from lineshaft import App, WrongDefinition
from lineshaft.errors import Invalid
from lineshaft.wire import Enqueue, RetryPolicy, WorkerAffinity

app = App("http://127.0.0.1:9")


@app.task(queue="mail", max_retries=5, timeout="5m", capability=["smtp"], resources={"memory": "1GiB"})
async def send(invoice: int) -> str:
    return str(invoice)


def test_the_decorator_and_configure_make_the_fields_of_an_enqueue() -> None:
    configured = send.configure(
        delay=datetime.timedelta(minutes=10),
        priority=-5,
        task_id="inv-3",
        tags=["a"],
        metadata={"who": "me"},
        retry_policy={"backoff": "fixed", "base": datetime.timedelta(seconds=5)},
    )
    body = Enqueue(name="send", **configured.fields)
    assert body == Enqueue(
        name="send",
        queue="mail",
        max_retries=5,
        timeout="5m",
        worker_affinity=WorkerAffinity(capability=["smtp"], resources={"memory": "1GiB"}),
        delay=600.0,
        priority=-5,
        task_id="inv-3",
        tags=["a"],
        metadata=msgspec.Raw(b'{"who":"me"}'),
        retry_policy=RetryPolicy(backoff="fixed", base=5.0),
    )


def test_configure_leaves_the_task_as_it_was() -> None:
    send.configure(priority=9)
    assert "priority" not in send.fields


def test_a_later_run_at_takes_the_place_of_a_delay() -> None:
    fields = (
        send.configure(delay="1h").configure(run_at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)).fields
    )
    assert fields["run_at"] == "2026-01-02T00:00:00.000Z"
    assert "delay" not in fields


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        ({"delay": "soon"}, "delay", "expected a duration"),
        ({"delay": -1}, "delay", "negative"),
        ({"delay": "1h", "run_at": "2026-01-02T00:00:00Z"}, "delay", "not both"),
        ({"run_at": datetime.datetime(2026, 1, 2)}, "run_at", "without a time zone"),  # noqa: DTZ001
        ({"run_at": "tomorrow"}, "run_at", "RFC 3339"),
        ({"priority": "high"}, "priority", "must be an integer"),
        ({"priority": True}, "priority", "must be an integer"),
        ({"max_retries": -1}, "max_retries", "must be an integer from 0"),
        ({"queue": "two words"}, "queue", "a name is"),
        ({"task_id": "_mine"}, "task_id", "does not start with _"),
        ({"tags": "one"}, "tags", "must be a list of strings"),
        ({"metadata": [1]}, "metadata", "must be a mapping"),
        ({"retry_policy": {"base": "x"}}, "retry_policy.base", "expected a duration"),
        ({"retry_policy": {"jitter": 7}}, "retry_policy.jitter", "expected `float` <= 1.0"),
        ({"retry_policy": {"backof": "fixed"}}, "retry_policy", "unknown field `backof`"),
        ({"resources": {"memory": "lots"}}, "resources.memory", "expected a size"),
        ({"queu": "mail"}, "queu", "did you mean `queue`?"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        send.configure(**options)
    assert reason in caught.value.reason
    assert f"`{field}" in caught.value.reason, "the field is named in words too"
    assert caught.value.field == field


def test_a_task_id_is_not_for_all_calls() -> None:
    with pytest.raises(WrongDefinition, match="is for one call"):
        app.task(task_id="x")


@pytest.mark.parametrize("url", ["jobs.db", "ftp://x", "mysql://x"])
def test_an_app_of_no_known_place_says_what_there_is(url: str) -> None:
    with pytest.raises(Invalid, match="neither a coordinator"):
        App(url)


@pytest.mark.parametrize(
    ("settings", "field", "reason"),
    [
        ({"queues": "mail"}, "queues", "not the string"),
        ({"queues": []}, "queues", "is empty"),
        ({"queues": {"mail": 0}}, "queues.mail", "from 1 to"),
        ({"queues": ["a b"]}, "queues", "a name is"),
        ({"concurrency": 0}, "concurrency", "from 1 to"),
        ({"prefetch": -1}, "prefetch", "from 0 to"),
        ({"grace": "x"}, "grace", "expected a duration"),
        ({"lease": "x"}, "lease", "expected a duration"),
        ({"name": "two words"}, "name", "a name is"),
        ({"resources": {"gpu": -1}}, "resources.gpu", "must not be negative"),
    ],
)
def test_a_wrong_setting_of_a_worker_is_named(settings: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        app.worker(**settings)
    assert reason in caught.value.reason
    assert caught.value.field == field
