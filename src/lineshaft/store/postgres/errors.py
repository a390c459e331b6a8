"""What an error of PostgreSQL, or of the way to it, means for whoever asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psycopg

from lineshaft.errors import Fenced, LineshaftError, Unavailable
from lineshaft.store.base import Rejected, StoreCorrupt, StoreUnusable

FENCED = "LS001"

_ADVICE = {
    "25006": "This is a standby or a read-only server: it is tried again; name the primary, or several hosts "
    "and target_session_attrs=read-write",
    "28": "The server refuses this user: check the user, the password and pg_hba.conf",
    "3D": "Make the database (createdb), or name another",
    "42501": "The role may not do this: grant it what docs/postgresql.md lists",
    "3F": "The schema of the store is missing: run lineshaft migrate STORE-URL",
    "42P01": "A table of the store is missing: run lineshaft migrate STORE-URL",
    "42883": "A function of the store is missing: run lineshaft migrate STORE-URL",
    "53100": "Free some space on the server's disk: it goes on by itself, and nothing acknowledged is lost",
    "53200": "The server is out of memory: it is tried again",
    "53300": "Raise max_connections of the server, or put a pooler before it: it is tried again",
    "53": "The server lacks resources: it is tried again",
    "57P01": "The server is being shut down: it is tried again",
    "57P02": "The server recovers from a crash: it is tried again",
    "57P03": "The server starts up or recovers: it is tried again",
    "57014": "A statement was cancelled or ran into statement_timeout: raise the timeout for this role",
    "55P03": "Something holds a lock for long: end it, it is tried again",
    "40": "It is tried again",
    "58": "Look into the server's log for what is wrong with its disk: it is tried again",
    "XX": "Look into the server's log",
}
"""By SQLSTATE or its class."""

_AT_START = ("28", "3D", "42", "3F", "08P01", "0A")
"""Errors of `open` that do not pass by themselves."""

_UNMAPPABLE = ("22", "23", "54")
"""Classes that tell of the data: they will not be stored at another time either."""

_RECOVERY = "restore a backup of the database"


@contextmanager
def translated(url: str, *, opening: bool = False, writing: bool = False) -> Iterator[None]:
    """Raise errors of psycopg as ours; what no other fits is `Unavailable`: the outcome is unknown."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(url, error, opening=opening, writing=writing) from error
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"a row of {url} cannot be read ({error}): {_RECOVERY}") from error


def translate(
    url: str, error: psycopg.Error, *, opening: bool = False, writing: bool = False
) -> LineshaftError:
    """Return what an error means; `writing` where data of ours could be at fault."""
    state = error.sqlstate or ""
    said = " ".join(str(error.diag.message_primary or error).split())
    if state == FENCED:
        return Fenced(said)
    what = f"{url}: {said}" + (f" ({state})" if state else "")
    if writing and (state.startswith(_UNMAPPABLE) or isinstance(error, psycopg.DataError)):
        return Rejected(what)
    advice = _advice(state, said)
    told = f"{what.rstrip('.?')}. {advice}" if advice else what
    if opening and (state.startswith(_AT_START) or (not state and _refuses(said))):
        return StoreUnusable(told)
    return Unavailable(told, retry_after=1)


def _advice(state: str, said: str) -> str | None:
    for key in (state, state[:2]):
        if key and key in _ADVICE:
            return _ADVICE[key]
    if not state:
        # While connecting libpq tells no SQLSTATE, only the server's words.
        words = {
            "starting up": "57P03",
            "recovery": "57P03",
            "shutting down": "57P01",
            "too many clients": "53300",
            "remaining connection slots": "53300",
            "password": "28",
            "pg_hba.conf": "28",
            'role "': "28",
            "does not exist": "3D",
        }
        for word, key in words.items():
            if word in said:
                return _ADVICE[key]
        return "Check that the server runs and can be reached: it is tried again"
    return None


def _refuses(said: str) -> bool:
    return any(word in said for word in ("password", "pg_hba.conf", "does not exist", "no pg_hba"))
