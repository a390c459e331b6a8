"""The index templates that people see and build on, and what older indices lack of them.

Monthly indices are made whole, without their template; so one that an older version made is told of new
fields when the store is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.names import Names

VERSION = 2
"""Rises with every change of a mapping; fields are only ever added."""


class _Body(msgspec.Struct):
    version: int = 0


class _Template(msgspec.Struct):
    index_template: _Body = msgspec.field(default_factory=_Body)


class _Templates(msgspec.Struct):
    index_templates: list[_Template] = []


_decode = msgspec.json.Decoder(_Templates).decode


async def make(client: Client, prefix: str, what: str, body: dict[str, Any]) -> None:
    """Make a template, or replace it; a cluster that does not let us goes without."""
    template = {
        "index_patterns": [f"{prefix}-{what}-*"],
        "version": VERSION,
        "priority": 200,
        "template": body,
        "_meta": {"made_by": "lineshaft"},
    }
    await client.do(
        "PUT", f"/_index_template/{prefix}-{what}", template, expect=(400, 401, 403), timeout=30.0
    )


async def bring_up_to_date(client: Client, names: Names, bodies: Mapping[str, dict[str, Any]]) -> None:
    """Give monthly indices the fields that they lack, where the templates are older than this version."""
    target = f"/_index_template/{names.prefix}-tasks?filter_path=index_templates.index_template.version"
    answer = await client.send("GET", target)
    found = _decode(answer.body).index_templates if answer.ok else []
    if any(each.index_template.version >= VERSION for each in found):
        return
    for what, body in bodies.items():
        fields = {"properties": body["mappings"]["properties"]}
        await client.do("PUT", f"/{names.prefix}-{what}-*/_mapping", fields, expect=(404,), timeout=30.0)
        await make(client, names.prefix, what, body)
