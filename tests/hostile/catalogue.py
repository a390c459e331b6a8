"""Catalogues of attacks: one function a kind, each drawing its details from a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.hostile.exchange import Attack, Kind


class Catalogue:
    """Kinds of attacks by their names; `CATALOGUE.kind` above a function enters it."""

    def __init__(self, *parts: Catalogue) -> None:
        self.kinds: dict[str, Kind] = {}
        for part in parts:
            self.kinds |= part.kinds

    def kind(self, function: Kind) -> Kind:
        """Enter a kind."""
        self.kinds[function.__name__] = function
        return function

    def attacks(self, seed: int, count: int) -> Iterator[Attack]:
        """Yield attacks, every kind in turn; the same for the same seed."""
        names = sorted(self.kinds)
        for number in range(count):
            name = names[number % len(names)]
            attack = self.kinds[name](random.Random(f"{seed}/{number}"))
            attack.kind, attack.number = name, number
            yield attack
