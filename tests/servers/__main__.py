"""`python -m tests.servers opensearch postgres…`: start servers until Ctrl-C, and print their URLs."""

from __future__ import annotations

import contextlib
import signal
import sys

from tests import servers

KINDS = ("opensearch", "elasticsearch", "postgres", "valkey", "redis")

if not sys.argv[1:] or not set(sys.argv[1:]) <= set(KINDS):
    sys.exit(f"usage: python -m tests.servers KIND…, of {', '.join(KINDS)}")
with contextlib.ExitStack() as started:
    for kind in sys.argv[1:]:
        server = started.enter_context(getattr(servers, kind)(private=True))
        print(server.url, f"pid {server.pid}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
