"""Runs an OpenSearch node as the tests do, until standard input ends: `… bench.stores.server FOLDER`.

Speaks as `bench.peers.server` does: a line of JSON with URL, pid and version once it serves, and another for
each line on standard input, after which the node is empty.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator

HEAP = "1g"


def opensearch() -> Generator[dict[str, object], None, None]:
    """Serve an emptied node each time, under a prefix of its own. It writes as it comes: fsync a request."""
    from tests.servers import opensearch as start

    with start(private=True, heap=HEAP) as node:
        version = node.request("GET", "/").json["version"]["number"]
        while True:
            url = node.fresh()
            yield {"url": url, "pid": node.pid, "version": version}
            node.drop(url.rpartition("/")[2])


def main() -> None:
    """Serve."""
    served = opensearch()
    print(json.dumps(next(served)), flush=True)
    for _ in sys.stdin:
        print(json.dumps(next(served)), flush=True)
    served.close()


if __name__ == "__main__":
    main()
