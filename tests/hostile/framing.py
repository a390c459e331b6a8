"""HTTP that is framed wrongly: too little, too slowly, two requests for one, more than is read."""

from __future__ import annotations

import random

from tests.hostile.catalogue import Catalogue
from tests.hostile.exchange import HALF_CLOSE, RESET, Attack
from tests.hostile.requests import CLAIM, GET, PATHS, SMUGGLED, chunked, drip, enqueue, post
from tests.hostile.target import LIMITS

FRAMING = Catalogue()

# -- too little, too slowly --------------------------------------------------------------------------


@FRAMING.kind
def half_a_head(chance: random.Random) -> Attack:
    return Attack([enqueue()[: chance.randrange(1, 60)]], refused=True)


@FRAMING.kind
def half_a_body(chance: random.Random) -> Attack:
    return Attack([enqueue()[: -chance.randrange(1, 30)]], refused=True)


@FRAMING.kind
def half_and_no_more(chance: random.Random) -> Attack:
    whole = enqueue()
    return Attack([whole[: chance.randrange(1, len(whole))], HALF_CLOSE], refused=True)


@FRAMING.kind
def a_slow_head(chance: random.Random) -> Attack:
    return Attack(drip(enqueue()), refused=True)


@FRAMING.kind
def a_slow_body(chance: random.Random) -> Attack:
    head, _, body = enqueue().partition(b"\r\n\r\n")
    return Attack([head + b"\r\n\r\n", *drip(body)], refused=True)


@FRAMING.kind
def a_slow_chunked_body(chance: random.Random) -> Attack:
    head = chunked(chance.choice(PATHS))
    return Attack([head, *drip(b"1\r\n[\r\n" * 10)], refused=True)


@FRAMING.kind
def empty_lines(chance: random.Random) -> Attack:
    return Attack([b"\r\n" * chance.randrange(1, 3000), 0.01, chance.choice([b"", GET])])


@FRAMING.kind
def reset_in_the_middle(chance: random.Random) -> Attack:
    whole = chance.choice([enqueue(), GET, CLAIM, b""])
    return Attack([whole[: chance.randrange(len(whole) + 1)], chance.choice([0.0, 0.02]), RESET])


# -- pipelines and smuggling -------------------------------------------------------------------------


@FRAMING.kind
def garbage_after_a_request(chance: random.Random) -> Attack:
    return Attack([GET + chance.randbytes(chance.randrange(1, 500))])


@FRAMING.kind
def garbage_between_requests(chance: random.Random) -> Attack:
    parts = [chance.choice([GET, enqueue()]) for _ in range(chance.randrange(2, 20))]
    parts.insert(chance.randrange(1, len(parts)), chance.randbytes(chance.randrange(1, 50)) + b"\r\n\r\n")
    return Attack([b"".join(parts)])


@FRAMING.kind
def many_at_once(chance: random.Random) -> Attack:
    return Attack([GET * chance.randrange(50, 300), HALF_CLOSE])


@FRAMING.kind
def length_and_chunks(chance: random.Random) -> Attack:
    head = chunked("/_tasks", b"Content-Length: %d" % chance.choice([0, 4, 5, 100]))
    if chance.random() < 0.5:
        head = head.replace(b"Transfer-Encoding: chunked\r\n", b"").replace(
            b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
    return Attack([head + b"0\r\n\r\n" + SMUGGLED], refused=True)


@FRAMING.kind
def two_lengths(chance: random.Random) -> Attack:
    first, second = chance.sample([b"0", b"2", b"12", b"00", b"2, 2", b"2,12"], 2)
    return Attack(
        [post("/_tasks", b"{}", b"Content-Length: " + second, length=first) + SMUGGLED], refused=True
    )


@FRAMING.kind
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


@FRAMING.kind
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


@FRAMING.kind
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


@FRAMING.kind
def bare_line_feeds(chance: random.Random) -> Attack:
    return Attack([enqueue().replace(b"\r\n", b"\n", chance.randrange(1, 6)) + GET])


@FRAMING.kind
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


@FRAMING.kind
def long_chunk_extensions(chance: random.Random) -> Attack:
    extension = b";" + b"x" * chance.choice([100, 20_000, 200_000])
    return Attack(
        [chunked("/_tasks") + b"1" + extension + b"\r\n[\r\n" + b"0" + extension + b"\r\n\r\n"], refused=True
    )


@FRAMING.kind
def trailers(chance: random.Random) -> Attack:
    lines = (
        b"X: y\r\n" * chance.choice([1, 100, 20_000]) + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    )
    return Attack([chunked("/_tasks") + b"2\r\n{}\r\n0\r\n" + lines + b"\r\n" + GET])


@FRAMING.kind
def one_changed_request(chance: random.Random) -> Attack:
    claim = CLAIM.replace(b'"wait":"10s"', b'"wait": "2s"')  # a change may leave it a good one, which waits
    whole = bytearray(chance.choice([enqueue(), GET, SMUGGLED.replace(b"smuggled", b"mutated0"), claim]))
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


@FRAMING.kind
def a_gigabyte_announced(chance: random.Random) -> Attack:
    body = b"" if chance.random() < 0.5 else b"[" * 1000
    return Attack([post(chance.choice(PATHS), body, length=b"%d" % (1 << 30))], refused=True)


@FRAMING.kind
def more_than_is_read(chance: random.Random) -> Attack:
    size = chance.choice([LIMITS["batch"] + 1, LIMITS["batch"] + (1 << 20)])
    return Attack([post(chance.choice(PATHS), b'"' + b"x" * (int(size) - 2) + b'"')], refused=True)


@FRAMING.kind
def chunks_without_end(chance: random.Random) -> Attack:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    return Attack([chunked(chance.choice(PATHS)), *[chunk] * (chance.choice([20, 60]))], refused=True)


@FRAMING.kind
def huge_headers(chance: random.Random) -> Attack:
    size = chance.choice([33_000, 70_000, 1_000_000])
    headers = [b"X: " + b"x" * size] if chance.random() < 0.5 else [b"X%d: y" % n for n in range(size // 8)]
    return Attack([post("/_tasks", b"{}", *headers) + SMUGGLED], refused=True)


@FRAMING.kind
def huge_headers_without_end(chance: random.Random) -> Attack:
    return Attack([b"GET / HTTP/1.1\r\nX: ", *[b"x" * 10_000] * 40], refused=True)


@FRAMING.kind
def huge_targets(chance: random.Random) -> Attack:
    path = chance.choice([b"/_tasks/" + b"a" * 40_000, b"/?" + b"a=b&" * 20_000, b"/" * 200_000])
    return Attack([b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"], refused=True)
