"""Malformed push sessions: WebSocket frames that lie, and messages that are none."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from tests.hostile.catalogue import Catalogue
from tests.hostile.exchange import ANSWERED, HALF_CLOSE, RESET, Attack, Outcome, Step

FRAMES = Catalogue()
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
IN_ORDER = {1000, 1001, 1002, 1003, 1007, 1008, 1009}
"""How the coordinator may close a session with a client that misbehaves; 1011 would be its own fault."""


def handshake(*headers: bytes, protocol: bytes = b"lineshaft.v1") -> bytes:
    """Return the request that opens a session."""
    lines = [
        b"GET /_tasks/_session HTTP/1.1",
        b"Host: localhost",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Protocol: " + protocol,
    ]
    return b"\r\n".join([*lines, *headers, b"", b""])


def frame(
    opcode: int, data: bytes, *, end: bool = True, reserved: int = 0, length: int | None = None
) -> bytes:
    """Return a masked frame; `length` is what it says of its data where that is not true."""
    said = len(data) if length is None else length
    first = (0x80 if end else 0) | reserved << 4 | opcode
    if said < 126:
        head = struct.pack("!BB", first, 0x80 | said)
    elif said < 1 << 16:
        head = struct.pack("!BBH", first, 0xFE, said)
    else:
        head = struct.pack("!BBQ", first, 0xFF, said)
    return head + b"\x00\x00\x00\x00" + data


def message(type: str, body: Any = None, **more: Any) -> bytes:
    """Return a message in a frame."""
    return frame(TEXT, json.dumps({"type": type, "id": 1, "body": body} | more).encode())


HELLO = message("hello", {"worker": {"id": "w"}, "queues": ["nobody"]})  # none of the good client's
GOODBYE = frame(CLOSE, struct.pack("!H", 1000))


def after_hello(*steps: Step) -> Attack:
    """Return an attack that begins like an honest worker."""
    return Attack([handshake(), ANSWERED, HELLO, *steps])


def maybe_greeted(chance: random.Random, *steps: Step) -> Attack:
    """Return an attack that may begin before the hello or after it."""
    return after_hello(*steps) if chance.random() < 0.5 else Attack([handshake(), ANSWERED, *steps])


@FRAMES.kind
def handshakes_that_are_none(chance: random.Random) -> Attack:
    good = handshake()
    bad = [
        good.replace(b"Version: 13", b"Version: 8"),
        good.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        good.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
        good.replace(b"lineshaft.v1", b"chat"),
        good.replace(b"/_tasks/_session", b"/_tasks"),
        good.replace(b"/_tasks/_session", b"/nothing"),
        good.replace(b"Host: localhost", b"Host: evil.example"),
        good.replace(b"GET", b"POST"),
        handshake(b"Origin: http://evil.example"),
        handshake(b"Content-Length: 5") + b"hello",
        handshake(b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"),
    ]
    return Attack([chance.choice(bad), 0.01, HALF_CLOSE])


@FRAMES.kind
def nothing_after_the_handshake(chance: random.Random) -> Attack:
    return Attack([handshake()])


@FRAMES.kind
def half_a_frame(chance: random.Random) -> Attack:
    return maybe_greeted(chance, HELLO[: chance.randrange(1, len(HELLO))])


@FRAMES.kind
def half_a_frame_and_gone(chance: random.Random) -> Attack:
    return maybe_greeted(chance, HELLO[: chance.randrange(1, len(HELLO))], chance.choice([RESET, HALF_CLOSE]))


@FRAMES.kind
def reserved_bits(chance: random.Random) -> Attack:
    return maybe_greeted(chance, frame(TEXT, b"{}", reserved=chance.randrange(1, 8)))


@FRAMES.kind
def unmasked(chance: random.Random) -> Attack:
    return maybe_greeted(chance, b"\x81\x02{}")


@FRAMES.kind
def unknown_opcodes(chance: random.Random) -> Attack:
    return maybe_greeted(chance, frame(chance.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), b"x"))


@FRAMES.kind
def lengths_that_lie(chance: random.Random) -> Attack:
    length = chance.choice([3, 200, 70_000, 1 << 30, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
    return maybe_greeted(chance, frame(TEXT, b"{}", length=length))


@FRAMES.kind
def lengths_spelled_too_long(chance: random.Random) -> Attack:
    return maybe_greeted(chance, struct.pack("!BBQ", 0x81, 0xFF, 2) + b"\x00\x00\x00\x00{}", GOODBYE)


@FRAMES.kind
def control_frames_in_pieces(chance: random.Random) -> Attack:
    opcode = chance.choice([CLOSE, PING, PONG])
    return maybe_greeted(chance, frame(opcode, b"", end=False))


@FRAMES.kind
def control_frames_too_long(chance: random.Random) -> Attack:
    return maybe_greeted(chance, frame(chance.choice([CLOSE, PING, PONG]), b"x" * 126))


@FRAMES.kind
def pieces_out_of_order(chance: random.Random) -> Attack:
    odd = [frame(0, b"x"), frame(TEXT, b"{", end=False) + frame(TEXT, b"}")]
    return maybe_greeted(chance, chance.choice(odd))


@FRAMES.kind
def pieces_without_end(chance: random.Random) -> Attack:
    piece = frame(0, b" " * 60_000, end=False)
    return maybe_greeted(chance, frame(TEXT, b" ", end=False), *[piece] * 60)


@FRAMES.kind
def text_that_is_none(chance: random.Random) -> Attack:
    text = chance.choice([b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80"])
    return maybe_greeted(chance, frame(TEXT, text), GOODBYE)


@FRAMES.kind
def close_codes_out_of_range(chance: random.Random) -> Attack:
    code = chance.choice([0, 1, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
    data = b"\x03" if chance.random() < 0.2 else struct.pack("!H", code) + b"\xff" * chance.choice([0, 1])
    return maybe_greeted(chance, frame(CLOSE, data))


@FRAMES.kind
def messages_before_hello(chance: random.Random) -> Attack:
    first = chance.choice(
        [message("credit", {"max": 5}), message("report", {"items": []}), message("complete")]
    )
    return Attack([handshake(), ANSWERED, first])


@FRAMES.kind
def hellos_that_are_none(chance: random.Random) -> Attack:
    bodies = [
        None,
        {},
        [],
        5,
        {"worker": 5},
        {"worker": {"id": ""}},
        {"worker": {"id": "x" * 300}},
        {"colour": 1},
        {"worker": {"id": "w"}, "holding": ["x"] * 20_000},
        {"worker": {"id": "\x00"}},
    ]
    return Attack([handshake(), ANSWERED, message("hello", chance.choice(bodies)), GOODBYE])


@FRAMES.kind
def unknown_messages(chance: random.Random) -> Attack:
    types = [
        "",
        "x" * 10_000,
        "hello",
        "welcome",
        "tasks",
        'a"b',
        "complete\\",
        "\u0000",
        "report",
        "credit",
        "start",
    ]
    bodies: list[Any] = [None, [], {}, {"items": [5]}, {"max": -1}, {"max": 10**30}, {"task_id": 5}, "x"]
    sent = [message(chance.choice(types), chance.choice(bodies)) for _ in range(20)]
    return after_hello(b"".join(sent), GOODBYE)


@FRAMES.kind
def messages_that_are_no_json(chance: random.Random) -> Attack:
    texts = [
        b"",
        b"[" * 10_000,
        b'{"type":"x","id":1e999}',
        b'{"type":"credit","type":"credit"}',
        b"nul",
        b"5",
        b'{"type":"complete","body":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"type":"report","body":NaN}',
        b'{"type":"credit","body":{"max":"\\ud800"}}',
        b'{"id":{"a":1},"type":"x"}',
        b"\x00",
    ]
    opcode = chance.choice([TEXT, TEXT, BINARY])
    return after_hello(b"".join(frame(opcode, chance.choice(texts)) for _ in range(10)), GOODBYE)


@FRAMES.kind
def floods_of_pings(chance: random.Random) -> Attack:
    return maybe_greeted(chance, frame(PING, b"x" * 125) * chance.choice([100, 5_000]), GOODBYE)


@FRAMES.kind
def floods_of_messages(chance: random.Random) -> Attack:
    return after_hello(
        message("credit", {"max": 0}) * 1_000,
        message("heartbeat", {"task_id": "a", "lease_token": "b"}) * 300,
        GOODBYE,
    )


@FRAMES.kind
def messages_too_large(chance: random.Random) -> Attack:
    return maybe_greeted(chance, frame(TEXT, b'"' + b"x" * ((2 << 20) + 10) + b'"'))


@FRAMES.kind
def bombs(chance: random.Random) -> Attack:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(b" " * (64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    offer = handshake(b"Sec-WebSocket-Extensions: permessage-deflate")
    return Attack([offer, ANSWERED, frame(TEXT, bomb[:-4], reserved=4)])


@FRAMES.kind
def corrupt_compression(chance: random.Random) -> Attack:
    offer = handshake(b"Sec-WebSocket-Extensions: permessage-deflate")
    return Attack([offer, ANSWERED, frame(TEXT, chance.randbytes(100), reserved=4)])


@FRAMES.kind
def noise_for_frames(chance: random.Random) -> Attack:
    return maybe_greeted(chance, chance.randbytes(chance.randrange(1, 2_000)))


@FRAMES.kind
def frames_before_the_handshake_is_answered(chance: random.Random) -> Attack:
    return Attack([handshake() + HELLO + message("credit", {"max": 3}) + GOODBYE])


def judge_frames(outcome: Outcome) -> int | None:
    """Note what is wrong with what a session was told; return the code that it was closed with."""
    _, _, rest = outcome.received.partition(b"\r\n\r\n")
    code = None
    for opcode, data in _frames(rest):
        if opcode == CLOSE:
            code = struct.unpack("!H", data[:2])[0] if data else 1000
            if code not in IN_ORDER and data[2:] != b"keepalive ping timeout":
                outcome.problems.append(f"closed with {code} {data[2:]!r}")
        elif opcode == TEXT:
            told = json.loads(data)
            if told["type"] == "error" and told["body"]["error"]["type"] in ("internal", "unavailable"):
                outcome.problems.append(f"told {told}")
    return code


def _frames(rest: bytes) -> Iterator[tuple[int, bytes]]:
    while len(rest) >= 2:
        size, at = rest[1] & 0x7F, 2
        if size == 126:
            size, at = struct.unpack("!H", rest[2:4])[0], 4
        elif size == 127:
            size, at = struct.unpack("!Q", rest[2:10])[0], 10
        yield rest[0] & 0x0F, rest[at : at + size]
        rest = rest[at + size :]
