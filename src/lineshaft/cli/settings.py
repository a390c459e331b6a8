"""Where a value comes from: the command line, else the environment, else a TOML file, else the default.

The file is `--config PATH` (or LINESHAFT_CONFIG), else `lineshaft.toml` in the current directory, else the
table `[tool.lineshaft]` of `pyproject.toml` there. Names are those of the options; a name at the top goes to
every command that knows it, a table named after a command to that command alone:

    url = "http://127.0.0.1:7077"

    [serve]
    store = "sqlite:///jobs.db"

    [worker]
    queues = {mail = 10, default = 2}
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import typer

FILE = "lineshaft.toml"
TABLE = "tool.lineshaft"


def read_settings(ctx: typer.Context, config: Path | None) -> dict[str, Any]:
    """Return what the TOML file says of the options of `ctx`'s command.

    Raises `typer.BadParameter` for a file that cannot be read and for a name that no command has.
    """
    found = _find(config)
    if found is None:
        return {}
    source, data = found
    _refuse_unknown(source, data, ctx.find_root().command)
    options = _options(ctx.command)
    values = {
        key: value for key, value in _by_option(data).items() if not isinstance(value, dict) or key in options
    }
    table: Any = data
    for part in ctx.command_path.split()[1:]:
        table = table.get(part, {}) if isinstance(table, dict) else {}
        values |= _by_option(table) if isinstance(table, dict) else {}
    return {
        option.name: _as_option(values[name], option) for name, option in options.items() if name in values
    }


def _find(config: Path | None) -> tuple[str, dict[str, Any]] | None:
    if config is not None:
        data = _load(config)
        inner = data.get("tool", {}).get("lineshaft") if config.name == "pyproject.toml" else data
        return (str(config), inner or {})
    if Path(FILE).is_file():
        return FILE, _load(Path(FILE))
    project = Path("pyproject.toml")
    if project.is_file():
        # Other tools keep their settings there too: one that cannot be read is theirs to complain about.
        try:
            table = tomllib.loads(project.read_text()).get("tool", {}).get("lineshaft")
        except (OSError, ValueError):
            return None
        return (f"[{TABLE}] in pyproject.toml", table) if isinstance(table, dict) else None
    return None


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {path}: {error.strerror}; name a file that can be read", param_hint="--config"
        ) from None
    except ValueError as error:
        raise typer.BadParameter(
            f"{path} is not TOML: {error}; mend it, or name another", param_hint="--config"
        ) from None


def _refuse_unknown(source: str, data: dict[str, Any], command: Any) -> None:
    commands = getattr(command, "commands", {})
    everything = _all_options(command)
    for key, value in data.items():
        name = key.replace("-", "_")
        if isinstance(value, dict) and key in commands:
            _check_table(f"{source}: [{key}]", value, commands[key])
        elif name not in everything:
            raise _unknown(f"{source}: `{key}`", key, [*commands, *everything])


def _check_table(place: str, table: dict[str, Any], command: Any) -> None:
    commands = getattr(command, "commands", {})
    options = _all_options(command)
    for key, value in table.items():
        if isinstance(value, dict) and key in commands:
            _check_table(f"{place[:-1]}.{key}]", value, commands[key])
        elif key.replace("-", "_") not in options:
            raise _unknown(f"{place} has `{key}`, which", key, [*commands, *options])


def _unknown(what: str, key: str, known: list[str]) -> typer.BadParameter:
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(sorted(set(known)))}"
    return typer.BadParameter(f"{what} is not a setting of this version{hint}", param_hint="configuration")


def _options(command: Any) -> dict[str, Any]:
    """Return a command's options by the names that a file has for them: `--log-level` is `log_level`."""
    options = [param for param in command.params if param.param_type_name == "option"]
    return {max(option.opts, key=len).removeprefix("--").replace("-", "_"): option for option in options}


def _all_options(command: Any) -> set[str]:
    found = set(_options(command))
    for child in getattr(command, "commands", {}).values():
        found |= _all_options(child)
    return found - {"config", "help", "install_completion", "show_completion", "version"}


def _by_option(table: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


def _as_option(value: Any, option: Any) -> Any:
    """Give a value of TOML in the form that the option takes on the command line."""
    if isinstance(value, dict):
        value = [f"{name}={amount}" for name, amount in value.items()]
    if isinstance(value, list):
        words = [str(item) for item in value]
        return words if option.multiple else ",".join(words)
    if isinstance(value, bool) and option.is_flag:
        return value
    return [str(value)] if option.multiple else str(value)
