"""`lineshaft worker --reload`: the worker as a process that is started again when a source file changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.trouble import Trouble

_logger = logging.getLogger("lineshaft.reload")


async def run_reloading(directory: Path) -> None:
    """Run this command without `--reload` in a process, and again after every change of a .py file.

    A worker that ends by itself (a syntax error, say) is started again at the next change under `directory`.
    Raises Trouble where the package that watches files is not installed.
    """
    try:
        from watchfiles import PythonFilter, awatch
    except ImportError:
        raise Trouble(
            "--reload needs the package watchfiles",
            code=ExitCode.USAGE,
            hint="pip install 'lineshaft[reload]'",
        ) from None
    # Said and not only left out, since a settings file may say `reload` too.
    arguments = [word for word in sys.argv[1:] if word != "--reload"] + ["--no-reload"]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    process = await _start(arguments)
    try:
        async for changes in awatch(directory, watch_filter=PythonFilter(), stop_event=stop):
            names = sorted({Path(path).name for _, path in changes})
            _logger.info("%s changed: starting the worker again", ", ".join(names[:3]))
            await _end(process)
            process = await _start(arguments)
    finally:
        await _end(process)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _start(arguments: list[str]) -> asyncio.subprocess.Process:
    # In a session of its own: Ctrl-C reaches only us, and we pass it on in order.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lineshaft", *arguments, start_new_session=True
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the worker finish what it does, as its grace has it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()
