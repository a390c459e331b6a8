from __future__ import annotations

import msgspec

from lineshaft.wire import ChangedTask


def changed(**more: object) -> ChangedTask:
    told = {
        "task_id": "t",
        "name": "n",
        "queue": "q",
        "state": "queued",
        "priority": 0,
        "attempt": 0,
        "lost_leases": 0,
        "max_retries": 3,
        "created_at": "2026-01-02T03:04:05.678Z",
        "run_at": "2026-01-02T03:04:05.678Z",
        "generation": 1,
        "position": 7,
    }
    return msgspec.json.decode(msgspec.json.encode(told | more), type=ChangedTask)


def test_an_answer_is_shown_with_what_there_is_and_its_json_as_json() -> None:
    text = repr(changed(payload={"invoice": 3}))
    assert text.startswith("ChangedTask(task_id='t', name='n', queue='q', state='queued', priority=0, ")
    assert 'payload={"invoice":3}' in text
    for absent in ("Raw", "None", "UNSET", "attempts", "worker_id", "result"):
        assert absent not in text


def test_a_long_payload_is_shown_in_part() -> None:
    task = changed(payload="x" * 1_000)
    assert "xxx… (1,002 characters)" in repr(task)
    assert len(repr(task)) < 700
