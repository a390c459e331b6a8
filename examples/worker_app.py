"""An App for `lineshaft worker worker_app:app --queues thumbnails=2,default --processes 2`.

Arguments may be dataclasses, plain functions run in threads, errors decide whether it is tried again.

    lineshaft enqueue thumbnail --queue thumbnails --wait \\
        '{"image": {"path": "cat.png", "width": 4000, "height": 3000}, "longest": 400}'
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineshaft import App, Context, Snooze

app = App()


@dataclass
class Image:
    """A picture, and how many pixels it has."""

    path: str
    width: int
    height: int


class NotAPicture(Exception):
    """Trying again would not help."""


@app.middleware
async def announce(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
    """Wrap every task: the place for logging, tracing, database sessions."""
    ctx.log.info("attempt %d of %s", ctx.attempt, ctx.name)
    return await call_next()


@app.task(queue="thumbnails", timeout="1m", discard_on=NotAPicture)
def thumbnail(ctx: Context, image: Image, longest: int = 200) -> Image:
    """Shrink a picture (here: its numbers only). In its thread it has to look for a cancel by itself."""
    if not image.path.endswith((".png", ".jpg")):
        raise NotAPicture(image.path)
    ctx.raise_if_cancelled()
    scale = longest / max(image.width, image.height)
    path = Path(image.path)
    return Image(
        path=str(path.with_suffix(f".{longest}{path.suffix}")),
        width=round(image.width * scale),
        height=round(image.height * scale),
    )


@app.task(retry_policy={"backoff": "exponential", "base": "2s", "cap": "5m"})
def publish(ctx: Context, path: str) -> None:
    """Wait for a file, without burning attempts and without holding up a worker."""
    if not Path(path).exists():
        raise Snooze("10s")
    ctx.log.info("published %s", path)
