"""The command `lineshaft demo`, and how its report is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.processes import ended_by_signals
from lineshaft.cli.session import Session
from lineshaft.cli.tables import make_table
from lineshaft.cli.trouble import Trouble

_NAMED = 5
"""How many culprits are named where the proof does not hold."""


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
    from lineshaft.cli.demo.files import NOT_THE_LIBRARY, standard_library
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


def show(session: Session, report: Any) -> None:
    """Print what was recovered, the proof, and the throughput."""
    if session.out.as_json:
        document = msgspec.to_builtins(report)
        document["files_per_second"] = round(report.files_per_second, 1)
        document["bytes_per_second"] = round(report.bytes_per_second)
        document["proof"]["holds"] = report.proof.holds
        session.out.document(document)
        return
    session.out.show(make_table(("recovered~", "count#"), _recovered(report), title="What was recovered"))
    session.out.show(
        make_table(("every file, exactly once~", "count#", ""), _proof(report), title="The proof")
    )
    _verdict(session, report)


def _recovered(report: Any) -> list[tuple[object, ...]]:
    recovered = report.recovered
    return [
        ("tasks that the killed worker held", recovered.held_by_killed),
        ("leases that were lost", recovered.lost_leases),
        ("tasks that were tried again", recovered.retried),
        ("outcomes kept while the coordinator was down, and delivered", recovered.redelivered),
        ("seconds without a coordinator", f"{recovered.downtime:.1f}"),
    ]


def _proof(report: Any) -> list[tuple[object, ...]]:
    proof = report.proof
    rows: list[tuple[object, ...]] = [
        ("files found by a second, independent walk", proof.files, None),
        ("tasks listed by the coordinator", proof.tasks, None),
        ("results whose hash was computed again and agrees", proof.hashed, None),
        ("files that nobody can read, accounted for as such", proof.unreadable, None),
    ]
    for what, count in (
        ("files that changed meanwhile", proof.changed),
        ("files that were made meanwhile", proof.came),
        ("files that were deleted meanwhile", proof.went),
        ("symbolic links, not followed", report.links),
        ("pipes, sockets and devices, passed over", report.special),
        ("directories that cannot be read", report.closed),
    ):
        if count:
            rows.append((what, count, None))
    for what, culprits in (
        ("files without a task", proof.missing),
        ("tasks listed twice", proof.duplicates),
        ("tasks without a file", proof.unexpected),
        ("tasks that have not completed", proof.unfinished),
        ("results that do not agree", proof.wrong),
    ):
        rows.append((what, len(culprits), _sign(len(culprits))))
    rows.append(
        ("tasks made by enqueueing everything again", proof.created_again, _sign(proof.created_again))
    )
    return [(what, count, Text("") if sign is None else sign) for what, count, sign in rows]


def _sign(count: int) -> Text:
    return Text("trouble", style="bold red") if count else Text("ok", style="green")


def _verdict(session: Session, report: Any) -> None:
    proof = report.proof
    megabytes = proof.bytes / 1_000_000
    session.out.say(
        f"{proof.completed} files, {megabytes:.1f} MB, {proof.lines} lines in {report.seconds:.1f} s"
    )
    rates = f"{report.files_per_second:.0f} files/s, {megabytes / max(report.seconds, 0.001):.1f} MB/s"
    session.out.say(f"{rates}, both kills included")
    if proof.holds:
        session.out.say("nothing was lost, nothing was counted twice", style="bold green")
        return
    session.out.say("the proof does not hold", style="bold red")
    for name in ("missing", "duplicates", "unexpected", "unfinished", "wrong"):
        for culprit in getattr(proof, name)[:_NAMED]:
            session.out.say(f"  {name}: {culprit}")
