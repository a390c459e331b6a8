"""The number by which a task's id is looked up: an index of eight bytes instead of texts of up to 256.

Ids that the SDK and the coordinator make begin with their time, so their numbers lie side by side in the
order in which they come. Two ids may have one number: whoever looks up compares the ids of the rows found.
"""

from __future__ import annotations

from hashlib import blake2b

_TIMED_LENGTH = 26
_CHANCE_BITS = 56
_LOW_BITS = 22
_LOW = (1 << _LOW_BITS) - 1
_LATEST = 1 << 41  # a time of the year 2039, up to which it fits


def key_of(tenant: str, id: str) -> int:
    """Return the number of a tenant's id, of 64 bits and a sign."""
    if len(id) == _TIMED_LENGTH:
        try:
            number = int(id, 16)
        except ValueError:
            number = 0
        time = number >> _CHANCE_BITS
        if 0 < time < _LATEST:
            return time << _LOW_BITS | (number ^ number >> _LOW_BITS) & _LOW
    raw = blake2b(f"{tenant}\0{id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return -1 - (int.from_bytes(raw, "big") >> 1)
