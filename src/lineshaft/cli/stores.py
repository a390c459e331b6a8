"""`lineshaft stores`: move an installation from one store to another."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.commands import command
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.session import Session
from lineshaft.cli.trouble import Trouble
from lineshaft.errors import Invalid

if TYPE_CHECKING:
    from lineshaft.store.base import Store
    from lineshaft.store.copying import Copied

app = typer.Typer(help="Move an installation from one store to another.", no_args_is_help=True)


@command(app, "copy", remote=False)
async def copy(
    session: Session,
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="Such as sqlite:///jobs.db.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TO", help="An empty store, such as postgresql://…", show_default=False),
    ],
) -> None:
    """Copy everything that a store holds to another, which is empty; no coordinator may be at work on either.

    Both are compared in the end. The first stays as it is.
    """
    from lineshaft.store.urls import open_store

    for url in (source, target):
        if url.startswith("memory:"):
            raise Invalid(f"{url} forgets everything when this command ends", field="store")
    stores = open_store(source), open_store(target)
    done = await _copied(session, *stores)
    if not done.tasks and not done.records:
        raise Trouble(
            f"{stores[0].url} holds nothing, so nothing was copied",
            code=ExitCode.FAILED,
            hint="look at the first URL: what is not there yet is made as an empty store",
        )
    if session.out.as_json:
        session.out.document({"from": stores[0].url, "to": stores[1].url} | _described(done))
        return
    session.out.say(
        f"{stores[1].url} has the {done.tasks} tasks of {stores[0].url}, of {done.tenants} tenants, with "
        f"{done.values} values and {done.records} records; compared by count and checksum"
    )
    if done.renumbered:
        session.out.note("the number of shards has changed: tasks that workers still hold will run again")
    if not done.continues:
        session.out.note("positions begin anew there: whoever follows the changes must begin anew, too")


async def _copied(session: Session, source: Store, target: Store) -> Copied:
    from lineshaft.store.copying import Copy

    with session.out.progress() as progress:
        bar = progress.add_task("copying", total=None)
        copied = False

        def advance(done: int, total: int) -> None:
            nonlocal copied
            what = "comparing" if copied else "copying"
            copied = copied or done == total
            progress.update(bar, description=what, completed=done, total=total)

        await source.open(address="a copy, no address")
        try:
            await target.open(address="a copy, no address")
            try:
                for store in (source, target):
                    await _require_unserved(store)
                return await Copy(source, target, progress=advance).run()
            finally:
                await target.close()
        finally:
            await source.close()


async def _require_unserved(store: Store) -> None:
    """Raise StoreInUse where coordinators share the store and one is at work."""
    if store.exclusive:
        return  # else we could not have opened it
    from lineshaft.engine.cluster.membership import Membership
    from lineshaft.engine.engine import Engine

    engine = Engine(store)
    membership = Membership(
        store,
        engine.holdings,
        clock=engine.clock,
        limits=engine.limits,
        nonces=lambda: secrets.token_bytes(16),
        address="",
        version="",
    )
    await membership.require_alone()


def _described(done: Copied) -> dict[str, object]:
    return {
        "tasks": done.tasks,
        "tenants": done.tenants,
        "values": done.values,
        "records": done.records,
        "renumbered": done.renumbered,
        "positions_continue": done.continues,
    }
