"""The tasks that the worker of the compose files executes; put your own in their place."""

from __future__ import annotations

from lineshaft import App

app = App()


@app.task
def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}"
