"""One engine of a run, from its start to its crash; it may be frozen in between."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import BEING, Being, VirtualLoop

if TYPE_CHECKING:
    from lineshaft.engine.engine import Engine
    from tests.simulation.link import Link


class Life(Being):
    def __init__(self, number: int, link: Link, *, died: Callable[[Life], None]) -> None:
        """`died` is called where the life ends by itself, after the step it was told to end at."""
        super().__init__()
        self.number = number
        self.link = link
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        self.dead: asyncio.Future[None] = loop.create_future()
        self.thawed: asyncio.Future[None] = loop.create_future()
        """To come, while it is frozen."""
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context = contextvars.copy_context()
        self.context.run(BEING.set, self)
        self.engine: Engine | None = None
        self._died = died

    def freeze(self) -> None:
        """Stop as on SIGSTOP."""
        self.frozen = True
        self.thawed = self._loop.create_future()

    def thaw(self) -> None:
        """Go on as on SIGCONT."""
        if self.frozen:
            self._loop.thaw(self)
            self.thawed.set_result(None)

    def exhausted(self) -> None:
        self._died(self)

    def end(self) -> None:
        """Crash."""
        self.steps_left = -1
        self.link.cut = True
        self.thaw()
        if not self.dead.done():
            self.dead.set_result(None)
        for task in list(self.tasks):
            task.cancel()


def task_factory(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> Any:
    """Make a task, and note it as part of the engine's life if an engine makes it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    life = context.get(BEING) if context is not None else BEING.get()
    if isinstance(life, Life):
        life.tasks[task] = None
        task.add_done_callback(lambda task: life.tasks.pop(task, None))
        if life.dead.done():
            task.cancel()
    return task
