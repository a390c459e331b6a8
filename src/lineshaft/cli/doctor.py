"""`lineshaft doctor`: looks for what keeps things from working, and says what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.output import STYLES, visible
from lineshaft.cli.session import Session

if TYPE_CHECKING:
    from lineshaft.cli.findings import Finding


async def doctor(
    session: Session,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar="LINESHAFT_STORE",
            help="Look into this store too, such as sqlite:///jobs.db.",
            show_default=False,
        ),
    ] = None,
) -> ExitCode:
    """Check the machine, the store and the coordinator; exit code 1 where there is trouble."""
    from lineshaft.cli import checks, coordinator_checks

    findings = list(checks.machine())
    served_at = None
    if store is not None:
        findings += await checks.store(store)
        served_at = checks.served_at(store)
    # Somebody who names only a store may be about to start the first coordinator on it.
    expected = store is None or session.source("url") != "default"
    findings += await coordinator_checks.coordinator(session, expected=expected, served_at=served_at)
    healthy = all(finding.status != "trouble" for finding in findings)
    if session.out.as_json:
        session.out.document({"healthy": healthy, "findings": findings})
    else:
        for finding in findings:
            _show(session, finding)
    return ExitCode.OK if healthy else ExitCode.FAILED


def _show(session: Session, finding: Finding) -> None:
    from rich.text import Text

    line = Text.assemble(
        (f"{finding.status:<8}", STYLES[finding.status]),
        (f"{finding.check}: ", "bold"),
        visible(finding.found),
    )
    if finding.todo:
        line.append(f"\n        → {visible(finding.todo)}")
    session.out.show(line, soft_wrap=True)
