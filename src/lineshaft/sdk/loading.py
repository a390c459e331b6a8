"""Finding an App by name: `module:attribute`, as `lineshaft worker` and its processes are given it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lineshaft.errors import Invalid

if TYPE_CHECKING:
    from lineshaft.sdk.client import Client


class AppNotFound(Invalid):
    """`module:attribute` does not lead to an App; `reason` says where it ends."""

    type = "app_not_found"


def load_app(name: str, *, directory: Path | None = None) -> Client:
    """Import the App that `module:attribute` names, looking in `directory` (the current one) first.

    Raises AppNotFound where the module, the attribute or its type is wrong; an error inside the module is its
    own.
    """
    from lineshaft.sdk.client import Client

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise AppNotFound(f"`{name}` is not of the form module:app", field="app")
    folder = str(directory or Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise AppNotFound(
            f"there is no module `{error.name}` in {folder} or on sys.path", field="app"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise AppNotFound(f"module `{module_name}` has no `{attribute}`{_apps_of(found)}", field="app")
        found = getattr(found, part)
    if not isinstance(found, Client):
        raise AppNotFound(f"`{name}` is of type {type(found).__name__}, not a lineshaft.App", field="app")
    return cast("Client", found)


def _apps_of(module: object) -> str:
    from lineshaft.sdk.client import Client

    apps = [name for name, value in vars(module).items() if isinstance(value, Client)]
    return f"; it has {', '.join(f'`{name}`' for name in apps)}" if apps else ""
