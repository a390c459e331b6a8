"""Who calls: API keys, their tenants and scopes.

A key reads `ls_<id>_<secret>`. Keys are rows of the system tenant that hold a digest of the secret; one that
is revoked stays as a row, so that a coordinator which once required keys never opens by losing the last one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from lineshaft.core.batch import Record
from lineshaft.core.commands import Command, PutRecord, Records
from lineshaft.errors import Forbidden, Invalid, NotFound, Unauthorized
from lineshaft.server.partitions.layout import Layout
from lineshaft.values.ids import check_name

SYSTEM_TENANT = "_system"
DEFAULT_TENANT = "default"
SCOPES = ("enqueue", "work", "read", "admin")
_KIND = "api_key"
_INVALID = "this API key is unknown or revoked"


class Identity(msgspec.Struct, frozen=True):
    """The tenant that a caller acts for, and what it may do there."""

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset(SCOPES)
    key_id: str | None = None

    def may(self, scope: str) -> bool:
        """Tell whether a scope of `a|b|…` is held; admin includes all, "" needs none."""
        return not scope or "admin" in self.scopes or not self.scopes.isdisjoint(scope.split("|"))

    def require(self, scope: str) -> None:
        """Raise `Forbidden` unless `may(scope)`."""
        if not self.may(scope):
            raise Forbidden(f"this needs a key with the scope {scope.replace('|', ' or ')}")


ANYBODY = Identity()
"""Who calls where no key was ever made: the default tenant with all scopes."""


class StoredKey(msgspec.Struct, frozen=True, array_like=True):
    """The row of a key."""

    key_id: str
    name: str
    tenant: str
    scopes: tuple[str, ...]
    digest: bytes
    created_at: int
    revoked_at: int | None = None


class Submits(Protocol):
    """The part of an engine that keys need."""

    def submit(self, command: Command) -> Awaitable[object]:
        """Apply a command and return its reply once it is durable."""


class KeyRing:
    """All API keys of a store. `load` before use.

    Only the coordinator that owns the system tenant's shard changes them; the others are told (`replace`).
    """

    def __init__(self, engine: Submits, now: Callable[[], int]) -> None:
        self._engine = engine
        self._now = now
        self._keys: dict[str, StoredKey] = {}
        self.layout = Layout(engine, system=SYSTEM_TENANT)
        """The partitions of tenants, which are learned of as keys are."""
        self.on_void: Callable[[str | None], None] = lambda key_id: None
        """Told of a key that is valid no more; of None where calls without a key are none any more."""
        self.on_change: Callable[[], Awaitable[None]] | None = None
        """Awaited when a key was made or revoked, before that is answered."""

    @property
    def required(self) -> bool:
        """Whether calls need a key: as soon as one was ever made."""
        return bool(self._keys)

    @property
    def has_admin(self) -> bool:
        """Whether somebody could make or revoke keys."""
        return any("admin" in key.scopes for key in self.list())

    async def load(self) -> None:
        """Read the keys from the store, and how many partitions tenants have."""
        await self.layout.load()
        rows = await self._engine.submit(Records(tenant=SYSTEM_TENANT, kind=_KIND))
        assert isinstance(rows, list)
        self.replace([_decode(row) for row in rows if isinstance(row, Record) and row.data is not None])

    def stored(self) -> list[StoredKey]:
        """Return all keys, those that were revoked included."""
        return list(self._keys.values())

    def replace(self, keys: Iterable[StoredKey]) -> None:
        """Know these keys and no others; end what was begun with one that is valid no more."""
        before, self._keys = self._keys, {key.key_id: key for key in keys}
        if self._keys and not before:
            self.on_void(None)
        for key_id, known in before.items():
            now = self._keys.get(key_id)
            if known.revoked_at is None and (now is None or now.revoked_at is not None):
                self.on_void(key_id)

    def identify(self, authorization: str | None) -> Identity:
        """Return who calls. Raises `Unauthorized` where a key is needed (or given) and none is valid."""
        if authorization is None:
            if self._keys:
                raise Unauthorized("send Authorization: ApiKey …")
            return ANYBODY
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "apikey":
            raise Unauthorized("expected Authorization: ApiKey …")
        prefix, _, rest = key.strip().partition("_")
        key_id, _, secret = rest.partition("_")
        stored = self._keys.get(key_id)
        matches = hmac.compare_digest(_digest(secret), b"" if stored is None else stored.digest)
        if prefix != "ls" or stored is None or not matches or stored.revoked_at is not None:
            raise Unauthorized(_INVALID)
        return Identity(stored.tenant, frozenset(stored.scopes), key_id)

    def confirm(self, identity: Identity) -> None:
        """Raise `Unauthorized` where who was identified would not be any more."""
        if identity.key_id is None:
            self.identify(None)
            return
        stored = self._keys.get(identity.key_id)
        if stored is None or stored.revoked_at is not None:
            raise Unauthorized(_INVALID)

    def confirm_told(self, identity: Identity) -> None:
        """Raise `Unauthorized` where who was identified by another coordinator has a key that is revoked.

        One that we do not know yet is new.
        """
        stored = None if identity.key_id is None else self._keys.get(identity.key_id)
        if stored is not None and stored.revoked_at is not None:
            raise Unauthorized(_INVALID)

    async def create(self, name: str, *, tenant: str, scopes: list[str]) -> tuple[StoredKey, str]:
        """Make a key and return its row and the key itself, which is nowhere else. Raises `Invalid`."""
        check_name(name, field="name")
        check_name(tenant, field="tenant")
        if tenant.startswith("_"):
            raise Invalid("tenants whose names start with _ are the coordinator's own", field="tenant")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise Invalid(f"expected one or more of {', '.join(SCOPES)}", field="scopes")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(24)
        granted = tuple(scope for scope in SCOPES if scope in scopes)
        stored = StoredKey(key_id, name, tenant, granted, _digest(secret), self._now())
        first = not self._keys
        await self._put(stored)
        if first:
            self.on_void(None)
        await self._tell()
        return stored, f"ls_{key_id}_{secret}"

    def list(self, tenant: str | None = None) -> list[StoredKey]:
        """Return the keys that are valid, the oldest first; of one tenant only if given."""
        valid = [
            key for key in self._keys.values() if key.revoked_at is None and tenant in (None, key.tenant)
        ]
        return sorted(valid, key=lambda key: (key.created_at, key.key_id))

    async def revoke(self, key_id: str, *, tenant: str | None = None) -> None:
        """Make a key invalid, from now on and for good. Raises `NotFound`."""
        stored = self._keys.get(key_id)
        if stored is None or stored.revoked_at is not None or tenant not in (None, stored.tenant):
            raise NotFound("no such API key", field="key_id")
        await self._put(msgspec.structs.replace(stored, revoked_at=self._now()))
        self.on_void(key_id)
        await self._tell()

    async def _tell(self) -> None:
        if self.on_change is not None:
            await self.on_change()

    async def _put(self, key: StoredKey) -> None:
        row = PutRecord(tenant=SYSTEM_TENANT, kind=_KIND, key=key.key_id, data=msgspec.msgpack.encode(key))
        await self._engine.submit(row)
        self._keys[key.key_id] = key


def _digest(secret: str) -> bytes:
    # The secret has 192 random bits: a slow hash would add nothing.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _decode(row: Record) -> StoredKey:
    assert row.data is not None
    return msgspec.msgpack.decode(row.data, type=StoredKey)
