"""Stores to test, and stories told to them."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("lineshaft.store.conformance")
