"""`lineshaft tasks cancel|retry|promote|delete`: one task, several, or all that match a filter."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from lineshaft.cli.arguments import Name, Queue, State, Tag, TaskIds, Text
from lineshaft.cli.commands import command, tell
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.session import Session
from lineshaft.cli.tasks import app
from lineshaft.cli.trouble import Trouble, judge
from lineshaft.errors import LineshaftError

if TYPE_CHECKING:
    from lineshaft import wire

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what the filter matches.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before changing all that match.")]


class Filter(msgspec.Struct, frozen=True):
    """The filter options of a command."""

    queue: list[str] | None
    state: list[str] | None
    name: list[str] | None
    tag: list[str] | None
    text: str | None

    def given(self) -> bool:
        """Tell whether any of them was used."""
        return any(getattr(self, field) for field in self.__struct_fields__)

    def sweep(self, **more: Any) -> wire.Sweep:
        """Return the filter as the body of a call."""
        from lineshaft import wire

        return wire.Sweep(
            queue=self.queue, state=self.state, name=self.name, tag=self.tag, q=self.text, **more
        )


@command(app, "cancel")
async def cancel(
    session: Session,
    task_ids: TaskIds = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why, for the record.", show_default=False)
    ] = None,
    queue: Queue = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    text: Text = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> ExitCode:
    """Cancel tasks; one that runs is asked to end."""
    from lineshaft import wire

    chosen = Filter(queue, state, name, tag, text)
    body = wire.Cancel(reason=reason)
    return await _change(
        session, "cancel", task_ids, chosen, body=body, reason=reason, dry_run=dry_run, yes=yes
    )


async def _change(
    session: Session,
    verb: str,
    task_ids: list[str] | None,
    chosen: Filter,
    *,
    body: msgspec.Struct | None,
    dry_run: bool,
    yes: bool,
    reason: str | None = None,
) -> ExitCode:
    if task_ids and chosen.given():
        raise typer.BadParameter("give ids or a filter, not both", param_hint="ID")
    if task_ids:
        if dry_run:
            raise typer.BadParameter(
                "counts what a filter matches; it has no meaning with ids", param_hint="--dry-run"
            )
        return await _each(session, verb, task_ids, body)
    if not chosen.given():
        raise typer.BadParameter(
            f"say which tasks to {verb}: ids, or a filter such as --queue or --state", param_hint="ID"
        )
    return await _all_that_match(session, verb, chosen, reason=reason, dry_run=dry_run, yes=yes)


async def _each(session: Session, verb: str, task_ids: list[str], body: msgspec.Struct | None) -> ExitCode:
    """Do the verb to each; an error of one is told and does not keep the others from it."""
    worst = ExitCode.OK
    for task_id in task_ids:
        try:
            task: wire.ChangedTask = await session.call(verb, id=task_id, body=body)
        except LineshaftError as error:
            verdict = judge(error, url=session.url)
            if verdict.code is ExitCode.UNREACHABLE or len(task_ids) == 1:
                raise
            tell(verdict, as_json=session.out.as_json)
            worst = max(worst, verdict.code)
            continue
        if session.out.as_json:
            session.out.line(task)
        else:
            session.out.say(f"{task_id}: {_became(verb, task)}")
    return worst


def _became(verb: str, task: wire.ChangedTask) -> str:
    if verb == "delete":
        return "deleted"
    if verb == "cancel" and task.state in ("claimed", "running"):
        return f"{task.state}, its worker is asked to end it"
    return task.state


async def _all_that_match(
    session: Session, verb: str, chosen: Filter, *, reason: str | None, dry_run: bool, yes: bool
) -> ExitCode:
    call = f"{verb}_many"
    counted: wire.Swept = await session.call(call, body=chosen.sweep(dry_run=True))
    if dry_run or not counted.matched:
        return _tell(session, verb, counted, dry_run=True)
    if not yes:
        _confirm(verb, counted.matched)
    with session.out.progress() as progress:
        progress.add_task(verb, total=None)
        done: wire.Swept = await session.call(call, body=chosen.sweep(reason=reason), timeout=600)
    return _tell(session, verb, done, dry_run=False)


def _confirm(verb: str, matched: int) -> None:
    import sys

    if not sys.stdin.isatty():
        them = "it" if matched == 1 else "them"
        raise Trouble(
            f"{_match(matched)}, and nobody can be asked whether to {verb} {them}",
            code=ExitCode.USAGE,
            hint="add --yes, or count first with --dry-run",
        )
    if not typer.confirm(f"{verb} {matched} {'task' if matched == 1 else 'tasks'}?", err=True):
        raise Trouble("nothing was changed", hint="answer y, or add --yes")


def _match(count: int) -> str:
    return "1 task matches" if count == 1 else f"{count} tasks match"


def _tell(session: Session, verb: str, swept: wire.Swept, *, dry_run: bool) -> ExitCode:
    if session.out.as_json:
        session.out.document(swept)
    elif dry_run:
        session.out.say(_match(swept.matched))
    else:
        session.out.say(f"{swept.matched} matched, {verb} changed {swept.changed}")
    return ExitCode.OK


def _plain(verb: str, does: str) -> None:
    """Register a verb that takes nothing but ids or a filter."""

    async def run(
        session: Session,
        task_ids: TaskIds = None,
        queue: Queue = None,
        state: State = None,
        name: Name = None,
        tag: Tag = None,
        text: Text = None,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> ExitCode:
        from lineshaft import wire

        chosen = Filter(queue, state, name, tag, text)
        body = None if verb == "delete" else wire.Nothing()
        return await _change(session, verb, task_ids, chosen, body=body, dry_run=dry_run, yes=yes)

    run.__doc__ = does
    register: Callable[[Callable[..., Coroutine[Any, Any, ExitCode]]], object] = command(app, verb)
    register(run)


_plain("retry", "Run finished tasks again.")
_plain("promote", "Run scheduled tasks now.")
_plain("delete", "Forget finished tasks.")
