"""Taking sessions out of the SQLite file whole: pages of them, large ones part by part."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sojourn import codec, restoring
from sojourn.errors import Corrupt, InvalidCursor
from sojourn.limits import DUMP_BYTES, MAX_SEQ, PART_BYTES
from sojourn.store import Dumped, Headers, Shared, Snapshot, Tier
from sojourn.stores.sqlite import connection, rows
from sojourn.stores.sqlite.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import apsw

    from sojourn.model import Encoded, Entry, Header, StoredDocument
    from sojourn.store import Walk

_FIRST_NAME = " "
"""The least character of a name: apps before it are the store's own and nobody's sessions."""

_NEXT_APP = """SELECT min(app) FROM (
    SELECT min(app) AS app FROM sessions WHERE app > ?1
    UNION ALL SELECT min(app) FROM tiers WHERE app > ?1
    UNION ALL SELECT min(app) FROM documents WHERE session = 0 AND app > ?1)"""
_NEXT_PHASE = "SELECT min(phase) FROM sessions WHERE app = ? AND phase > ?"
_ROWS = "SELECT row FROM sessions WHERE app = :app AND phase = :{phase} AND row > :row"
_ROW = "SELECT row FROM sessions WHERE app = ? AND id = ?"
# As bytes, so that text which is not UTF-8 damages its own session and not the page.
_STATE = rows.SESSION.replace("state", "CAST(state AS BLOB)")
_SESSION = f"SELECT {_STATE} FROM sessions WHERE row = ?"
_HEADER = f"SELECT {rows.SESSION.replace('state', 'NULL')} FROM sessions WHERE row = ?"
_EVENTS = f"SELECT {rows.EVENT} FROM events WHERE key > ? AND key <= ? ORDER BY key"
_DOCUMENTS = f"""SELECT {rows.DOCUMENT}, body FROM documents
    WHERE session = ? AND app = ? AND (collection, row) > (?, ?)
    AND (expires_at IS NULL OR expires_at > ?) ORDER BY collection, row"""
_TIERS = "SELECT owner, name, value FROM tiers WHERE app = ? AND owner {compare} ? ORDER BY owner"


class _Place(NamedTuple):
    """How far the contents of a session were read."""

    seq: int = 0
    collection: str = ""
    row: int = 0


class Dumper(Reader):
    """A reader that also reads sessions whole."""

    def apps(self, after: str, limit: int) -> list[str]:
        """Return the apps that have anything; see `SupportsTransfer.apps`."""
        found: list[str] = []
        last: str | None = max(after, _FIRST_NAME)
        while len(found) < limit:
            last = self._db.execute(_NEXT_APP, (last,)).get
            if last is None:
                break
            found.append(last)
        return found

    def headers(self, walk: Walk) -> Headers:
        """Return a page of headers; see `SupportsTransfer.headers`."""
        with self._page():
            found: list[Header] = []
            corrupt: list[Corrupt] = []
            position, numbers = self._rows(walk)
            for number in numbers:
                try:
                    found.append(self._header(number))
                except Corrupt as error:
                    corrupt.append(error)
            return Headers(found, position, tuple(corrupt))

    def dump(self, walk: Walk) -> Dumped:
        """Return a page of sessions; see `SupportsTransfer.dump`."""
        found: list[Snapshot] = []
        corrupt: list[Corrupt] = []
        size = 0
        with self._page():
            position, numbers = self._rows(walk)
            for at, number in enumerate(numbers):
                try:
                    snapshot, weight = self._whole(number, walk.now)
                except Corrupt as error:
                    corrupt.append(error)
                    continue
                found.append(snapshot)
                size += weight
                if size > DUMP_BYTES and at + 1 < len(numbers):
                    position = self._position_behind(walk, number)
                    break
        return Dumped(found, position, tuple(corrupt))

    @contextmanager
    def _page(self) -> Iterator[None]:
        """Read one page from one snapshot, and let go of what was mapped of the file for it.

        A walk comes by every page of the file. Kept, they would look like memory that grows.
        """
        try:
            with self._snapshot():
                yield
        finally:
            for size in (0, connection.MAPPED_BYTES):
                self._db.execute(f"PRAGMA mmap_size={size}").fetchall()

    def _whole(self, row: int, now: int) -> tuple[Snapshot, int]:
        """Return a session and its weight; its header alone when it is too large for a page."""
        header, state = self._read(row)
        entries, documents, place = self._contents(row, header, _Place(), now)
        if place is not None:
            return Snapshot(header=header, last=False), 0
        snapshot = Snapshot(
            header=header, state=state, entries=tuple(entries), documents=tuple(documents)
        )
        return snapshot, restoring.weight(snapshot)

    # --- which sessions ------------------------------------------------------------------------

    def _rows(self, walk: Walk) -> tuple[str | None, list[int]]:
        """Return the row numbers of a page, and the position behind it."""
        if walk.ids is not None:
            first = _number(walk.position)
            end = first + walk.limit
            pairs = [(walk.app, id) for id in walk.ids[first:end]]
            found = [self._db.execute(_ROW, pair).get for pair in pairs]
            position = str(end) if end < len(walk.ids) else None
            return position, [row for row in found if row is not None]
        bindings = {"app": walk.app, "row": _number(walk.position), "limit": walk.limit}
        parts = []
        for number, phase in enumerate(self._phases(walk.app)):
            # The index holds sessions by phase; one page of each, merged, is the page of them all.
            bindings[f"phase{number}"] = phase
            part = _ROWS.format(phase=f"phase{number}")
            parts.append(f"SELECT * FROM ({part} ORDER BY row LIMIT :limit)")
        if not parts:
            return None, []
        sql = " UNION ALL ".join(parts) + " ORDER BY row LIMIT :limit"
        numbers = [row for (row,) in self._db.execute(sql, bindings)]
        return (str(numbers[-1]) if len(numbers) == walk.limit else None), numbers

    def _phases(self, app: str) -> list[str]:
        """Return the phases that an app's sessions are in, those that no session can be in too."""
        found: list[str] = []
        phase = self._db.execute(_NEXT_PHASE, (app, "")).get
        while phase is not None:
            found.append(phase)
            phase = self._db.execute(_NEXT_PHASE, (app, phase)).get
        return found

    def _position_behind(self, walk: Walk, row: int) -> str:
        """Return the position behind a session in the middle of a page."""
        if walk.ids is None:
            return str(row)
        id = self._db.execute("SELECT id FROM sessions WHERE row = ?", (row,)).get
        return str(walk.ids.index(id) + 1)

    # --- one session ---------------------------------------------------------------------------

    def _header(self, row: int) -> Header:
        """Return a session's header. Raises `Corrupt`, naming it."""
        try:
            found: Any = self._db.execute(_HEADER, (row,)).fetchone()
            return rows.to_header(found)
        except UnicodeDecodeError as error:
            raise Corrupt(f"session of row {row}", str(error)) from error

    def _read(self, row: int) -> tuple[Header, Encoded]:
        """Return a session's header and own state. Raises `Corrupt`, naming it."""
        try:
            found: Any = self._db.execute(_SESSION, (row,)).fetchone()
            header = rows.to_header(found)
            return header, codec.decode_object(found[rows.STATE], f"session {header.id!r}")
        except UnicodeDecodeError as error:
            raise Corrupt(f"session of row {row}", str(error)) from error

    def _contents(
        self, row: int, header: Header, place: _Place, now: int
    ) -> tuple[list[Entry], list[StoredDocument], _Place | None]:
        """Return what comes behind `place`, about `PART_BYTES`, and where it goes on if it does."""
        try:
            return self._bundle(row, header, place, now)
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise Corrupt(f"session {header.id!r}", str(error)) from error

    def _bundle(
        self, row: int, header: Header, place: _Place, now: int
    ) -> tuple[list[Entry], list[StoredDocument], _Place | None]:
        entries: list[Entry] = []
        documents: list[StoredDocument] = []
        size = 0
        span = (rows.event_key(row, place.seq), rows.event_key(row, MAX_SEQ))
        for found in self._db.execute(_EVENTS, span) if place.seq < header.seq else ():
            entry = rows.to_entry(found)
            size += restoring.item_weight(entry)
            if entries and size > PART_BYTES:
                return entries, documents, _Place(entries[-1].seq)
            entries.append(entry)
        where = (row, header.app, place.collection, place.row, now)
        seq = header.seq
        for found in self._db.execute(_DOCUMENTS, where):
            document = rows.to_document(found)
            size += restoring.item_weight(document)
            if (entries or documents) and size > PART_BYTES:
                return entries, documents, place._replace(seq=seq)
            documents.append(document)
            place = _Place(seq, document.collection, document.number)
        return entries, documents, None

    def parts(self, app: str, id: str, now: int) -> Generator[Snapshot, None, None]:
        """Yield a session part by part, as of one moment; see `SupportsTransfer.parts`."""
        with self._snapshot():
            row = self._db.execute(_ROW, (app, id)).get
            if row is None:
                return
            header, state = self._read(row)
            place: _Place | None = _Place()
            part = 0
            while place is not None:
                entries, documents, place = self._contents(row, header, place, now)
                yield Snapshot(
                    header=header,
                    state={} if part else state,
                    entries=tuple(entries),
                    documents=tuple(documents),
                    part=part,
                    last=place is None,
                )
                part += 1

    # --- what sessions share -------------------------------------------------------------------

    def shared(self, app: str, now: int, position: str | None) -> Shared:
        """Return a page of what sessions share; see `SupportsTransfer.shared`."""
        items: list[Tier | StoredDocument] = []
        size = 0
        with self._page():
            for where, weight, item in self._shared_from(app, now, position):
                items.append(item)
                size += weight
                if size > DUMP_BYTES:
                    return Shared(items, where)
        return Shared(items, None)

    def _shared_from(
        self, app: str, now: int, position: str | None
    ) -> Iterator[tuple[str, int, Tier | StoredDocument]]:
        """Yield (position behind it, weight, item) of tiers and then of documents."""
        kind, _, rest = (position or "t:").partition(":")
        if kind not in ("t", "d"):
            raise _nowhere()
        if kind == "t":
            compare = ">=" if position is None else ">"
            for owner, state in self._tiers_of(app, rest, compare):
                yield (
                    f"t:{owner}",
                    restoring.tier_weight(state),
                    Tier(user=owner or None, state=state),
                )
            rest = ""
        number, _, collection = rest.partition(":")
        for found in self._db.execute(_DOCUMENTS, (0, app, collection, _number(number), now)):
            document = rows.to_document(found)
            weight = restoring.item_weight(document)
            yield f"d:{document.number}:{document.collection}", weight, document

    def _tiers_of(self, app: str, after: str, compare: str) -> Iterator[tuple[str, Encoded]]:
        """Yield (owner, state) of an app's tiers, its own first, under the name ""."""
        last: str | None = None
        state: Encoded = {}
        for owner, name, value in self._db.execute(_TIERS.format(compare=compare), (app, after)):
            if owner != last and last is not None:
                yield last, state
                state = {}
            last = owner
            state[name] = msgspec.Raw(value)
        if last is not None:
            yield last, state


class Reading:
    """A large session being read: a connection of its own, which keeps one snapshot of the file."""

    def __init__(
        self, connect: Callable[[], apsw.Connection], name: str, app: str, id: str, now: int
    ) -> None:
        """`name` is the store's, for errors; nothing is opened yet."""
        self._connect = connect
        self._name = name
        self._what = (app, id, now)
        self._dumper: Dumper | None = None
        self._parts: Generator[Snapshot, None, None] | None = None

    def next_part(self) -> Snapshot | None:
        """Return the next part, `None` behind the last; call it in a reader thread."""
        try:
            if self._parts is None:
                self._dumper = Dumper(self._connect(), short=False)
                self._parts = self._dumper.parts(*self._what)
            return next(self._parts, None)
        except connection.DRIVER_ERRORS as error:
            raise connection.mapped(error, self._name) from error

    async def finished(self, step: asyncio.Future[Snapshot | None]) -> Snapshot | None:
        """Return what a step returns. Cancelled, wait for its thread: it holds the connection."""
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            while not step.done():
                with suppress(asyncio.CancelledError):  # the first one is raised
                    await asyncio.wait((step,))
            raise

    def close(self) -> None:
        """Let go of the snapshot and the connection."""
        if self._parts is not None:
            self._parts.close()
        if self._dumper is not None:
            self._dumper.close()


def _number(position: str | None) -> int:
    try:
        return int(position or 0)
    except ValueError:
        raise _nowhere() from None


def _nowhere() -> InvalidCursor:
    return InvalidCursor("its position is not one of this store's")
