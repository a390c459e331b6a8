"""Every mutant, in the order of the promises that they break."""

from __future__ import annotations

from tests.mutants.heart.claims import CLAIMS
from tests.mutants.heart.commits import COMMITS
from tests.mutants.heart.leases import LEASES
from tests.mutants.heart.lives import LIVES
from tests.mutants.heart.replies import REPLIES
from tests.mutants.heart.time import TIME
from tests.mutants.heart.wakes import WAKES
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (*COMMITS, *REPLIES, *LEASES, *TIME, *CLAIMS, *WAKES, *LIVES)
