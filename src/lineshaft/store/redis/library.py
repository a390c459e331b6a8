"""The functions inside the server, as a library (Redis 7, Valkey) or, where there are none, as a script.

The library's name holds a digest of its text. So coordinators of two versions use each its own, and none ever
replaces what another calls.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

VERBS: dict[str, str | None] = {
    "commit": None,
    "acquire": "allow-oom",
    "release": "allow-oom",
    "prune": "allow-oom",
    "expire": "allow-oom",
    "truncate": "allow-oom",
    "sweep_specs": "allow-oom",
    "make": "allow-oom",
    "swap_roster": "allow-oom",
    "look": "no-writes",
    "survey": "no-writes",
    "get": "no-writes",
    "read": "no-writes",
    "buckets": "no-writes",
    "walk": "no-writes",
    "digests": "no-writes",
    "log": "no-writes",
}
"""The functions in `functions.lua`, and their flags: where memory is full, commits are refused before they
begin, and whatever makes room or takes a shard over goes on."""


@cache
def source() -> str:
    """Return the text that both forms begin with."""
    return files("lineshaft.store.redis").joinpath("functions.lua").read_text()


@cache
def name() -> str:
    """Return the name of the library, and what the names of its functions begin with."""
    return f"lineshaft_{hashlib.sha256(source().encode()).hexdigest()[:12]}"


@cache
def function(verb: str) -> str:
    """Return the name of a function."""
    return f"{name()}_{verb}"


@cache
def library() -> str:
    """Return the text for FUNCTION LOAD."""
    registrations = (
        f"redis.register_function{{function_name = '{function(verb)}', callback = {verb},"
        f" flags = {{{'' if flag is None else repr(flag)}}}}}"
        for verb, flag in VERBS.items()
    )
    return "\n".join((f"#!lua name={name()}", source(), *registrations)) + "\n"


@cache
def script() -> str:
    """Return the text for EVAL; its first argument is the verb."""
    verbs = ", ".join(f"{verb} = {verb}" for verb in VERBS)
    return f"{source()}\nreturn ({{{verbs}}})[table.remove(ARGV, 1)](KEYS, ARGV)\n"


@cache
def script_digest() -> str:
    """Return what EVALSHA calls the script."""
    return hashlib.sha1(script().encode(), usedforsecurity=False).hexdigest()
