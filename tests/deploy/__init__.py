"""What stands in `deploy/`."""

from __future__ import annotations
