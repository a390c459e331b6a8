"""`lineshaft migrate`: make the tables of a store, or bring those of an older version up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from lineshaft.cli.session import Session
from lineshaft.errors import Invalid


async def migrate(
    session: Session,
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE-URL", help="Such as postgresql://admin@host/database.", show_default=False
        ),
    ],
) -> None:
    """Make the tables of a store in PostgreSQL, or bring them up to date.

    A coordinator does it by itself where its role may; else run this with a role that may.
    """
    from lineshaft.store.urls import open_store

    found = open_store(store)
    if store.partition("://")[0] not in ("postgresql", "postgres"):
        raise Invalid(
            f"there is nothing to migrate in {found.url}: its coordinator does it when it starts",
            field="store",
        )
    from lineshaft.store.postgres.schema import VERSION
    from lineshaft.store.postgres.store import PostgresStore

    assert isinstance(found, PostgresStore)
    before = await found.migrate()
    if session.out.as_json:
        session.out.document({"store": found.url, "before": before, "version": VERSION})
    elif before == VERSION:
        session.out.say(f"{found.url} is at version {VERSION} already")
    elif before:
        session.out.say(f"{found.url} was brought from version {before} to {VERSION}")
    else:
        session.out.say(f"the tables of {found.url} were made, at version {VERSION}")
