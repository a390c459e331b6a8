"""HTTP that is framed well and means nothing: JSON that is none, other protocols, odd targets and hosts."""

from __future__ import annotations

import gzip
import random

from tests.hostile.catalogue import Catalogue
from tests.hostile.exchange import HALF_CLOSE, RESET, Attack
from tests.hostile.requests import GET, PATHS, post

CONTENT = Catalogue()

# -- JSON that is none -------------------------------------------------------------------------------

BODIES = [
    b"[" * 10_000,
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":' * 10_000,
    b'{"name":"n","payload":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"name":"n","priority":' + b"9" * 5_000 + b"}",
    b'{"name":"n","priority":1e999999}',
    b'{"name":"n","delay":' + b"9" * 400 + b"}",
    b'{"name":"n","payload":NaN}',
    b'{"name":"n","payload":-Infinity}',
    b'{"name":"n","payload":"\xff\xfe"}',
    b'{"name":"n","payload":"\xed\xa0\x80"}',
    b'{"name":"n","payload":"\\ud800"}',
    b'{"name":"n","payload":"\\udc00\\ud800"}',
    b'{"name":"n","payload":"\\x"}',
    b'{"name":"n","name":"m"}',
    b'{"name":"n","\\u006eame":"m"}',
    b'\xef\xbb\xbf{"name":"n"}',
    b'{"name":"n",}',
    b'{"name":"n"}{}',
    b'{"name":"n"',
    b"{'name':'n'}",
    b'{"name":"\x01"}',
    b'{"name":"n"}\x00',
    b"\x00" * 100,
    b"nul",
    b"\xff" * 1_000,
    b'{"name":"n","colour":' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}",
    b'{"name":"n","worker_affinity":{"resources":{"gpu":1e400}}}',
    b'{"name":"n","retry_policy":{"factor":1e309}}',
]


@CONTENT.kind
def bodies_that_are_no_json(chance: random.Random) -> Attack:
    return Attack([post("/_tasks", chance.choice(BODIES))], refused=True)


@CONTENT.kind
def bad_items_of_batches(chance: random.Random) -> Attack:
    body = chance.choice(BODIES)
    if chance.random() < 0.5:
        return Attack([post("/_tasks/_bulk", b"[" + body + b"]")])
    return Attack([post("/_tasks/_report", b'{"items":[' + body + b"]}")])


@CONTENT.kind
def bad_lines_of_batches(chance: random.Random) -> Attack:
    lines = b"\n".join(chance.sample(BODIES, 5))
    return Attack([post("/_tasks/_bulk", lines).replace(b"application/json", b"application/x-ndjson")])


@CONTENT.kind
def bodies_for_other_calls(chance: random.Random) -> Attack:
    return Attack([post(chance.choice(PATHS[2:]), chance.choice(BODIES))], refused=True)


@CONTENT.kind
def compressed_bodies(chance: random.Random) -> Attack:
    bomb = gzip.compress(b" " * (1 << 20))
    return Attack([post("/_tasks", bomb, b"Content-Encoding: gzip")], refused=True)


# -- other languages ---------------------------------------------------------------------------------


@CONTENT.kind
def unknown_methods(chance: random.Random) -> Attack:
    method = chance.choice(
        [b"BREW", b"get", b"PROPFIND", b"TRACE", b"G\x00T", b"M" * 5_000, b"", b"GET GET", b"QUERY"]
    )
    return Attack([method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n"], refused=True)


@CONTENT.kind
def other_versions(chance: random.Random) -> Attack:
    version = chance.choice(
        [b" HTTP/2.0", b" HTTP/3", b" HTTP/1.1.1", b" HTTP/11", b" ICY/1.0", b" http/1.1"]
    )
    return Attack([b"GET /" + version + b"\r\nHost: localhost\r\n\r\n"])


@CONTENT.kind
def other_protocols(chance: random.Random) -> Attack:
    hello = chance.choice(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(506),
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"EHLO there\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x05\x01\x00",
            b"stats\r\n",
        ]
    )
    return Attack([hello], refused=True)


@CONTENT.kind
def noise(chance: random.Random) -> Attack:
    return Attack([chance.randbytes(chance.randrange(1, 3_000))])


@CONTENT.kind
def odd_targets(chance: random.Random) -> Attack:
    target = chance.choice(
        [
            b"*",
            b"http://localhost/",
            b"localhost:80",
            b"\\",
            b"/%",
            b"/%zz",
            b"/_tasks/%ff",
            b"/_tasks/%00/_complete",
            b"/../../etc/passwd",
            b"/_tasks//",
            b"/\xff",
            b"/a b",
            b"/_tasks/_session/x",
            b"/_tasks?limit=99999999999999999999",
            b"/_tasks?limit=1&limit=2",
            b"/_tasks?%ff=1",
            b"/_tasks/%F0%9F%92%A9",
        ]
    )
    return Attack([b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"], refused=True)


@CONTENT.kind
def odd_hosts(chance: random.Random) -> Attack:
    hosts = [
        b"evil.example",
        b"",
        b"localhost, evil.example",
        b"localhost:99999999",
        b"[::1",
        b"\xff",
        b"localhost\x00",
        b"a" * 9_000,
    ]
    return Attack([GET.replace(b"localhost", chance.choice(hosts))], refused=b"" not in hosts)


@CONTENT.kind
def upgrades_that_are_none(chance: random.Random) -> Attack:
    offer = chance.choice([b"h2c", b"websocket", b"TLS/1.0", b"h2c, websocket"])
    lines = b"Connection: Upgrade\r\nUpgrade: " + offer + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    path = chance.choice([b"/", b"/_tasks/_session", b"/_stats"])
    return Attack([b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n", 0.01, GET])


@CONTENT.kind
def expectations(chance: random.Random) -> Attack:
    return Attack(
        [post("/_tasks", b"", b"Expect: " + chance.choice([b"100-continue", b"tea"]), length=b"20")],
        refused=False,
    )


@CONTENT.kind
def event_streams_gone_wrong(chance: random.Random) -> Attack:
    cursor = chance.choice([b"", b"0", b"-1", b"\xff", b"9" * 400, b"' or 1=1", b"AAAA"])
    head = b"GET /_tasks/_changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
    with_cursor = head + b"Last-Event-ID: " + cursor + b"\r\n\r\n"
    after = chance.choice([chance.randbytes(200), GET, b"", b"\r\n" * 100])
    return Attack(
        [chance.choice([with_cursor, head + b"\r\n"]), 0.02, after, 0.02, chance.choice([RESET, HALF_CLOSE])]
    )
