"""What commands print: tables and sentences for people, with `--json` documents and lines for programs.

Results go to standard output and everything else (notes, progress, errors) to standard error, so that a
pipe only ever carries results. What tasks and workers wrote is shown as it is, never as markup, and its
control characters are made visible: a task must not be able to steer somebody's terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

UNLIMITED = 1000
"""Columns where no terminal limits them: a pipe wants one row a line."""

STYLES = {
    "scheduled": "blue",
    "waiting": "blue",
    "queued": "cyan",
    "claimed": "magenta",
    "running": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
    "ok": "green",
    "warning": "yellow",
    "trouble": "bold red",
}
"""The colour of each state and verdict, the same in every view."""


class Output:
    """Where a command's results go; `as_json` tells in which of the two forms."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, value: Any) -> None:
        """Print one JSON document, indented where a person looks at it."""
        encoded = encode(value)
        self._write(msgspec.json.format(encoded, indent=2) if sys.stdout.isatty() else encoded)

    def line(self, value: Any) -> None:
        """Print one line of NDJSON, at once."""
        self._write(encode(value))

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing"
    ) -> None:
        """Print a table, see `tables.make_table`; `empty` is said where there are no rows."""
        from lineshaft.cli.tables import make_table

        table = make_table(columns, rows)
        if table.row_count:
            self.show(table)
        else:
            self.note(empty)

    def pairs(self, rows: Iterable[tuple[str, object]]) -> None:
        """Print names and values, one below the other; a value of None is left out."""
        from lineshaft.cli.tables import make_pairs

        self.show(make_pairs((name, value) for name, value in rows if value is not None))

    def show(self, renderable: RenderableType, *, soft_wrap: bool = False) -> None:
        """Print to standard output as it is; with `soft_wrap` the terminal breaks the lines."""
        screen = console()
        if screen.is_terminal:
            screen.print(renderable, soft_wrap=soft_wrap)
            return
        with screen.capture() as captured:
            screen.print(renderable, soft_wrap=soft_wrap)
        # Rich fills columns up to their width, also the last one.
        sys.stdout.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))
        sys.stdout.flush()

    def say(self, text: str, *, style: str = "") -> None:
        """Print a sentence that is the command's result."""
        if style:
            from rich.text import Text

            console().print(Text(visible(text), style=style), soft_wrap=True)
        else:
            # A coordinator says one sentence in its life, and need not carry rich for it ever after.
            sys.stdout.write(visible(text) + "\n")
        sys.stdout.flush()

    def note(self, text: str, *, style: str = "") -> None:
        """Print a sentence beside the result, to standard error."""
        from rich.text import Text

        screen = console(stderr=True)
        screen.print(Text(visible(text), style=style), soft_wrap=not screen.is_terminal)

    def progress(self) -> Progress:
        """Make a progress display on standard error, which shows nothing where that is no terminal."""
        from lineshaft.cli.tables import make_progress

        return make_progress(disabled=self.as_json)

    def _write(self, encoded: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(encoded + b"\n")
        sys.stdout.buffer.flush()


def console(*, stderr: bool = False) -> Console:
    """Make a console on the present standard output or error; without a terminal lines have all room."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = UNLIMITED
    return made


def encode(value: Any) -> bytes:
    """Encode as JSON; raw JSON inside keeps its bytes, UNSET is left out."""
    return msgspec.json.encode(value)


def visible(text: object) -> str:
    """Return text whose control characters are spelled out, such as `\\x1b`."""
    return _CONTROL.sub(_spell, str(text))


def _spell(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
