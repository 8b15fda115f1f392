"""Following the log of a session as it grows: `tail`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sojourn.cli.call import Call
from sojourn.cli.options import App, Id, Json, Url, Wide
from sojourn.cli.shapes import event_facts
from sojourn.cli.timeline import event_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.manager import SessionManager
    from sojourn.model import Event

LAST = 10
"""Events shown before the live ones: about what a glance takes in."""

PAGE = 500
"""Events read at a time without following: memory stays flat however long the log is."""


def register(program: typer.Typer) -> None:
    """Add the command."""
    program.command("tail")(tail)


def tail(
    context: typer.Context,
    id: Id,
    *,
    last: Annotated[
        int | None,
        typer.Option("--last", "-n", min=0, help="Events to begin with.", show_default=str(LAST)),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Begin behind the event of this number; 0 is all."),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Wait for what comes.")] = True,
    json: Json = False,
    wide: Wide = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Show the last events of a session, then new ones as they come.

    It stops when the session is over, or with Ctrl-C. With --json it writes one event a line.
    """
    if last is not None and after is not None:
        raise typer.BadParameter("give --last or --after, not both")
    call = Call(context, url=url, app=app, json=json, wide=wide)
    call.run(_tail(call, id, LAST if last is None else last, after, follow=follow))


async def _tail(call: Call, id: str, last: int, after: int | None, *, follow: bool) -> None:
    output = call.output
    async with call.sessions() as sessions:
        start = await _start(sessions, id, last) if after is None else after
        events = sessions.watch(id, after=start) if follow else _stored(sessions, id, start)
        async for event in events:
            if output.json:
                output.record(event_facts(event))
            else:
                output.line(event_line(event, output))
                output.flush()
    if follow:
        output.note(f"session {id!r} is over")


async def _start(sessions: SessionManager, id: str, last: int) -> int:
    """Return the number behind which the last so many events begin."""
    session = await sessions.require(id, events=last)
    return (session.events[0].seq or 1) - 1 if session.events else session.header.seq


async def _stored(sessions: SessionManager, id: str, after: int) -> AsyncIterator[Event]:
    while True:
        page = await sessions.events(id, after_seq=after, first=PAGE)
        for event in page:
            yield event
        if len(page) < PAGE:
            return
        after = page[-1].seq or after
