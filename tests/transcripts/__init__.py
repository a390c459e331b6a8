"""Golden exchanges of the protocol, and a runner for them that takes only a URL; see README.md."""

from __future__ import annotations
