"""What the demo's workers do: `lineshaft worker lineshaft.cli.demo.handlers:app`."""

from __future__ import annotations

import time

from lineshaft import App
from lineshaft.cli.demo.files import Measurement, measure_file, unspelled

QUEUE = "demo"

app = App()


@app.task(
    name="measure",
    queue=QUEUE,
    # Short, so that the tasks of a killed worker come back while one watches.
    lease="2s",
    retry_policy={"base": "100ms"},
)
def measure(path: str, pause: float = 0.0) -> Measurement:
    """Hash and measure the file at `path`; `pause` (seconds) makes little work last a little."""
    if pause:
        time.sleep(pause)
    return measure_file(unspelled(path))
