"""Which signals count as asking again."""

from __future__ import annotations

import signal

from lineshaft.sdk.stop_signals import ECHO, StopSignals

TERM, INT = signal.SIGTERM, signal.SIGINT


def test_what_follows_the_first_within_a_moment_is_its_echo() -> None:
    asked: list[signal.Signals] = []
    signals = StopSignals(asked.append)
    signals.came(TERM, 10.0)
    signals.came(TERM, 10.001)
    signals.came(INT, 10.0 + ECHO - 0.001)
    assert asked == [TERM]
    signals.came(INT, 10.0 + ECHO)
    assert asked == [TERM, INT]


def test_without_an_echo_every_signal_counts() -> None:
    asked: list[signal.Signals] = []
    signals = StopSignals(asked.append, echo=0.0)
    signals.came(TERM, 10.0)
    signals.came(TERM, 10.0)
    assert asked == [TERM, TERM]
