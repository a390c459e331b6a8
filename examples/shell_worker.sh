#!/bin/sh
# A worker in shell: needs curl, and python3 to read JSON. Its task is {"name": "checksum", "payload": "path/of/a/file"}.
url=${LINESHAFT_URL:-http://127.0.0.1:7077}
json='Content-Type: application/json'

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
quote() { python3 -c 'import json, sys; print(json.dumps(sys.stdin.read().strip()))'; }
say() { curl -sS --retry 8 --retry-connrefused "$url/_tasks/$id/$1" -H "$json" -d "{\"lease_token\": \"$token\"$2}"; }

heartbeats() { # $1: the process at work, which must end once its task is cancelled or somebody else's
    while sleep 10 && kill -0 $$; do
        say _heartbeat | grep -qE '"(cancel|lease_lost|not_found)"' && kill "$1"
    done
}

while :; do
    task=$(curl -sS -X POST "$url/_tasks/_claim?names=checksum&lease=30s&wait=20s" -H "$json") || { sleep 1; continue; }
    [ -n "$task" ] || continue # 204: nothing to do
    id=$(printf '%s' "$task" | field task_id | python3 -c 'import urllib.parse as u; print(u.quote(input(), safe=""))')
    token=$(printf '%s' "$task" | field lease_token)
    path=$(printf '%s' "$task" | field payload)

    sha256sum -- "$path" >out.$$ 2>err.$$ & work=$!
    heartbeats $work & beat=$!
    if wait $work; then
        say _complete ", \"result\": $(cut -d ' ' -f 1 out.$$ | quote)"
    else
        say _fail ", \"error\": {\"type\": \"exit\", \"message\": $(quote <err.$$)}"
    fi
    echo
    kill $beat
    rm -f out.$$ err.$$
done
