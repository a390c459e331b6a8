"""Stores to test, and stories told to them."""

from __future__ import annotations
