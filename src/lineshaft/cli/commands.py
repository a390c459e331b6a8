"""What all commands share: their common options, and the one place where errors become exit codes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.output import Output, console, encode, visible
from lineshaft.cli.session import DEFAULT_URL, Session
from lineshaft.cli.settings import read_settings
from lineshaft.cli.trouble import Verdict, judge
from lineshaft.errors import LineshaftError

F = TypeVar("F", bound=Callable[..., Any])

PANEL = "Everywhere"


def _load_config(ctx: typer.Context, config: Path | None) -> Path | None:
    if not ctx.resilient_parsing:
        ctx.default_map = read_settings(ctx, config)
    return config


Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON: one document, or one a line (NDJSON).", rich_help_panel=PANEL),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="LINESHAFT_CONFIG",
        help="Settings file [dim](else lineshaft.toml, or \\[tool.lineshaft] in pyproject.toml)[/dim].",
        is_eager=True,
        callback=_load_config,
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Url = Annotated[
    str,
    typer.Option("--url", envvar="LINESHAFT_URL", help="Where the coordinator is.", rich_help_panel=PANEL),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="LINESHAFT_API_KEY", help="API key.", show_default=False, rich_help_panel=PANEL
    ),
]

_LOCAL: dict[str, tuple[Any, Any]] = {"config": (Config, None), "json": (Json, False)}
_REMOTE: dict[str, tuple[Any, Any]] = {"url": (Url, DEFAULT_URL), "api_key": (ApiKey, None)} | _LOCAL


def command(
    app: typer.Typer, name: str, *, remote: bool = True, panel: str | None = None, group: bool = False
) -> Callable[[F], F]:
    """Register a function as a command; its first parameter takes the `Session`.

    Adds `--json` and `--config`, and with `remote` also `--url` and `--api-key`. A coroutine is run to its
    end, a returned ExitCode becomes the exit code, a LineshaftError is explained. With `group` it is what
    the group does when no command of it is named.
    """
    shared = _REMOTE if remote else _LOCAL

    def register(function: F) -> F:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            common = {key: given.pop(key) for key in shared}
            ctx: typer.Context = given.pop("ctx")
            if group and ctx.invoked_subcommand is not None:
                return
            session = Session(
                ctx,
                out=Output(as_json=_is_json(ctx)),
                url=common.get("url", DEFAULT_URL),
                api_key=common.get("api_key"),
            )
            raise typer.Exit(guarded(session, lambda: _invoke(function, session, given)))

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, (kind, default) in shared.items()
        ]
        parameters.append(inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        del run.__wrapped__  # typer must see the new signature, not the old one
        signature = inspect.Signature(
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        setattr(run, "__signature__", signature)  # noqa: B010 (functions do not declare it)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        if group:
            app.callback(invoke_without_command=True)(run)
        else:
            app.command(name, rich_help_panel=panel)(run)
        return function

    return register


def _is_json(ctx: typer.Context) -> bool:
    """Tell whether `--json` was given, after the command or before it."""
    at: Any = ctx
    while at is not None:
        if at.params.get("json"):
            return True
        at = at.parent
    return False


def _invoke(function: Callable[..., Any], session: Session, given: dict[str, Any]) -> Any:
    if not inspect.iscoroutinefunction(function):
        return function(session, **given)

    async def run() -> Any:
        async with session:
            return await function(session, **given)

    return asyncio.run(run())


def guarded(session: Session, run: Callable[[], Any]) -> int:
    """Run and return the exit code; what goes wrong is said on standard error."""
    try:
        code = run()
    except LineshaftError as error:
        verdict = judge(error, url=session.url)
        tell(verdict, as_json=session.out.as_json)
        return verdict.code
    except (KeyboardInterrupt, asyncio.CancelledError):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, a pager) has what it wanted. Nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return int(code or ExitCode.OK)


def tell(verdict: Verdict, *, as_json: bool) -> None:
    """Print what went wrong and what to do next."""
    if as_json:
        sys.stderr.write(encode(verdict.as_document()).decode() + "\n")
        return
    from rich.text import Text

    screen = console(stderr=True)
    # A word such as `name` may stand in the reason without meaning the field.
    named = f"`{verdict.field}`" if verdict.code is ExitCode.REFUSED else str(verdict.field)
    where = "" if verdict.field is None or named in verdict.reason else f" (field {verdict.field})"
    parts = [Text.assemble(("error: ", "bold red"), visible(verdict.reason) + where)]
    if verdict.hint:
        parts.append(Text.assemble(("hint: ", "bold"), visible(verdict.hint)))
    for part in parts:
        screen.print(part, soft_wrap=not screen.is_terminal)
