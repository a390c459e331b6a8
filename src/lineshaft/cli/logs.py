"""The log of processes that stay: lines on standard error, or with `--json` one document a line."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from lineshaft.cli.output import encode
from lineshaft.values.instants import format_instant

LEVELS = ("debug", "info", "warning", "error")

LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        envvar="LINESHAFT_LOG_LEVEL",
        metavar="LEVEL",
        help=f"{', '.join(LEVELS)}.",
        autocompletion=lambda incomplete: [level for level in LEVELS if level.startswith(incomplete)],
    ),
]

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def start_logging(level: str, *, as_json: bool) -> None:
    """Send the log to standard error. Raises BadParameter for a level that is none."""
    if level.lower() not in LEVELS:
        raise typer.BadParameter(f"{level!r} is none of {', '.join(LEVELS)}", param_hint="--log-level")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if as_json else _Lines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Lines(logging.Formatter):
    """Instants in UTC with milliseconds, as everywhere else."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        return format_instant(int(record.created * 1000))


class _JsonLines(logging.Formatter):
    """One document a line, with what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": format_instant(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _OWN and _plain(value)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return encode(line).decode()


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None)
