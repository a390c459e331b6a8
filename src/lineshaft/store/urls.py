"""Where a store is: `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db`, options after `?`.

Other schemes are of packages that bring stores; see `registry`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

from lineshaft.errors import Invalid
from lineshaft.store import registry
from lineshaft.store.base import Store
from lineshaft.store.memory import MemoryStore
from lineshaft.store.sqlite import SQLiteStore

FORMS = (
    "memory://, sqlite:///relative.db, sqlite:////absolute.db, postgresql://user@host/database, "
    "redis://host:6379, elasticsearch://host:9200/prefix or opensearch://host:9200/prefix"
)


def open_store(url: str, **options: str) -> Store:
    """Return the store that `url` names; it is not opened yet (`await store.open(address=…)`).

    Options stand in the URL's query or are given by keyword, which wins. Raises `Invalid` (field "store").
    """
    kind, separator, rest = url.partition("://")
    if not separator:
        raise Invalid(f"{url!r} is not the URL of a store: use {_forms()}", field="store")
    place, _, query = rest.partition("?")
    chosen = _options(query) | options
    match kind:
        case "memory":
            return _open_memory(place, chosen)
        case "sqlite":
            return _open_sqlite(url, place, chosen)
        case "postgresql" | "postgres":
            from lineshaft.store.postgres import make_store

            return make_store(f"postgresql://{place}", chosen)
        case (
            "redis" | "rediss" | "valkey" | "valkeys"
            | "redis+sentinel" | "rediss+sentinel" | "valkey+sentinel" | "valkeys+sentinel"
        ):  # fmt: skip
            from lineshaft.store.redis import make_store as make_redis_store

            return make_redis_store(f"{kind}://{place}", chosen)
        case "elasticsearch" | "opensearch":
            from lineshaft.store.elastic import make_store as make_elastic_store

            return make_elastic_store(kind, place, chosen)
    make = registry.load(kind)
    if make is not None:
        return make(f"{kind}://{place}", chosen)
    raise Invalid(f"there is no kind of store {kind!r} here: use {_forms()}", field="store")


def _forms() -> str:
    return ", ".join([FORMS, *(f"{kind}://…" for kind in registry.brought_kinds())])


def _open_memory(place: str, options: dict[str, str]) -> Store:
    if place:
        raise Invalid(f"memory:// is followed by nothing, not {place!r}", field="store")
    _refuse_unknown("memory", options, known=())
    return MemoryStore()


def _open_sqlite(url: str, place: str, options: dict[str, str]) -> Store:
    if not place.startswith("/"):
        raise Invalid(
            f"{url!r} needs a third slash: sqlite:///{place or 'jobs.db'} is relative", field="store"
        )
    path = unquote(place[1:])
    if not path or path.endswith("/") or "\0" in path:
        raise Invalid(
            f"{url!r} names no file: use sqlite:///relative.db or sqlite:////absolute.db", field="store"
        )
    if path.startswith(":memory:"):
        raise Invalid("a store in memory is called memory://", field="store")
    _refuse_unknown("sqlite", options, known=("synchronous",))
    return SQLiteStore(path, synchronous=options.get("synchronous", "FULL"))


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    chosen = dict(pairs)
    if len(chosen) != len(pairs):
        raise Invalid("an option is given twice in the URL of the store", field="store")
    return chosen


def _refuse_unknown(kind: str, options: dict[str, str], *, known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            there_are = f"it takes {', '.join(known)}" if known else "it takes none"
            raise Invalid(f"a store of kind {kind} has no option {name!r}: {there_are}", field="store")
