"""What people see: durations, control characters, and tables that fit."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest
from elastic_transport import AiohttpHttpNode, NodeConfig, NodePool
from rich.console import Console

from lineshaft.cli.output import visible
from lineshaft.cli.serve import _is_news
from lineshaft.cli.spans import between, span
from lineshaft.cli.tables import make_table


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, None),
        (0, "0 s"),
        (0.0042, "4 ms"),
        (1.25, "1.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (5400, "1.5 h"),
        (604_800, "7 d"),
    ],
)
def test_durations_are_short(seconds: float | None, shown: str | None) -> None:
    assert span(seconds) == shown


def test_a_duration_needs_both_ends() -> None:
    assert between("2026-01-02T03:04:05.000Z", "2026-01-02T03:04:06.500Z") == 1.5
    assert between("2026-01-02T03:04:05.000Z", None) is None


def test_control_characters_are_spelled_out() -> None:
    assert visible("a\x1b[31mred\x07\u202eback\r\n\ttab") == "a\\x1b[31mred\\x07\\u202eback\\x0d\n\ttab"


COLUMNS = ("id", "text~", "host?", "count#", "last?")
ROW = ("id-of-something", "some words that may be broken", "host-1", 12345, "the last")


def lines(width: int) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width).print(make_table(COLUMNS, [ROW], width=width))
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def test_with_room_a_table_shows_everything_in_one_line() -> None:
    assert len(lines(100)) == 3
    assert lines(100)[0].split() == ["id", "text", "host", "count", "last"]


def test_without_room_optional_columns_go_from_the_last_and_text_is_broken() -> None:
    assert lines(52)[0].split() == ["id", "text", "host", "count"]
    assert lines(40)[0].split() == ["id", "text", "count"]
    assert len(lines(40)) > 3
    assert all(len(line) <= 40 for line in lines(40))
    assert any("id-of-something" in line for line in lines(40))


def test_a_coordinator_that_says_where_it_is_does_not_load_rich() -> None:
    said = "import lineshaft.cli.main, sys; from lineshaft.cli.output import Output; "
    said += "Output(as_json=False).say('serves'); sys.exit('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("serves\n", 0)


def test_a_node_that_is_gone_is_told_when_it_goes_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = NodePool([NodeConfig("http", "127.0.0.1", 9200)], AiohttpHttpNode)
    [node] = pool.all()
    logger = logging.getLogger("elastic_transport.node_pool")
    logger.addFilter(_is_news)
    try:
        for _ in range(5):
            pool.mark_dead(node)
        pool.mark_live(node)
    finally:
        logger.removeFilter(_is_news)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "has failed for 1 times" in told[0]
    assert "marked alive" in told[1]
