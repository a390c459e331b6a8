"""A coordinator as a process of its own with short limits: `serving.py LIMITS STORE`, limits as JSON."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from lineshaft.server.serve import serve
from lineshaft.server.settings import Limits, ServerSettings


def main(limits: str, store: str) -> None:
    settings = ServerSettings(
        store=store, listen="127.0.0.1:0", limits=msgspec.json.decode(limits, type=Limits)
    )
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
