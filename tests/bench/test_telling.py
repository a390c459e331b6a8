"""What handlers say to the driver, and what processes cost."""

from __future__ import annotations

import json
import os

import pytest

from bench.telling import DRAIN, LETTERS, PICK_UP, Ear, Handler, payload
from bench.usage import cpu_of, own_cpu, rss_of


def test_a_payload_is_a_hundred_bytes_of_json() -> None:
    assert {len(json.dumps(payload(kind))) for kind in ("q", DRAIN, PICK_UP)} == {100}
    assert LETTERS == 98


async def test_a_handler_says_first_last_and_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear()
    monkeypatch.setenv("BENCH_TELL", ear.address)
    monkeypatch.setenv("BENCH_DRAIN", "3")
    ran = Handler()
    try:
        picked_up = payload(PICK_UP)
        for text in (payload(), *[payload(DRAIN)] * 3, picked_up):
            ran(text)
        first, last, took = [await ear.hear() for _ in range(3)]
        assert int(payload()[1:21]) > last > first > 0
        assert 0 < took <= int(payload()[1:21]) - int(picked_up[1:21])
    finally:
        ran.close()
        ear.close()


def test_costs_are_those_of_the_kernel() -> None:
    assert 0 < rss_of(os.getpid()) < 10_000
    before = own_cpu()
    while own_cpu() < before + 0.05:
        pass
    # In ticks of 10 ms, and of children that have ended, too.
    assert cpu_of(os.getpid()) >= before + 0.02
    assert cpu_of(2**22 + 1) == 0
