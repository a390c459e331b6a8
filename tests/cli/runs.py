"""Runs of the `lineshaft` command as a process, the way a shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

NOBODY = "http://127.0.0.1:9"
"""Where no coordinator is; the port of `discard`, which nothing gives away as an ephemeral one."""


class Ended(msgspec.Struct, frozen=True):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The NDJSON on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON on standard error."""
        return json.loads(self.err)


def environment(url: str = NOBODY, **more: str) -> dict[str, str]:
    """Return an environment that knows only what is given of Lineshaft."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LINESHAFT_")}
    return plain | {"LINESHAFT_URL": url, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"} | more


def command(*arguments: str) -> list[str]:
    """Return the command line of `lineshaft ARGUMENTS…`."""
    return [sys.executable, "-m", "lineshaft", *arguments]


def run(
    *arguments: str,
    url: str = NOBODY,
    stdin: str | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
    **env: str,
) -> Ended:
    """Run `lineshaft ARGUMENTS…` to its end."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(url, **env),
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def run_here(
    *arguments: str, url: str = NOBODY, stdin: str | None = None, cwd: Path | None = None, **env: str
) -> Ended:
    """Run `lineshaft ARGUMENTS…` in this process, which is quicker; only for what ends by itself."""
    from typer.testing import CliRunner

    from lineshaft.cli.main import app

    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        ended = CliRunner().invoke(
            app, list(arguments), env=environment(url, **env), input=stdin, prog_name="lineshaft"
        )
    finally:
        os.chdir(before)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def said(text: str) -> str:
    """Return a message in one line: without the frame and the line breaks that a terminal's width makes."""
    return " ".join(text.translate({ord(mark): " " for mark in "│╭╰╮╯─"}).split())
