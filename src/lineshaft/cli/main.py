"""The `lineshaft` command: its groups, its help, and the entry point."""

from __future__ import annotations

from typing import Annotated

import typer

from lineshaft.cli import changing, keys, queues, stores, tail, tasks, tenants, workers
from lineshaft.cli.backup import backup, restore
from lineshaft.cli.bench import bench
from lineshaft.cli.commands import Json, command
from lineshaft.cli.demo.command import demo
from lineshaft.cli.doctor import doctor
from lineshaft.cli.enqueue import enqueue
from lineshaft.cli.exits import MEANINGS
from lineshaft.cli.migrate import migrate
from lineshaft.cli.serve import serve
from lineshaft.cli.top import top
from lineshaft.cli.version import show_version, version
from lineshaft.cli.worker import worker

_CODES = "\n".join(f"{code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
# A paragraph that begins with a backspace keeps its lines.
EPILOG = f"[bold]Exit codes[/bold]\n\n\b\n{_CODES}"

app = typer.Typer(
    name="lineshaft",
    help="A durable task coordinator: one process that remembers, any process that works.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUN, WORK, LOOK = "Run", "Work", "Look"

command(app, "serve", panel=RUN, remote=False)(serve)
command(app, "worker", panel=RUN)(worker)
command(app, "demo", panel=RUN, remote=False)(demo)
command(app, "bench", panel=RUN)(bench)
command(app, "enqueue", panel=WORK)(enqueue)
app.add_typer(keys.app, name="keys", rich_help_panel=RUN)
app.add_typer(tenants.app, name="tenants", rich_help_panel=RUN)
command(app, "migrate", panel=RUN, remote=False)(migrate)
command(app, "backup", panel=RUN, remote=False)(backup)
command(app, "restore", panel=RUN, remote=False)(restore)
app.add_typer(stores.app, name="stores", rich_help_panel=RUN)
command(app, "top", panel=LOOK)(top)
app.add_typer(tasks.app, name="tasks", rich_help_panel=LOOK)
app.add_typer(queues.app, name="queues", rich_help_panel=LOOK)
app.add_typer(workers.app, name="workers", rich_help_panel=LOOK)
command(app, "doctor", panel=LOOK)(doctor)
command(app, "version", panel=LOOK)(show_version)

_REGISTERED = (changing, tail)
"""Modules that add their commands to the group `tasks`."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lineshaft {version()}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
    json: Json = False,
) -> None:
    """Take the options that stand before any command."""


def main() -> None:
    """Run the command line."""
    app(prog_name="lineshaft")
