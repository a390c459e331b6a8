"""The fenced blocks of a Markdown document, and what their info strings ask for.

```sh                run in the document's one shell; a following `json` or `text` block is its output
```sh serve          start in the background and wait until the coordinator there is ready
```sh background     start in the background
```sh skip           shown only; why stands before it: <!-- not run: the reason -->
```python            run as a script
```LANGUAGE file=F   written to F beside the others; equal to examples/F where there is one
```text session      a push session, line by line: → what is sent, ← what comes
```json | text       after a block that ran: its output, `…` standing for anything; else shown only
```toml | yaml | ini shown, and read by a parser
other languages      shown only, for a reason as above, unless it is the example of that name
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n\n?)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUNS = ("sh", "python")
OUTPUTS = ("json", "text")
PARSED = ("toml", "yaml", "ini")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is where it begins, `reason` why it is not run where that is said."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int
    reason: str | None = None

    @property
    def file(self) -> str | None:
        """The file that it is, if it is one."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)

    @property
    def is_shown_only(self) -> bool:
        """Whether nothing is done with it, so that a reason has to be there."""
        return "skip" in self.words or (
            self.language not in (*RUNS, *OUTPUTS, *PARSED) and not self.file and "session" not in self.words
        )

    @property
    def runs(self) -> bool:
        """Whether it is executed and may have an output."""
        return self.language in RUNS and self.file is None and "skip" not in self.words


def blocks_of(document: Path) -> list[Block]:
    """Read the blocks of a document."""
    return list(_blocks(document.read_text()))


def steps_of(document: Path) -> list[tuple[Block, Block | None]]:
    """Pair each block that does something with the output that follows it."""
    blocks = blocks_of(document)
    following: list[Block | None] = [*blocks, None][1:]
    return [
        (block, after if after is not None and after.language in OUTPUTS and not after.words else None)
        for block, after in zip(blocks, following, strict=True)
        if block.runs or block.file is not None
    ]


def _blocks(text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        language, *words = found["info"].split() or [""]
        line = text.count("\n", 0, found.start()) + 1
        yield Block(language, tuple(words), found["text"], line, found["reason"])
