"""The App of the SDK's measures: a no-op task, with the payload of all contenders."""

from __future__ import annotations

import os

from bench.telling import Handler
from lineshaft import App

app = App(os.environ.get("BENCH_URL"))
handler = Handler()


@app.task()
async def noop(text: str) -> None:
    handler(text)
