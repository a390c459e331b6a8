"""The soak, as short as it still says something; `make soak` takes ten minutes for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import Soak

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


async def test_nothing_leaks_and_no_wake_up_is_lost_in_a_crowd(tmp_path: Path) -> None:
    report = await Soak(seconds=45, idle=300, busy=50, rate=40, folder=tmp_path).run()
    print(report)
    assert report.complaints() == []
    assert report.probes > 100 and report.kills >= 2
