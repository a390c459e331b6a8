"""How coordinators know each other: by a secret that stands in the roster, which only they can read.

Whoever forwards a request has looked at its key already, and says in one header for whom it asks, signed.
The owner believes that, but for keys that it knows to be revoked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import TypeVar

import msgspec

from lineshaft.errors import Forbidden
from lineshaft.server.identity import Identity

_CONTEXT = b"lineshaft coordinator 1 "
Key = TypeVar("Key")
Value = TypeVar("Value")
_KNOWN = 1_000
"""Identities that are remembered; all are forgotten when there are more."""


class _Said(msgspec.Struct, array_like=True, frozen=True):
    tenant: str
    scopes: list[str]
    key_id: str | None


class Trust:
    """Signs and believes what coordinators say of those they ask for."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        """`secret` returns the secret of the roster as it is now."""
        self._secret = secret
        self._of: bytes = b""
        self._signed: dict[Identity, bytes] = {}
        self._believed: dict[bytes, Identity] = {}

    def sign(self, identity: Identity) -> bytes:
        """Return the value of the header that says for whom a request is made."""
        self._keep_up()
        known = self._signed.get(identity)
        if known is None:
            said = _Said(identity.tenant, sorted(identity.scopes), identity.key_id)
            body = base64.urlsafe_b64encode(msgspec.json.encode(said))
            known = body + b"." + self._digest(body)
            _remember(self._signed, identity, known)
        return known

    def believe(self, header: bytes) -> Identity:
        """Return for whom a request is made. Raises `Forbidden` where no coordinator has said so."""
        self._keep_up()
        known = self._believed.get(header)
        if known is None:
            known = self._read(header)
            _remember(self._believed, header, known)
        return known

    def _read(self, header: bytes) -> Identity:
        body, _, digest = header.partition(b".")
        if not hmac.compare_digest(digest, self._digest(body)):
            raise Forbidden("this was not said by a coordinator of this store")
        try:
            said = msgspec.json.decode(base64.urlsafe_b64decode(body), type=_Said)
        except (binascii.Error, msgspec.MsgspecError) as error:
            raise Forbidden(f"what a coordinator said cannot be read: {error}") from None
        return Identity(said.tenant, frozenset(said.scopes), said.key_id)

    def _digest(self, body: bytes) -> bytes:
        return hmac.new(self._of, _CONTEXT + body, hashlib.sha256).hexdigest().encode()

    def _keep_up(self) -> None:
        secret = self._secret()
        if secret != self._of:
            self._of = secret
            self._signed.clear()
            self._believed.clear()


def _remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    if len(known) >= _KNOWN:
        known.clear()
    known[key] = value
