"""Rich's tables and progress bars as all commands use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import RenderableType
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

from lineshaft.cli.output import STYLES, console, visible


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> Table:
    """Make a table without vertical lines; the first column never wraps, `name#` is right-aligned."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for place, column in enumerate(columns):
        numeric = column.endswith("#")
        table.add_column(
            column.rstrip("#"),
            justify="right" if numeric else "left",
            no_wrap=numeric or place == 0,
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
