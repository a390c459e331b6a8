"""What a check of `lineshaft doctor` found, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "warning", "trouble"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one check found; `todo` says what to do where it is not ok."""

    check: str
    status: Status
    found: str
    todo: str | None = None


def ok(check: str, found: str) -> Finding:
    """Return a finding that needs nothing done."""
    return Finding(check=check, status="ok", found=found)


def warning(check: str, found: str, todo: str) -> Finding:
    """Return a finding that may become a trouble."""
    return Finding(check=check, status="warning", found=found, todo=todo)


def trouble(check: str, found: str, todo: str) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(check=check, status="trouble", found=found, todo=todo)
