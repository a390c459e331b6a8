"""What was pruned, told by marks in place of deletions.

A finished task is gone when it was due at or before a mark, and was written no later than the mark was set.
A document that is deleted could be written again by a coordinator that was frozen meanwhile; one that is
past a mark stays past it, and whole indices go when nothing in them is left.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.store.paging import LAST

Query = dict[str, Any]


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """Everything due at (instant, seq) or before that was written in `slot` or before."""

    due: int
    seq: int
    slot: int

    def covers(self, due: int, seq: int, slot: int) -> bool:
        """Tell whether a row, due at that instant and written in that slot, is behind the mark."""
        return slot <= self.slot and (due, seq) <= (self.due, self.seq)

    def query(self, field: str) -> Query:
        """Return the query of all documents behind the mark, whose instant is in `field`."""
        return {
            "bool": {"filter": [past(field, self.due, self.seq), {"range": {"slot": {"lte": self.slot}}}]}
        }


def past(field: str, due: int, seq: int) -> Query:
    """Return the query of what is due at (instant, seq) or before."""
    if seq == LAST:
        return {"range": {field: {"lte": due}}}
    at_once = {"bool": {"filter": [{"term": {field: due}}, {"range": {"seq": {"lte": seq}}}]}}
    return {"bool": {"should": [{"range": {field: {"lt": due}}}, at_once]}}


class Marks(msgspec.Struct, array_like=True, frozen=True):
    """All marks that say something which no other says; in practice the last one."""

    marks: tuple[Mark, ...] = ()

    def covers(self, due: int | None, seq: int, slot: int) -> bool:
        """Tell whether a row is behind any mark."""
        return due is not None and any(mark.covers(due, seq, slot) for mark in self.marks)

    def and_(self, new: Mark) -> Marks:
        """Return the marks with another one."""
        kept = [mark for mark in self.marks if not new.covers(mark.due, mark.seq, mark.slot)]
        return Marks((*kept, new))

    def queries(self, field: str) -> list[Query]:
        """Return a query for each mark."""
        return [mark.query(field) for mark in self.marks]
