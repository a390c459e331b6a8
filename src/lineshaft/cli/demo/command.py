"""The command `lineshaft demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.processes import ended_by_signals
from lineshaft.cli.session import Session
from lineshaft.cli.trouble import Trouble


async def demo(
    session: Session,
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIRECTORY]",
            help="Whose files to work on (else the standard library of this Python).",
            show_default=False,
        ),
    ] = None,
) -> ExitCode:
    """Do real work, kill a worker and the coordinator in the middle, and prove that nothing was lost."""
    from rich.text import Text

    from lineshaft.cli.demo.files import NOT_THE_LIBRARY, standard_library
    from lineshaft.cli.demo.report import show
    from lineshaft.cli.demo.story import Story

    root = _checked(directory) if directory is not None else standard_library()
    leave_out = NOT_THE_LIBRARY if directory is None else frozenset[str]()
    session.out.note(f"every file under {root} becomes a task: two workers hash and measure it")
    with ended_by_signals(), session.out.progress() as progress:

        def tell(text: str) -> None:
            # Through the bar's own console, so that the two do not write over each other.
            screen = progress.console
            screen.print(Text(f"· {text}", style="dim"), soft_wrap=not screen.is_terminal)

        report = await Story(root, leave_out, progress=progress, tell=tell).run()
    show(session, report)
    return ExitCode.OK if report.proof.holds else ExitCode.FAILED


def _checked(directory: Path) -> Path:
    try:
        found = directory.expanduser().resolve(strict=True)
        next(iter(found.iterdir()), None)
    except RuntimeError as error:  # a loop of links, or no such user
        raise Trouble(
            f"{directory}: {error}", code=ExitCode.USAGE, hint="name a directory that can be read"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Trouble(
            f"cannot read the directory {directory}: {reason}",
            code=ExitCode.USAGE,
            hint="name a directory with files, or none for the standard library of this Python",
        ) from None
    return found
