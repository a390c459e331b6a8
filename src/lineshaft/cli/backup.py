"""`lineshaft backup` and `lineshaft restore`: copies of a SQLite store, also while it is in use."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.session import Session
from lineshaft.errors import Invalid

if TYPE_CHECKING:
    from lineshaft.store.sqlite_backup import Backup

_ELSEWHERE = {
    "postgresql": "pg_dump, or a base backup with its log",
    "redis": "its RDB or AOF files",
    "valkey": "its RDB or AOF files",
    "elasticsearch": "snapshots of its indices",
    "opensearch": "snapshots of its indices",
}

Store = Annotated[
    str,
    typer.Argument(metavar="STORE-URL", help="Such as sqlite:///jobs.db.", show_default=False),
]


async def backup(
    session: Session,
    store: Store,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Copy a SQLite store, as of now, while its coordinator goes on.

    The copy is whole and checked before FILE has its name.
    """
    from lineshaft.store.sqlite_backup import back_up

    path = _file_of(store)
    made = await asyncio.to_thread(back_up, path, str(file), overwrite=force)
    if session.out.as_json:
        session.out.document({"store": store, "file": str(file)} | _described(made))
    else:
        session.out.say(f"{file} has the {made.tasks} tasks of {store}, as of {_moment(made)}")


async def restore(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `lineshaft backup` made.", show_default=False)
    ],
    store: Store,
) -> None:
    """Put a backup in the place of a SQLite store that nobody has open; what is there is kept beside it.

    What was acknowledged after the backup is gone; tasks that were finished since may run again.
    """
    from lineshaft.store.sqlite_backup import restore as put_back

    path = _file_of(store)
    done = await asyncio.to_thread(put_back, str(file), path)
    if session.out.as_json:
        session.out.document({"store": store, "file": str(file), "kept": done.kept} | _described(done.backup))
        return
    session.out.say(f"{store} has the {done.backup.tasks} tasks of {file}, as of {_moment(done.backup)}")
    if done.kept is not None:
        session.out.note(f"what was there before is {done.kept} now")


def _file_of(store: str) -> str:
    from lineshaft.store.sqlite import SQLiteStore
    from lineshaft.store.urls import open_store

    found = open_store(store)
    if not isinstance(found, SQLiteStore):
        kind = store.partition("://")[0]
        advice = _ELSEWHERE.get(kind)
        raise Invalid(
            f"only a SQLite store is copied like this: {found.url} has "
            + (f"means of its own ({advice})" if advice else "nothing to copy"),
            field="store",
        )
    return found.path


def _described(backup: Backup) -> dict[str, object]:
    return {"tasks": backup.tasks, "at": _moment(backup), "size": backup.size}


def _moment(backup: Backup) -> str | None:
    from lineshaft.values.instants import format_instant

    return format_instant(backup.at) if backup.at else None
