"""`lineshaft keys`: API keys, through a coordinator, or with `--store` directly where none runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lineshaft.cli.commands import command
from lineshaft.cli.session import Session
from lineshaft.cli.spans import ago

if TYPE_CHECKING:
    from lineshaft import wire

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

SCOPES = ("enqueue", "work", "read", "admin")

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Work on this store itself; no coordinator may have it open. So the first key is made.",
        show_default=False,
    ),
]


@command(app, "create")
async def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            "-s",
            help=f"{', '.join(SCOPES)} (may be repeated).",
            autocompletion=lambda incomplete: [scope for scope in SCOPES if scope.startswith(incomplete)],
        ),
    ] = ["enqueue", "work", "read"],  # noqa: B006 (typer copies it)
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="For this tenant.", show_default=False)
    ] = None,
    store: Store = None,
) -> None:
    """Make a key and print it, this once; from the first on, every call needs one."""
    from lineshaft import wire

    for word in scope:
        if word not in SCOPES:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(SCOPES)}", param_hint="--scope")
    scopes: Any = scope
    body = wire.NewKey(name=name, scopes=scopes, tenant=tenant)
    key: wire.Key = await _call(session, store, "new_key", body=body)
    if session.out.as_json:
        session.out.document(key)
        return
    session.out.note(
        f"key {key.key_id} for {', '.join(key.scopes)} of tenant {key.tenant}; it is shown only now:",
        style="dim",
    )
    session.out.say(key.key or "")
    if store is None and session.api_key is None:  # else it would have been refused
        session.out.note("from now on every call needs a key; who is there without one has been sent away")


@command(app, "list")
async def list_keys(session: Session, store: Store = None) -> None:
    """List the keys that are valid, without their secrets."""
    answer: wire.KeyList = await _call(session, store, "keys")
    if session.out.as_json:
        session.out.document(answer)
        return
    rows = [
        (key.key_id, key.name, key.tenant, ", ".join(key.scopes), ago(key.created_at)) for key in answer.keys
    ]
    session.out.table(("key", "name", "tenant", "scopes~", "created#?"), rows, empty="there is no API key")


@command(app, "revoke")
async def revoke(
    session: Session,
    key_ids: Annotated[list[str], typer.Argument(metavar="KEY…", help="Ids of keys.", show_default=False)],
    store: Store = None,
) -> None:
    """Make keys invalid, from now on and for good."""
    known: wire.KeyList = await _call(session, store, "keys")
    admins = {key.key_id for key in known.keys if "admin" in key.scopes}
    for key_id in key_ids:
        answer: wire.Revoked = await _call(session, store, "revoke_key", id=key_id)
        if session.out.as_json:
            session.out.line(answer)
        else:
            session.out.say(f"revoked {answer.key_id}")
    if admins and not admins - set(key_ids):
        session.out.note(
            "no key with admin is left: stop the coordinator, and make one with "
            "`lineshaft keys create NAME --scope admin --store URL`"
        )


async def _call(session: Session, store: str | None, name: str, **given: Any) -> Any:
    if store is None:
        return await session.call(name, **given)
    from lineshaft.cli.direct import call_store

    return await call_store(store, name, **given)
