"""What the demo has to tell at its end, and how that is shown."""

from __future__ import annotations

import msgspec
from rich.text import Text

from lineshaft.cli.demo.proof import Proof
from lineshaft.cli.session import Session
from lineshaft.cli.tables import make_table

_NAMED = 5
"""How many culprits are named where the proof does not hold."""


class Recovered(msgspec.Struct, kw_only=True):
    """What went wrong on purpose, and what became of it."""

    held_by_killed: int = 0
    """Tasks that the killed worker held when it died."""
    lost_leases: int = 0
    retried: int = 0
    """Tasks that completed in a later attempt than their first."""
    redelivered: int = 0
    """Outcomes of tasks begun before the coordinator died, delivered by their worker after it was back."""
    downtime: float = 0.0
    """Seconds from the coordinator's death until it took work again."""


class Report(msgspec.Struct, kw_only=True):
    """What the demo has to tell."""

    directory: str
    files: int
    links: int
    special: int
    closed: int
    seconds: float = 0.0
    """From the first enqueue to the last outcome, everything that was killed included."""
    recovered: Recovered
    proof: Proof

    @property
    def files_per_second(self) -> float:
        """Tasks completed a second, over the whole run."""
        return self.proof.completed / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes hashed a second, over the whole run."""
        return self.proof.bytes / self.seconds if self.seconds else 0.0


def show(session: Session, report: Report) -> None:
    """Print what was recovered, the proof, and the throughput."""
    if session.out.as_json:
        document = msgspec.to_builtins(report)
        document["files_per_second"] = round(report.files_per_second, 1)
        document["bytes_per_second"] = round(report.bytes_per_second)
        document["proof"]["holds"] = report.proof.holds
        session.out.document(document)
        return
    session.out.show(make_table(("recovered~", "count#"), _recovered(report), title="What was recovered"))
    session.out.show(
        make_table(("every file, exactly once~", "count#", ""), _proof(report), title="The proof")
    )
    _verdict(session, report)


def _recovered(report: Report) -> list[tuple[object, ...]]:
    recovered = report.recovered
    return [
        ("tasks that the killed worker held", recovered.held_by_killed),
        ("leases that were lost", recovered.lost_leases),
        ("tasks that were tried again", recovered.retried),
        ("outcomes kept while the coordinator was down, and delivered", recovered.redelivered),
        ("seconds without a coordinator", f"{recovered.downtime:.1f}"),
    ]


def _proof(report: Report) -> list[tuple[object, ...]]:
    proof = report.proof
    rows: list[tuple[object, ...]] = [
        ("files found by a second, independent walk", proof.files, None),
        ("tasks listed by the coordinator", proof.tasks, None),
        ("results whose hash was computed again and agrees", proof.hashed, None),
        ("files that nobody can read, accounted for as such", proof.unreadable, None),
    ]
    for what, count in (
        ("files that changed meanwhile", proof.changed),
        ("files that were made meanwhile", proof.came),
        ("files that were deleted meanwhile", proof.went),
        ("symbolic links, not followed", report.links),
        ("pipes, sockets and devices, passed over", report.special),
        ("directories that cannot be read", report.closed),
    ):
        if count:
            rows.append((what, count, None))
    for what, culprits in (
        ("files without a task", proof.missing),
        ("tasks listed twice", proof.duplicates),
        ("tasks without a file", proof.unexpected),
        ("tasks that have not completed", proof.unfinished),
        ("results that do not agree", proof.wrong),
    ):
        rows.append((what, len(culprits), _sign(len(culprits))))
    rows.append(
        ("tasks made by enqueueing everything again", proof.created_again, _sign(proof.created_again))
    )
    return [(what, count, Text("") if sign is None else sign) for what, count, sign in rows]


def _sign(count: int) -> Text:
    return Text("trouble", style="bold red") if count else Text("ok", style="green")


def _verdict(session: Session, report: Report) -> None:
    proof = report.proof
    megabytes = proof.bytes / 1_000_000
    session.out.say(
        f"{proof.completed} files, {megabytes:.1f} MB, {proof.lines} lines in {report.seconds:.1f} s"
    )
    rates = f"{report.files_per_second:.0f} files/s, {megabytes / max(report.seconds, 0.001):.1f} MB/s"
    session.out.say(f"{rates}, both kills included")
    if proof.holds:
        session.out.say("nothing was lost, nothing was counted twice", style="bold green")
        return
    session.out.say("the proof does not hold", style="bold red")
    for name in ("missing", "duplicates", "unexpected", "unfinished", "wrong"):
        for culprit in getattr(proof, name)[:_NAMED]:
            session.out.say(f"  {name}: {culprit}")
