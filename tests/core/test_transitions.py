"""The table of moves: what it has, what it has not, and that terminal states absorb."""

from __future__ import annotations

import itertools

import pytest

from lineshaft.core.task import OPEN, STATES_BY_WORD, TERMINAL, State
from lineshaft.core.transitions import LEGAL, IllegalMove, check_move

STATES = list(State)


@pytest.mark.parametrize("before, after", list(itertools.product([None, *STATES], STATES)))
def test_only_the_moves_of_the_table_are_let_through(before: State | None, after: State) -> None:
    if after in LEGAL[before]:
        check_move(before, after)
    else:
        with pytest.raises(IllegalMove):
            check_move(before, after)


def test_out_of_a_terminal_state_leads_only_a_manual_retry() -> None:
    for state in TERMINAL:
        assert LEGAL[state] == {State.QUEUED}
        assert state.terminal
    assert not any(state.terminal for state in OPEN)


def test_completed_and_running_are_reached_only_through_a_claim() -> None:
    assert [before for before in LEGAL if State.COMPLETED in LEGAL[before]] == [State.RUNNING]
    assert [before for before in LEGAL if State.RUNNING in LEGAL[before]] == [State.CLAIMED]
    assert [before for before in LEGAL if State.CLAIMED in LEGAL[before]] == [State.QUEUED]


def test_every_state_has_a_word_and_a_way_out_or_is_an_end() -> None:
    assert {STATES_BY_WORD[state.word] for state in STATES} == set(STATES)
    assert set(LEGAL) == {None, *STATES}
    assert State.QUEUED.word == "queued"
