"""The catalogue of malformed HTTP: one function a kind, each drawing its details from a seeded generator.

Where a kind tries to get a request past the coordinator that nobody has sent, the request would enqueue a
task of the name `smuggled`: such a task must never be found.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator

from tests.hostile.exchange import HALF_CLOSE, RESET, Attack, Kind, Step
from tests.hostile.target import LIMITS

KINDS: dict[str, Kind] = {}
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
PATHS = (
    "/_tasks",
    "/_tasks/_bulk",
    "/_tasks/_claim",
    "/_tasks/_report",
    "/_tasks/a/_complete",
    "/_tasks/_search",
)


def kind(function: Kind) -> Kind:
    """Enter a kind into the catalogue."""
    KINDS[function.__name__] = function
    return function


def attacks(kinds: dict[str, Kind], seed: int, count: int) -> Iterator[Attack]:
    """Yield attacks, every kind in turn; the same for the same seed."""
    names = sorted(kinds)
    for number in range(count):
        name = names[number % len(names)]
        attack = kinds[name](random.Random(f"{seed}/{number}"))
        attack.kind, attack.number = name, number
        yield attack


def post(path: str, body: bytes, *headers: bytes, length: bytes | None = None) -> bytes:
    """Return a request; `length` is what it says of its body where that is not true."""
    size = b"%d" % len(body) if length is None else length
    lines = [
        b"POST %s HTTP/1.1" % path.encode(),
        b"Host: localhost",
        JSON.strip(),
        b"Content-Length: " + size,
    ]
    return b"\r\n".join([*lines, *headers, b"", b""]) + body


def enqueue(name: str = "hostile") -> bytes:
    """Return a good request, delayed for good so that it runs into nobody's way."""
    return post("/_tasks", json.dumps({"name": name, "queue": name, "delay": "7d"}).encode())


SMUGGLED = enqueue("smuggled")


def drip(data: bytes, pause: float = 0.05) -> list[Step]:
    """Return steps that send byte by byte, slower than is taken."""
    return [step for byte in data[:60] for step in (bytes([byte]), pause)]


# -- too little, too slowly --------------------------------------------------------------------------


@kind
def half_a_head(chance: random.Random) -> Attack:
    return Attack([enqueue()[: chance.randrange(1, 60)]], refused=True)


@kind
def half_a_body(chance: random.Random) -> Attack:
    return Attack([enqueue()[: -chance.randrange(1, 30)]], refused=True)


@kind
def half_and_no_more(chance: random.Random) -> Attack:
    whole = enqueue()
    return Attack([whole[: chance.randrange(1, len(whole))], HALF_CLOSE], refused=True)


@kind
def a_slow_head(chance: random.Random) -> Attack:
    return Attack(drip(enqueue()), refused=True)


@kind
def a_slow_body(chance: random.Random) -> Attack:
    head, _, body = enqueue().partition(b"\r\n\r\n")
    return Attack([head + b"\r\n\r\n", *drip(body)], refused=True)


@kind
def a_slow_chunked_body(chance: random.Random) -> Attack:
    head = chunked(chance.choice(PATHS))
    return Attack([head, *drip(b"1\r\n[\r\n" * 10)], refused=True)


@kind
def empty_lines(chance: random.Random) -> Attack:
    return Attack([b"\r\n" * chance.randrange(1, 3000), 0.01, chance.choice([b"", GET])])


@kind
def reset_in_the_middle(chance: random.Random) -> Attack:
    whole = chance.choice([enqueue(), GET, post("/_tasks/_claim", b'{"wait":"10s"}'), b""])
    return Attack([whole[: chance.randrange(len(whole) + 1)], chance.choice([0.0, 0.02]), RESET])


# -- pipelines and smuggling -------------------------------------------------------------------------


@kind
def garbage_after_a_request(chance: random.Random) -> Attack:
    return Attack([GET + chance.randbytes(chance.randrange(1, 500))])


@kind
def garbage_between_requests(chance: random.Random) -> Attack:
    parts = [chance.choice([GET, enqueue()]) for _ in range(chance.randrange(2, 20))]
    parts.insert(chance.randrange(1, len(parts)), chance.randbytes(chance.randrange(1, 50)) + b"\r\n\r\n")
    return Attack([b"".join(parts)])


@kind
def many_at_once(chance: random.Random) -> Attack:
    return Attack([GET * chance.randrange(50, 300), HALF_CLOSE])


def chunked(path: str, *headers: bytes) -> bytes:
    """Return the head of a request whose body comes in chunks."""
    lines = [b"POST %s HTTP/1.1" % path.encode(), b"Host: localhost", JSON.strip()]
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", *headers, b"", b""])


@kind
def length_and_chunks(chance: random.Random) -> Attack:
    head = chunked("/_tasks", b"Content-Length: %d" % chance.choice([0, 4, 5, 100]))
    if chance.random() < 0.5:
        head = head.replace(b"Transfer-Encoding: chunked\r\n", b"").replace(
            b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
    return Attack([head + b"0\r\n\r\n" + SMUGGLED], refused=True)


@kind
def two_lengths(chance: random.Random) -> Attack:
    first, second = chance.sample([b"0", b"2", b"12", b"00", b"2, 2", b"2,12"], 2)
    return Attack(
        [post("/_tasks", b"{}", b"Content-Length: " + second, length=first) + SMUGGLED], refused=True
    )


@kind
def odd_lengths(chance: random.Random) -> Attack:
    odd = [
        b"+2",
        b"-2",
        b"0x2",
        b"2_0",
        b"2 2",
        b"",
        b"two",
        b"\x0b2",
        b"2;",
        b"9" * 30,
        b"18446744073709551616",
    ]
    return Attack([post("/_tasks", b"{}", length=chance.choice(odd)) + SMUGGLED], refused=True)


@kind
def odd_transfer_encodings(chance: random.Random) -> Attack:
    odd = [
        b"xchunked",
        b"chunked, identity",
        b"identity",
        b"gzip, chunked, chunked",
        b"\x0bchunked",
        b"chunked\x00",
        b'"chunked"',
        b"chunke",
        b"cow",
        b"gzip",
    ]
    head = chunked("/_tasks").replace(b"chunked", chance.choice(odd))
    return Attack([head + b"0\r\n\r\n" + SMUGGLED], refused=True)


@kind
def odd_header_lines(chance: random.Random) -> Attack:
    odd = [
        b"Transfer-Encoding : chunked",
        b" Transfer-Encoding: chunked",
        b"X: a\r\n folded",
        b"X: a\x00b",
        b"X\x00: a",
        b": nothing",
        b"no colon",
        b"X: a\rY: b",
        b"Content-Length\t: 2",
        b"X: \x7f\x01",
        b"\x80\x81: x",
    ]
    return Attack([post("/_tasks", b"{}", chance.choice(odd)) + SMUGGLED], refused=True)


@kind
def bare_line_feeds(chance: random.Random) -> Attack:
    return Attack([enqueue().replace(b"\r\n", b"\n", chance.randrange(1, 6)) + GET])


@kind
def lies_about_chunks(chance: random.Random) -> Attack:
    body = b'{"name":"smuggled"}'
    size = chance.choice(
        [
            b"1",
            b"2",
            b"ffff",
            b"-1",
            b"0x13",
            b"ffffffffffffffff",
            b"10000000000000000",
            b"",
            b"g",
            b"13 ",
            b"13\t;x",
            b"1" * 40,
        ]
    )
    end = chance.choice([b"\r\n0\r\n\r\n", b"0\r\n\r\n", b"\n0\n\n", b"\r\n00000", b"XX0\r\n\r\n"])
    size = b"2" if (size, end) == (b"13 ", b"\r\n0\r\n\r\n") else size
    return Attack([chunked("/_tasks") + size + b"\r\n" + body + end], refused=True)


@kind
def long_chunk_extensions(chance: random.Random) -> Attack:
    extension = b";" + b"x" * chance.choice([100, 20_000, 200_000])
    return Attack(
        [chunked("/_tasks") + b"1" + extension + b"\r\n[\r\n" + b"0" + extension + b"\r\n\r\n"], refused=True
    )


@kind
def trailers(chance: random.Random) -> Attack:
    lines = (
        b"X: y\r\n" * chance.choice([1, 100, 20_000]) + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    )
    return Attack([chunked("/_tasks") + b"2\r\n{}\r\n0\r\n" + lines + b"\r\n" + GET])


@kind
def one_changed_request(chance: random.Random) -> Attack:
    whole = bytearray(
        chance.choice(
            [enqueue(), GET, SMUGGLED.replace(b"smuggled", b"mutated0"), post("/_tasks/_claim", b"{}")]
        )
    )
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(whole))
        match chance.randrange(4):
            case 0:
                whole[at] = chance.randrange(256)
            case 1:
                del whole[at : at + chance.randrange(1, 8)]
            case 2:
                whole[at:at] = chance.randbytes(chance.randrange(1, 8))
            case _:
                whole[at:at] = whole[at : at + chance.randrange(1, 40)]
        whole = whole or bytearray(b"\r")
    return Attack([bytes(whole)])


# -- too much ----------------------------------------------------------------------------------------


@kind
def a_gigabyte_announced(chance: random.Random) -> Attack:
    body = b"" if chance.random() < 0.5 else b"[" * 1000
    return Attack([post(chance.choice(PATHS), body, length=b"%d" % (1 << 30))], refused=True)


@kind
def more_than_is_read(chance: random.Random) -> Attack:
    size = chance.choice([LIMITS["batch"] + 1, LIMITS["batch"] + (1 << 20)])
    return Attack([post(chance.choice(PATHS), b'"' + b"x" * (int(size) - 2) + b'"')], refused=True)


@kind
def chunks_without_end(chance: random.Random) -> Attack:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    return Attack([chunked(chance.choice(PATHS)), *[chunk] * (chance.choice([20, 60]))], refused=True)


@kind
def huge_headers(chance: random.Random) -> Attack:
    size = chance.choice([33_000, 70_000, 1_000_000])
    headers = [b"X: " + b"x" * size] if chance.random() < 0.5 else [b"X%d: y" % n for n in range(size // 8)]
    return Attack([post("/_tasks", b"{}", *headers) + SMUGGLED], refused=True)


@kind
def huge_headers_without_end(chance: random.Random) -> Attack:
    return Attack([b"GET / HTTP/1.1\r\nX: ", *[b"x" * 10_000] * 40], refused=True)


@kind
def huge_targets(chance: random.Random) -> Attack:
    path = chance.choice([b"/_tasks/" + b"a" * 40_000, b"/?" + b"a=b&" * 20_000, b"/" * 200_000])
    return Attack([b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"], refused=True)


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


@kind
def bodies_that_are_no_json(chance: random.Random) -> Attack:
    return Attack([post("/_tasks", chance.choice(BODIES))], refused=True)


@kind
def bad_items_of_batches(chance: random.Random) -> Attack:
    body = chance.choice(BODIES)
    if chance.random() < 0.5:
        return Attack([post("/_tasks/_bulk", b"[" + body + b"]")])
    return Attack([post("/_tasks/_report", b'{"items":[' + body + b"]}")])


@kind
def bad_lines_of_batches(chance: random.Random) -> Attack:
    lines = b"\n".join(chance.sample(BODIES, 5))
    return Attack([post("/_tasks/_bulk", lines).replace(b"application/json", b"application/x-ndjson")])


@kind
def bodies_for_other_calls(chance: random.Random) -> Attack:
    return Attack([post(chance.choice(PATHS[2:]), chance.choice(BODIES))], refused=True)


@kind
def compressed_bodies(chance: random.Random) -> Attack:
    bomb = gzip.compress(b" " * (1 << 20))
    return Attack([post("/_tasks", bomb, b"Content-Encoding: gzip")], refused=True)


# -- other languages ---------------------------------------------------------------------------------


@kind
def unknown_methods(chance: random.Random) -> Attack:
    method = chance.choice(
        [b"BREW", b"get", b"PROPFIND", b"TRACE", b"G\x00T", b"M" * 5_000, b"", b"GET GET", b"QUERY"]
    )
    return Attack([method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n"], refused=True)


@kind
def other_versions(chance: random.Random) -> Attack:
    version = chance.choice(
        [b" HTTP/2.0", b" HTTP/3", b" HTTP/1.1.1", b" HTTP/11", b" ICY/1.0", b" http/1.1"]
    )
    return Attack([b"GET /" + version + b"\r\nHost: localhost\r\n\r\n"])


@kind
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


@kind
def noise(chance: random.Random) -> Attack:
    return Attack([chance.randbytes(chance.randrange(1, 3_000))])


@kind
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


@kind
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


@kind
def upgrades_that_are_none(chance: random.Random) -> Attack:
    offer = chance.choice([b"h2c", b"websocket", b"TLS/1.0", b"h2c, websocket"])
    lines = b"Connection: Upgrade\r\nUpgrade: " + offer + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    path = chance.choice([b"/", b"/_tasks/_session", b"/_stats"])
    return Attack([b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n", 0.01, GET])


@kind
def expectations(chance: random.Random) -> Attack:
    return Attack(
        [post("/_tasks", b"", b"Expect: " + chance.choice([b"100-continue", b"tea"]), length=b"20")],
        refused=False,
    )


@kind
def event_streams_gone_wrong(chance: random.Random) -> Attack:
    cursor = chance.choice([b"", b"0", b"-1", b"\xff", b"9" * 400, b"' or 1=1", b"AAAA"])
    head = b"GET /_tasks/_changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
    with_cursor = head + b"Last-Event-ID: " + cursor + b"\r\n\r\n"
    after = chance.choice([chance.randbytes(200), GET, b"", b"\r\n" * 100])
    return Attack(
        [chance.choice([with_cursor, head + b"\r\n"]), 0.02, after, 0.02, chance.choice([RESET, HALF_CLOSE])]
    )
