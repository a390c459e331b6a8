"""Calls of the functions inside the server, which are installed where they are missing."""

from __future__ import annotations

import asyncio
from typing import Any

from lineshaft.store.redis import library
from lineshaft.store.redis.client import Client, Command
from lineshaft.store.redis.errors import code_of

SCANS = 4


class Functions:
    """The functions, by FCALL, or by EVALSHA where the server has no functions or forbids them."""

    def __init__(self, client: Client) -> None:
        self.as_script = False
        self.scans = asyncio.Semaphore(SCANS)
        """Keeps many searches at once from taking a connection each, and the server from everybody else."""
        self._client = client

    async def install(self) -> None:
        """Bring the library to every primary, or find that it takes the script."""
        import redis

        try:
            await self._client.everywhere(("FUNCTION", "LOAD", "REPLACE", library.library()))
        except redis.ResponseError as error:
            if code_of(error) != "NOPERM" and "unknown command" not in str(error).lower():
                raise
            self.as_script = True

    async def call(self, verb: str, key: str, *args: str | bytes, then: Command | None = None) -> Any:
        """Call a function; `then` is a command that goes over the same connection right after it.

        Returns its answer, and where `then` is given a pair with the answer to that.
        """
        import redis

        try:
            return await self._send(self._command(verb, key, args), key, then)
        except redis.ResponseError as error:
            if not self._is_missing(error):
                raise
        # Such as after a failover to a server that has never had it, or a restart that forgot scripts.
        if self.as_script:
            return await self._send(("EVAL", library.script(), 1, key, verb, *args), key, then)
        await self.install()
        return await self._send(self._command(verb, key, args), key, then)

    def _command(self, verb: str, key: str, args: tuple[str | bytes, ...]) -> Command:
        if self.as_script:
            return ("EVALSHA", library.script_digest(), 1, key, verb, *args)
        return (
            "FCALL_RO" if library.VERBS[verb] == "no-writes" else "FCALL",
            library.function(verb),
            1,
            key,
            *args,
        )

    async def _send(self, command: Command, key: str, then: Command | None) -> Any:
        commands = (command,) if then is None else (command, then)
        if asyncio.current_task() is None:
            # The library limits time by `asyncio.timeout`, which a coroutine that somebody steps cannot.
            answers = await asyncio.get_running_loop().create_task(self._client.call(key, *commands))
        else:
            answers = await self._client.call(key, *commands)
        return answers[0] if then is None else answers

    def _is_missing(self, error: Exception) -> bool:
        text = str(error).lower()
        return "function not found" in text or "noscript" in text or type(error).__name__ == "NoScriptError"
