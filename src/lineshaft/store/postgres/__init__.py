"""A store in a PostgreSQL database: `postgresql://user@host/database?schema=lineshaft`.

The library that speaks to it, psycopg, is an extra (`lineshaft[postgres]`) and imported when a store is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lineshaft.errors import Invalid

if TYPE_CHECKING:
    from lineshaft.store.postgres.store import PostgresStore


def make_store(url: str, options: Mapping[str, str]) -> PostgresStore:
    """Return the store that the URL names; `options` are those of its query. Raises `Invalid`."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise Invalid(
            f"a store in PostgreSQL needs psycopg ({error}): run pip install 'lineshaft[postgres]'",
            field="store",
        ) from error
    from lineshaft.store.postgres.address import read_address
    from lineshaft.store.postgres.store import PostgresStore

    return PostgresStore(read_address(url, options))


__all__ = ["make_store"]
