"""`lineshaft tenants`: who there is, and over how many partitions the tasks of each are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.commands import command
from lineshaft.cli.session import Session

if TYPE_CHECKING:
    from lineshaft import wire

app = typer.Typer(help="See tenants, and spread one that outgrows a shard.", no_args_is_help=True)


@command(app, "list")
async def list_tenants(session: Session) -> None:
    """List the tenants with their partitions, and the shard of each."""
    answer: wire.TenantList = await session.call("tenants")
    if session.out.as_json:
        session.out.document(answer)
        return
    rows = [
        (tenant.tenant, tenant.partitions, ", ".join(str(shard) for shard in tenant.shards))
        for tenant in answer.tenants
    ]
    session.out.table(("tenant", "partitions#", "shards~"), rows, empty="there is no tenant")


@command(app, "partition")
async def partition(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Its name.", show_default=False)],
    partitions: Annotated[
        int, typer.Argument(metavar="N", help="How many, up to the shards of the store.", show_default=False)
    ],
) -> None:
    """Spread a tenant's tasks over N partitions; only before its first task."""
    from lineshaft import wire

    answer: wire.TenantInfo = await session.call(
        "put_tenant", id=tenant, body=wire.PutTenant(partitions=partitions)
    )
    if session.out.as_json:
        session.out.document(answer)
        return
    spread = f"{answer.partitions} partitions" if answer.partitions > 1 else "one partition"
    session.out.say(f"{answer.tenant} has {spread}, in shard {', '.join(map(str, answer.shards))}")
