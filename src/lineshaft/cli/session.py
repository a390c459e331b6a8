"""What every command is given: where to print, and a way to call the coordinator."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from lineshaft.cli.output import Output

if TYPE_CHECKING:
    import msgspec

    from lineshaft.sdk.transport import Transport

DEFAULT_URL = "http://127.0.0.1:7077"


class Session:
    """One run of a command. Calls raise LineshaftError, which becomes an exit code in `commands.py`."""

    def __init__(
        self, ctx: typer.Context, *, out: Output, url: str = DEFAULT_URL, api_key: str | None = None
    ) -> None:
        self._ctx = ctx
        self.out = out
        self.url = url
        self.api_key = api_key
        self._transport: Transport | None = None

    def source(self, option: str) -> str:
        """Return where an option's value is from: commandline, environment, default_map (TOML) or default."""
        source = self._ctx.get_parameter_source(option)
        return "default" if source is None else source.name.lower()

    @property
    def transport(self) -> Transport:
        """The connection to the coordinator, opened when it is first needed."""
        if self._transport is None:
            # Imported here, so that `--help` and the commands without a coordinator start quickly.
            from lineshaft.sdk.http import HttpTransport

            # Not repeated here: a person wants to hear at once that nobody answers, a script has exit codes.
            self._transport = HttpTransport(self.url, api_key=self.api_key, retry_for=0)
        return self._transport

    async def call(
        self,
        name: str,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make the call of that name (`wire.CALLS`) and return its answer struct; `timeout` is in seconds."""
        from lineshaft import wire

        call = wire.CALLS[name]
        return await self.transport.call(call, id=id, query=query, body=body, timeout=timeout)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            await self._transport.close()
            self._transport = None
