"""Where something may go wrong, chance is asked; it answers the same at the same place, come what may.

A place is named ("w0", "commits", "acme-0 step 3") and its opportunities are numbered; each answer depends
on nothing but the seed, the place and the number. So a fault can be left out, or a client, and what is left
still happens as it did; that is what lets a failing run shrink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

_WHOLE = float(1 << 56)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong now; `random` decides how."""

    kind: str
    random: Random


class Chance:
    """Decides for one run, and remembers what it decided."""

    def __init__(self, seed: int, odds: Mapping[str, float], only: frozenset[str] | None = None) -> None:
        """`odds` are probabilities by kind; with `only` just these happen, of those named by `happened`."""
        self.calm = False
        """Nothing goes wrong any more."""
        self.happened: list[str] = []
        """What went wrong so far, each as "place/number/kind"."""
        self._seed = seed
        self._odds = odds
        self._only = None if only is None else dict(name.rsplit("/", 1) for name in only)
        self._counts: Counter[str] = Counter()

    def draw(self, place: str, *kinds: str) -> Fault | None:
        """Say which of these kinds happens at the next opportunity of a place, if any does."""
        if self.calm:
            return None
        self._counts[place] += 1
        name = f"{place}/{self._counts[place]}"
        kind = self._by_odds(name, kinds) if self._only is None else self._only.get(name)
        if kind not in kinds:
            return None
        self.happened.append(f"{name}/{kind}")
        return Fault(kind, self.random(name))

    def random(self, name: str) -> Random:
        """Return a source of chance that depends on nothing but the seed and a name."""
        return Random(f"{self._seed}/{name}")

    def _by_odds(self, name: str, kinds: tuple[str, ...]) -> str | None:
        drawn = blake2b(f"{self._seed}/{name}".encode(), digest_size=7).digest()
        left = int.from_bytes(drawn, "big") / _WHOLE
        for kind in kinds:
            left -= self._odds[kind]
            if left < 0:
                return kind
        return None
