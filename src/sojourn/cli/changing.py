"""Changing what is stored: `end`, `delete`, `forget`, `reap` and `fork`.

What destroys asks first. Nobody to ask and no `--yes`: it refuses.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sojourn.cli.call import Call
from sojourn.cli.failures import ExitCode, Refusal, missing
from sojourn.cli.hooks import printing_aside, register_hooks
from sojourn.cli.options import App, Hooks, Id, Json, Url, Yes
from sojourn.cli.shapes import session_facts
from sojourn.errors import Corrupt
from sojourn.lifecycle import END_OF, OVER
from sojourn.reaper import BATCH, MAX_BATCH, Reaper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sojourn.session import Session

Reason = Annotated[str, typer.Option(help="Why, for hooks and for the record.")]


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.command("end")(end)
    program.command("delete")(delete)
    program.command("forget")(forget)
    program.command("reap")(reap)
    program.command("fork")(fork)


def _above_zero(seconds: float | None) -> float | None:
    """Return what was given. Raises `BadParameter` for what is no time to keep anything."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise typer.BadParameter(f"{seconds:g} is not a number of seconds above 0.")
    return seconds


def end(
    context: typer.Context,
    id: Id,
    *,
    reason: Reason = "ended from the command line",
    retain: Annotated[
        float | None,
        typer.Option(
            callback=_above_zero,
            metavar="SECONDS",
            help="Keep the ended record readable so long.",
        ),
    ] = None,
    begin: Annotated[
        bool,
        typer.Option("--begin", help="Only begin it: the reaper of the application does the rest."),
    ] = False,
    hooks: Hooks = None,
    yes: Yes = False,
    json: Json = False,
    url: Url = None,
    app: App = None,
) -> None:
    """End a session: its children, then its end hooks, then it is removed.

    The end hooks of an application are known to the application alone. Name them with --hooks, or
    leave the end to the application's own reaper with --begin.
    """
    if begin and (hooks or retain is not None):
        raise typer.BadParameter("--begin leaves the rest to others: no --hooks, no --retain")
    call = Call(context, url=url, app=app, json=json)
    with printing_aside():
        call.run(_end(call, id, reason, retain, begin=begin, hooks=hooks, yes=yes))


async def _end(
    call: Call,
    id: str,
    reason: str,
    retain: float | None,
    *,
    begin: bool,
    hooks: str | None,
    yes: bool,
) -> None:
    async with call.sessions() as sessions:
        await register_hooks(sessions, hooks)
        session = await sessions.get(id, expired=True)
        if session is None:
            raise missing(id)
        if not (hooks or begin or yes):
            call.output.note("no end hooks are known here. try: --hooks, or --begin")
        await call.output.confirm(f"end {_described(session)}?", yes=yes)
        if begin:
            phase = await sessions.apply(id, END_OF[session.lifecycle], reason=reason)
            _done(call, {"id": id, "ended": False, "phase": phase.value}, f"{id} is {phase}")
            return
        ended = await sessions.end(id, reason=reason, retain=retain)
        over = ended or session.phase in OVER
        text = f"ended {id}" if ended else f"{id} was over already"
        _done(call, {"id": id, "ended": over}, text)


def delete(
    context: typer.Context,
    id: Id,
    *,
    yes: Yes = False,
    json: Json = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Remove a session at once, with all it owns and its children. No end hooks run."""
    call = Call(context, url=url, app=app, json=json)
    call.run(_delete(call, id, yes=yes))


async def _delete(call: Call, id: str, *, yes: bool) -> None:
    async with call.sessions() as sessions:
        try:
            session = await sessions.get(id, expired=True)
        except Corrupt as damage:  # removing it may be just what is wanted
            described = f"the damaged session {id!r} ({damage.reason})"
        else:
            if session is None:
                raise missing(id)
            children = await sessions.count(parent=id)
            described = _described(session) + (f" and its {children} children" if children else "")
        await call.output.confirm(f"delete {described}?", yes=yes)
        if not await sessions.delete(id):
            raise missing(id)
        _done(call, {"id": id, "deleted": True}, f"deleted {id}")


def forget(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose sessions and shared state.")],
    *,
    yes: Yes = False,
    json: Json = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Remove everything of a user at once: every session, and the state they share."""
    call = Call(context, url=url, app=app, json=json)
    call.run(_forget(call, user, yes=yes))


async def _forget(call: Call, user: str, *, yes: bool) -> None:
    async with call.sessions() as sessions:
        count = await sessions.count(user=user)
        what = f"all of user {user!r} in app {call.app!r}: {count} sessions and shared state"
        await call.output.confirm(f"forget {what}?", yes=yes)
        forgotten = await sessions.forget(user)
        document = {"user": user, "sessions": forgotten}
        _done(call, document, f"forgot {user}: {forgotten} sessions and shared state")


def reap(
    context: typer.Context,
    *,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Sessions in one step.")] = BATCH,
    hooks: Hooks = None,
    json: Json = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Sweep once: end what has expired, try failed ends again, remove what was kept long enough.

    The end hooks of an application are known to the application alone; name them with --hooks.
    """
    call = Call(context, url=url, app=app, json=json)
    with printing_aside():
        call.run(_reap(call, batch, hooks))


async def _reap(call: Call, batch: int, hooks: str | None) -> None:
    async with call.sessions() as sessions:
        await register_hooks(sessions, hooks)
        reaper = Reaper(sessions, batch=batch)
        with call.output.progress("sweeping") as advance, _failures() as failed:
            ended = await reaper.sweep(progress=advance)
    document = {"ended": ended, "failed": len(failed)}
    _done(call, document, f"swept: {ended} sessions ended")
    if failed:
        raise Refusal(
            ExitCode.FAILED,
            f"{len(failed)} sessions could not be ended; they stay ending",
            "again later",
        )


@contextmanager
def _failures() -> Iterator[list[logging.LogRecord]]:
    """Yield a list of what the reaper logs: it tells of failed ends in no other way."""
    failed: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        failed.append(record)
        return True

    log = logging.getLogger("sojourn")
    log.addFilter(keep)
    try:
        yield failed
    finally:
        log.removeFilter(keep)


def fork(
    context: typer.Context,
    id: Id,
    *,
    at: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="As of this event; else as it is now.")
    ] = None,
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The id of the copy; else a new one.")
    ] = None,
    json: Json = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Copy a session, as it is now or as of an event, and write the id of the copy."""
    call = Call(context, url=url, app=app, json=json)
    call.run(_fork(call, id, at, new_id))


async def _fork(call: Call, id: str, at: int | None, new_id: str | None) -> None:
    async with call.sessions() as sessions:
        copy = await sessions.fork(id, at=at, new_id=new_id)
    _done(call, session_facts(copy), copy.id)


def _described(session: Session) -> str:
    owner = f"of user {session.user!r}" if session.user is not None else "of nobody"
    last = f"event {session.header.seq}"  # the last one's number: some may have been taken back
    return f"session {session.id!r} {owner} ({session.phase}, {last})"


def _done(call: Call, document: Mapping[str, object], text: str) -> None:
    if call.output.json:
        call.output.document(document)
    else:
        call.output.line(text)
