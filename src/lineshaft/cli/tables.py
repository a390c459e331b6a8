"""Rich's tables and progress bars as all commands use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from lineshaft.cli.output import STYLES, UNLIMITED, console, visible

_LEAST = 10
"""Columns that text which may be broken is given at least."""


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    width: int | None = None,
) -> Table:
    """Make a table that fits into `width` (None: into the console).

    Marks at the end of a column's name: `#` its values are right-aligned, `~` they may be broken into lines,
    `?` the column is left out (the last of them first) where there is no room for all.
    """
    given = [list(row) for row in rows]
    screen = console()
    room = screen.width if width is None else width
    shown = list(range(len(columns)))
    while True:
        table = _table([columns[at] for at in shown], [[row[at] for at in shown] for row in given], title)
        optional = [at for at in shown if "?" in columns[at]]
        # Measured with all room, for what is measured within too little says that it fits.
        needed = Measurement.get(screen, screen.options.update(width=UNLIMITED), table).minimum
        if not optional or needed <= room:
            return table
        shown.remove(optional[-1])


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for at, column in enumerate(columns):
        name = column.rstrip("#~?")
        longest = max([cell_len(name), *(cell_len(visible(row[at])) for row in rows)])
        table.add_column(
            name,
            justify="right" if "#" in column else "left",
            no_wrap="~" not in column,
            # Rich would break even what must not be broken, between its words, before it takes more room.
            min_width=min(_LEAST, longest) if "~" in column else longest,
            overflow="fold",
            header_style="bold",
        )
    for row in rows:
        table.add_row(*[cell(value) for value in row])
    return table


def make_pairs(rows: Iterable[tuple[str, object]]) -> Table:
    """Make a table of names and values without a head."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, cell(value))
    return table


def cell(value: object) -> RenderableType:
    """Return what stands in a cell: text as it is, states in their colour, nothing for None."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, Text | Table):
        return value
    text = visible(value)
    return Text(text, style=STYLES.get(text, ""))


def make_progress(*, disabled: bool = False) -> Progress:
    """Make a progress display on standard error, which shows nothing where that is no terminal."""
    screen = console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=disabled or not screen.is_terminal,
    )
