"""The kinds of stores: those of Lineshaft, and those that installed packages bring.

A package brings a store by an entry point in the group `lineshaft.stores`: its name is the scheme of the
URL, its object a function that makes the store, not yet opened:

    [project.entry-points."lineshaft.stores"]
    journal = "journal_store:make_store"

    def make_store(url: str, options: Mapping[str, str]) -> Store: ...

`url` is what was said, without its query; `options` are what the query holds. What the function does not like
it refuses with `lineshaft.errors.Invalid` (field "store").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from lineshaft.errors import Invalid

if TYPE_CHECKING:
    from lineshaft.store.base import Store

GROUP = "lineshaft.stores"
OURS = (
    "memory",
    "sqlite",
    "postgresql",
    "postgres",
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "elasticsearch",
    "opensearch",
)

MakeStore = Callable[[str, Mapping[str, str]], "Store"]


def is_brought(kind: str) -> bool:
    """Tell whether an installed package brings stores of this kind; nothing of it is loaded."""
    return bool(_found(kind))


def brought_kinds() -> list[str]:
    """Return the schemes that installed packages bring, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)} - set(OURS))


def load(kind: str) -> MakeStore | None:
    """Return what makes a store of this kind, None where no package brings it.

    Raises `Invalid` (field "store") where two packages bring it, or the one cannot be imported.
    """
    found = _found(kind)
    if not found:
        return None
    if len(found) > 1:
        both = " and ".join(sorted(_package(point) for point in found))
        raise Invalid(f"both {both} bring stores of kind {kind!r}: uninstall one of them", field="store")
    try:
        make: MakeStore = found[0].load()
    except Exception as error:  # whatever importing somebody else's module may raise
        raise Invalid(
            f"stores of kind {kind!r} are of {_package(found[0])}, which cannot be loaded "
            f"({type(error).__name__}: {error}): install it anew, or the version that fits this Lineshaft",
            field="store",
        ) from error
    return make


def _found(kind: str) -> list[EntryPoint]:
    # The same package may be on the path twice, such as in a folder and installed.
    return list({_package(point): point for point in entry_points(group=GROUP, name=kind)}.values())


def _package(point: EntryPoint) -> str:
    return "an unknown package" if point.dist is None else point.dist.name
