"""`lineshaft version`: what is installed here, and what runs there."""

from __future__ import annotations

import importlib.metadata
import platform
import sqlite3
from typing import Annotated

import typer

from lineshaft.cli.session import Session


def version() -> str:
    """Return the version of the installed Lineshaft."""
    return importlib.metadata.version("lineshaft")


async def show_version(
    session: Session,
    coordinator: Annotated[
        bool, typer.Option("--coordinator", help="Also ask the coordinator for its version.")
    ] = False,
) -> None:
    """Show the versions of Lineshaft, Python and SQLite."""
    found = {"lineshaft": version(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if coordinator:
        found["coordinator"] = (await session.call("root")).version
    if session.out.as_json:
        session.out.document(found)
    else:
        session.out.pairs(found.items())
