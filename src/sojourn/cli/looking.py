"""Looking at sessions: `ls` and `show`. Neither writes anything."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, TypeVar, cast

import typer

from sojourn.cli.call import Call
from sojourn.cli.columns import Column
from sojourn.cli.diagram import diagram, next_moves
from sojourn.cli.failures import ExitCode, Refusal, missing
from sojourn.cli.options import App, Id, Json, Url, Wide
from sojourn.cli.places import folder_of, path_of
from sojourn.cli.shapes import (
    document_facts,
    event_facts,
    instant,
    lease_facts,
    moment_of,
    session_facts,
    state_by_tier,
)
from sojourn.cli.timeline import ago, event_line, stamp, value_text
from sojourn.expiry import is_past
from sojourn.lifecycle import Phase
from sojourn.limits import MAX_PAGE
from sojourn.reading import ORDERS
from sojourn.timestamps import to_datetime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sojourn.manager import SessionManager
    from sojourn.model import Page, StoredDocument
    from sojourn.session import Session
    from sojourn.store import Order

LIMIT = 50
"""Sessions in a list, unless asked for more: a few screens."""

EVENTS = 10
"""Events in the timeline of `show`."""

RELATIVES = 20
"""Children and documents that `show` names; it says how many more there are."""

SESSIONS = (
    Column("ID", least=32, middle=True),
    Column("PHASE", least=11),
    Column("USER", least=8, middle=True),
    Column("LAST", spare=2, right=True),
    Column("ACTIVE", least=10),
    Column("EXPIRES", least=9, spare=3),
    Column("LABELS", least=8, spare=4),
    Column("CREATED", least=10, spare=5),
)

DOCUMENTS = (
    Column("COLLECTION", least=10, middle=True),
    Column("KEY", least=12, middle=True),
    Column("TYPE", least=10, spare=2),
    Column("BYTES", right=True),
    Column("PUT", least=10, spare=1),
)

Item = TypeVar("Item")


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.command("ls")(ls)
    program.command("show")(show)


def labels_from(given: Sequence[str]) -> dict[str, str]:
    """Return labels from `name=value` texts.

    Raises `typer.BadParameter` for another form, and for two values of one label: none has both.
    """
    labels: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--label: give NAME=VALUE, not {text!r}")
        if labels.setdefault(name, value) != value:
            raise typer.BadParameter(f"--label: give one value of {name!r}, not two")
    return labels


def ls(
    context: typer.Context,
    *,
    user: Annotated[str | None, typer.Option(help="Sessions of this user.")] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Sessions of nobody.")] = False,
    phase: Annotated[
        list[Phase] | None,
        typer.Option(case_sensitive=False, help="In this phase; may be repeated."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="With this label; may be repeated."),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="Children of this session.")
    ] = None,
    order: Annotated[
        str, typer.Option(help=f"One of: {', '.join(ORDERS)}; - is the newest first.")
    ] = "-active",
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="Sessions in a page.")] = LIMIT,
    cursor: Annotated[
        str | None, typer.Option(help="Where the page before this one ended.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every page, one by one.")] = False,
    json: Json = False,
    wide: Wide = False,
    url: Url = None,
    app: App = None,
) -> None:
    """List sessions, those used last first. Expired ones are left out.

    With --json it writes one document; with --all as well, one session a line.
    """
    call = Call(context, url=url, app=app, json=json, wide=wide)
    query: dict[str, Any] = {
        "user": user,
        "anonymous": anonymous,
        "phase": phase or None,
        "labels": labels_from(label or ()) or None,
        "parent": parent,
        "order": cast("Order", order),
        "limit": MAX_PAGE if everything else limit,
    }
    call.run(_list(call, query, cursor, everything=everything))


async def _list(call: Call, query: dict[str, Any], cursor: str | None, *, everything: bool) -> None:
    output = call.output
    corrupt = shown = 0
    table: _SessionTable | None = None
    async with call.sessions() as sessions:
        async for page in _pages(sessions, query, cursor, everything=everything):
            corrupt += len(page.corrupt)
            shown += len(page.items)
            for damage in page.corrupt:
                output.note(str(damage))
            if output.json:
                _write_json(call, page, lines=everything)
            elif page.items:
                table = table or _SessionTable(call, sessions, page.items)
                table.write(page.items)
            if page.cursor is not None and not everything and not output.json:
                output.note(f"there are more. try: --cursor {page.cursor}, or --all")
        if not shown and not output.json:
            output.note(f"no sessions in app {call.app!r} match")
    if corrupt:
        raise Refusal(
            ExitCode.FAILED, f"{corrupt} session(s) can not be read back", "sojourn doctor"
        )


async def _pages(
    sessions: SessionManager, query: dict[str, Any], cursor: str | None, *, everything: bool
) -> AsyncIterator[Page[Session]]:
    while True:
        page = await sessions.list(**query, cursor=cursor)
        yield page
        cursor = page.cursor
        if cursor is None or not everything:
            return


def _write_json(call: Call, page: Page[Session], *, lines: bool) -> None:
    items = [session_facts(session) for session in page.items]
    if lines:
        for item in items:
            call.output.record(item)
        return
    corrupt = [{"key": damage.key, "reason": damage.reason} for damage in page.corrupt]
    call.output.document({"sessions": items, "cursor": page.cursor, "corrupt": corrupt})


class _SessionTable:
    """A table of sessions, page by page, as wide as the first page needs."""

    def __init__(self, call: Call, sessions: SessionManager, items: Sequence[Session]) -> None:
        self._narrow = call.output.narrow
        self._now = to_datetime(sessions.now())
        self._write = call.output.layout(SESSIONS, [self._row(item) for item in items])
        self._first = True

    def write(self, items: Sequence[Session]) -> None:
        self._write([self._row(item) for item in items], head=self._first)
        self._first = False

    def _row(self, session: Session) -> tuple[str, ...]:
        labels = " ".join(f"{name}={value}" for name, value in sorted(session.labels.items()))
        return (
            session.id,
            session.phase.value,
            session.user or "-",
            str(session.header.seq),
            self._when(session.active_at),
            self._when(session.expires_at),
            labels or "-",
            self._when(session.created_at),
        )

    def _when(self, moment: datetime | None) -> str:
        return ago(moment, self._now) if self._narrow else stamp(moment)


def show(
    context: typer.Context,
    id: Id,
    *,
    events: Annotated[
        int, typer.Option("--events", "-n", min=0, max=MAX_PAGE, help="Last events to show.")
    ] = EVENTS,
    expired: Annotated[
        bool, typer.Option("--expired", help="Also one past its deadline, until it is swept.")
    ] = False,
    json: Json = False,
    wide: Wide = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Show one session: phase, state by tier, last events, documents, children, lease."""
    call = Call(context, url=url, app=app, json=json, wide=wide)
    call.run(_show(call, id, events, expired=expired))


async def _show(call: Call, id: str, events: int, *, expired: bool) -> None:
    async with call.sessions() as sessions:
        session = await sessions.get(id, events=events, expired=expired)
        if session is None:
            raise missing(id)
        around = await _Surroundings.of(call, sessions, session)
    if call.output.json:
        call.output.document(_as_json(session, around))
    else:
        _Sheet(call, session, around).write()


class _Relatives(NamedTuple, Generic[Item]):
    """The first few of something, and how many there are."""

    first: list[Item]
    total: int


def _documents(call: Call, session: Session, now: int) -> _Relatives[StoredDocument] | None:
    """Return the documents of a session, `None` where only a collection's can be listed."""
    folder = folder_of(call.url)
    if folder is not None:
        from sojourn.stores.filesystem import inspection

        found = inspection.documents_of(str(folder), session.app, session.id, now, RELATIVES)
        return _Relatives(*found)
    path = path_of(call.url)
    if path is None:
        return None
    from sojourn.stores.sqlite.inspection import documents_of

    return _Relatives(*documents_of(str(path), session.app, session.id, now, RELATIVES))


class _Surroundings:
    """What belongs to a session and is not in its record."""

    def __init__(
        self, now: int, children: _Relatives[Session], documents: _Relatives[StoredDocument] | None
    ) -> None:
        self.now = now
        self.children = children
        self.documents = documents

    @classmethod
    async def of(cls, call: Call, sessions: SessionManager, session: Session) -> _Surroundings:
        page = await sessions.list(parent=session.id, order="created", limit=RELATIVES)
        children = _Relatives(page.items, await sessions.count(parent=session.id))
        return cls(sessions.now(), children, _documents(call, session, sessions.now()))

    def is_expired(self, session: Session) -> bool:
        return is_past(session.header.expires_at, self.now)


def _as_json(session: Session, around: _Surroundings) -> dict[str, Any]:
    return {
        **session_facts(session),
        "expired": around.is_expired(session),
        "lease": lease_facts(session, around.now),
        "state": state_by_tier(session),
        "last_events": [event_facts(event) for event in session.events],
        "documents": None
        if around.documents is None
        else {
            "count": around.documents.total,
            "first": [document_facts(document) for document in around.documents.first],
        },
        "children": {
            "count": around.children.total,
            "first": [
                {"id": child.id, "phase": child.phase.value, "active_at": instant(child.active_at)}
                for child in around.children.first
            ],
        },
    }


class _Sheet:
    """One session for people to read, part by part."""

    def __init__(self, call: Call, session: Session, around: _Surroundings) -> None:
        self._output = call.output
        self._session = session
        self._around = around
        self._now = to_datetime(around.now)

    def write(self) -> None:
        self._output.line(f"session {self._session.id}", style="bold")
        self._identity()
        self._lifecycle()
        self._state()
        self._timeline()
        self._documents()
        self._children()

    def _identity(self) -> None:
        session, lease = self._session, lease_facts(self._session, self._around.now)
        labels = " ".join(f"{name}={value}" for name, value in sorted(session.labels.items()))
        facts = [
            ("app", session.app),
            ("user", session.user or "-"),
            ("revision", f"{session.revision}, epoch {session.epoch}"),
            ("created", self._when(session.created_at)),
            ("active", self._when(session.active_at)),
            ("expires", self._when(session.expires_at)),
            ("labels", labels or "-"),
            ("parent", session.parent or "-"),
            ("forked from", session.forked_from or "-"),
            ("lease", f"held until {lease['until']}" if lease["held"] else "free"),
        ]
        if session.header.exclusive:
            facts.append(("exclusive", " ".join(session.header.exclusive)))
        self._output.facts(facts, indent=2)

    def _when(self, moment: datetime | None) -> str:
        return "-" if moment is None else f"{stamp(moment)} ({ago(moment, self._now)})"

    def _lifecycle(self) -> None:
        session = self._session
        self._output.heading(f"lifecycle {session.lifecycle}")
        self._output.line(diagram(session.lifecycle, session.phase, self._output))
        self._output.facts([("next", next_moves(session.lifecycle, session.phase))])
        if session.reason:
            self._output.facts([("reason", session.reason)])
        if self._around.is_expired(session):
            self._output.line("past its deadline: missing to everybody, until it is swept")

    def _state(self) -> None:
        for tier, values in state_by_tier(self._session).items():
            self._output.heading(f"state of the {tier} ({len(values)})")
            rows = [(name, value_text(value)) for name, value in values.items()]
            if rows:
                columns = (Column("KEY", least=12, middle=True), Column("VALUE", least=16))
                self._output.table(columns, rows)

    def _timeline(self) -> None:
        events = self._session.events
        self._output.heading(f"events ({len(events)}, last number {self._session.header.seq})")
        for event in events:
            self._output.line(event_line(event, self._output))

    def _documents(self) -> None:
        documents = self._around.documents
        if documents is None:
            return
        self._output.heading(f"documents ({documents.total})")
        rows = [
            (one.collection, one.key, one.content_type, str(one.size), self._changed(one))
            for one in documents.first
        ]
        if rows:
            self._output.table(DOCUMENTS, rows)
        self._rest(documents)

    def _children(self) -> None:
        children = self._around.children
        self._output.heading(f"children ({children.total})")
        rows = [
            (child.id, child.phase.value, ago(child.active_at, self._now))
            for child in children.first
        ]
        if rows:
            self._output.table((SESSIONS[0], SESSIONS[1], Column("ACTIVE", least=10)), rows)
        self._rest(children)

    def _changed(self, document: StoredDocument) -> str:
        name = f"document {document.key!r} of {document.collection!r}"
        return stamp(moment_of(document.updated_at, name))

    def _rest(self, relatives: _Relatives[Any]) -> None:
        if relatives.total > len(relatives.first):
            self._output.line(f"and {relatives.total - len(relatives.first)} more")
