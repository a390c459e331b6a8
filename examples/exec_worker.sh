#!/bin/sh
# Any program as a worker: the payload is on its standard input, its standard output becomes the result, and its exit code
# decides (0 completes, 64 and 65 fail for good, anything else is tried again). Here it counts words:
#   lineshaft enqueue count '"three short words"' --queue words --wait
exec lineshaft worker --queues words=4 --exec 'wc -w'
