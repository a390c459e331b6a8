"""What is answered where the engine or its store cannot."""

from __future__ import annotations

from lineshaft.errors import LineshaftError, Unavailable


def not_durable(reason: str, retry_after: float = 1.0) -> Unavailable:
    """Return the error of a request whose outcome is not known."""
    return Unavailable(f"{reason}; repeat the request with the same ids", retry_after=retry_after)


def unreadable(error: BaseException) -> LineshaftError:
    """Return the error of a request for which the store could not be read."""
    if isinstance(error, LineshaftError):
        return error
    return Unavailable(f"the store cannot be read ({told(error)})", retry_after=1.0)


def told(error: BaseException) -> str:
    """Return what an error says, or at least what it is."""
    return str(error) or type(error).__name__
