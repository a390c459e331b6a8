"""Where the database is and how it is used: the URL of the store, taken apart.

What libpq knows goes to libpq (hosts, TLS, time-outs); what is ours is taken out before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lineshaft.errors import Invalid

SYNCHRONOUS = ("on", "off", "local", "remote_write", "remote_apply")
MAX_SHARDS = 1024
DEFAULT_SHARDS = 16
DEFAULT_SCHEMA = "lineshaft"
OURS = ("schema", "shards", "synchronous_commit", "listen")

_SCHEMA = re.compile("[a-z_][a-z0-9_]{0,47}")
_SECRETS = (
    "password",
    "sslpassword",
    "passfile",
    "sslkey",
    "scram_client_key",
    "scram_server_key",
    "oauth_client_secret",
)

_DEFAULTS = {
    "application_name": "lineshaft",
    "connect_timeout": "5",
    # A peer that has gone without a word is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A database and a schema in it, and the choices made in the URL."""

    url: str
    """Without secrets."""
    conninfo: str
    """For libpq, with all secrets."""
    schema: str = DEFAULT_SCHEMA
    shards: int | None = None
    """None where nothing was said: what the store has, or 16."""
    synchronous_commit: str | None = None
    """None where nothing was said: what the server has."""
    listen: str | None = None
    """For libpq: where notifications are heard, if not by `conninfo`."""


def read_address(url: str, options: Mapping[str, str]) -> Address:
    """Read a URL without its query, and the options of the query. Raises `Invalid` that names the culprit."""
    place = url.partition("://")[2]
    given = {name: value for name, value in options.items() if name not in OURS}
    shards, schema = options.get("shards"), options.get("schema", DEFAULT_SCHEMA)
    synchronous = options.get("synchronous_commit")
    if _SCHEMA.fullmatch(schema) is None or schema.startswith("pg_"):
        raise Invalid(f"schema is up to 48 small letters, digits and _, not {schema!r}", field="schema")
    if shards is not None and not (shards.isascii() and shards.isdigit() and 1 <= int(shards) <= MAX_SHARDS):
        raise Invalid(f"shards is a number from 1 to {MAX_SHARDS}, not {shards!r}", field="shards")
    if synchronous is not None and synchronous not in SYNCHRONOUS:
        raise Invalid(
            f"synchronous_commit is {', '.join(SYNCHRONOUS[:-1])} or {SYNCHRONOUS[-1]}, not {synchronous!r}",
            field="synchronous_commit",
        )
    listen = options.get("listen")
    return Address(
        url=_shown(place, {**given, **{name: options[name] for name in OURS if name in options}}),
        conninfo=_conninfo(f"postgresql://{place}", given, place),
        schema=schema,
        shards=None if shards is None else int(shards),
        synchronous_commit=synchronous,
        listen=None if listen is None else _conninfo(listen, {}, listen.partition("://")[2], field="listen"),
    )


def _conninfo(url: str, given: Mapping[str, str], place: str, *, field: str = "store") -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise Invalid(f"{field} is the URL of a database: postgresql://…", field=field)
    try:
        told = conninfo_to_dict(make_conninfo(url, **given))
        if not told.get("dbname") and not told.get("service"):
            raise Invalid(
                f"{_shown(place, {})} names no database: postgresql://user@host/database", field=field
            )
        defaults = {name: value for name, value in _DEFAULTS.items() if name not in told}
        return make_conninfo(url, **given, **defaults, client_encoding="UTF8")
    except psycopg.Error as error:
        secret = _password(place)
        said = str(error).strip()
        said = said.replace(secret, "***") if secret else said
        raise Invalid(
            f"{_shown(place, {})} cannot be read ({said}): the options of Lineshaft are {', '.join(OURS)}, "
            "all others are those of libpq",
            field=field,
        ) from None


def _password(place: str) -> str:
    user, at, _ = place.rpartition("@")
    return user.partition(":")[2] if at else ""


def _shown(place: str, options: Mapping[str, str]) -> str:
    """Return the URL without what nobody should read over a shoulder."""
    place = place.partition("?")[0]
    user, at, rest = place.rpartition("@")
    named = user.partition(":")[0]
    shown = f"postgresql://{named}{at}{rest}" if named else f"postgresql://{rest}"
    told = [
        f"{name}={quote(value, safe='/:,@')}"
        for name, value in options.items()
        if name not in _SECRETS and name != "listen"
    ]
    return "?".join([shown, *(["&".join(told)] if told else [])])
