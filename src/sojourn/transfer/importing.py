"""Importing: the lines of an export, put into a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from sojourn.arguments import flag, level
from sojourn.errors import Corrupt, ForeignFile, NewerSchema, SojournError
from sojourn.limits import DUMP_BYTES
from sojourn.ports import RandomIds, SystemClock
from sojourn.restoring import item_weight, weight
from sojourn.store import RestoreShared, Snapshot
from sojourn.transfer import records, walking
from sojourn.transfer.checking import (
    WRONG,
    check_document,
    check_part,
    check_snapshot,
    check_tier,
)
from sojourn.transfer.files import GZIP, Source, in_thread
from sojourn.transfer.lines import broken, opened
from sojourn.transfer.putting import TOGETHER, Putter, Refusal, Refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sojourn.model import Header, StoredDocument
    from sojourn.ports import Clock, IdSource
    from sojourn.store import Durability, Store, Tier
    from sojourn.transfer.files import Place
    from sojourn.transfer.walking import Progress, TransferStore

T = TypeVar("T")

READ_BYTES = 1024 * 1024
"""Bytes of lines that are read at a time, beyond the first."""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did. `unchanged` sessions were there already, `refused` were not put.

    `refusals` are the first of those that were refused, each with its line and the reason.
    """

    restored: int
    unchanged: int
    refused: int
    tiers: int
    documents: int
    lines: int
    refusals: tuple[Refusal, ...] = ()


async def import_sessions(
    store: Store,
    source: Place,
    *,
    replace: bool = False,
    apps: Iterable[str] | None = None,
    durability: Durability | None = None,
    clock: Clock | None = None,
    ids: IdSource | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Put the sessions of an export into a store, exactly as they were; again is harmless.

    What is there stays: a session of the same incarnation is left alone if it is as new or newer,
    and one with the same id that is another session is refused and reported. `replace` also takes
    older revisions forward, and makes tiers and documents of apps what the file says, where else
    only missing keys and documents are added. `apps` chooses some. A stream is not waited for when
    this is cancelled: what was being read from it goes on in a thread.

    Raises `ForeignFile` for a file that is no export, `NewerSchema` for one of a later format,
    `Corrupt`, naming the line, for one that is damaged or cut off: what stands before that line is
    in the store, whole sessions only, and nothing behind it is. `InvalidId` and `InvalidQuery` for
    arguments that make no sense, `Unavailable` for trouble with file or store.
    """
    lines = Lines(source)
    try:
        return await import_lines(
            store,
            lines,
            replace=replace,
            apps=apps,
            durability=durability,
            clock=clock,
            ids=ids,
            progress=progress,
        )
    finally:
        lines.close()


async def import_lines(
    store: Store,
    lines: Lines,
    *,
    replace: bool = False,
    apps: Iterable[str] | None = None,
    durability: Durability | None = None,
    clock: Clock | None = None,
    ids: IdSource | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Do what `import_sessions` does with lines that may have begun, for who looks before opening.

    Raises as it does. The caller closes the lines.
    """
    replace, durability = flag("replace", replace), level(durability)
    target = walking.transferable(store)
    chosen = None if apps is None else set(await walking.apps_of(target, apps))
    putter = Putter(
        target,
        replace=replace,
        ids=ids or RandomIds(),
        clock=clock or SystemClock(),
        durability=durability,
    )
    sharing = _Sharing(target, replace=replace, durability=durability)
    work = _Import(putter, sharing, chosen, ids or RandomIds())
    return await work.run(lines, progress)


class Lines:
    """The records of an export, some at a time; each with its number."""

    def __init__(self, source: Place) -> None:
        """Name the place; `begin` opens it, and whoever called that calls `close`."""
        self._source = Source(source)
        self.name = self._source.name
        self._number = 0
        self._beginning: records.Beginning | None = None

    async def begin(self) -> records.Beginning:
        """Open the file and return what its first line says; again is the same.

        Raises what `import_sessions` does for a file that is no export, or can not be read.
        """
        if self._beginning is None:
            self._beginning = await self._begin()
        return self._beginning

    async def _begin(self) -> records.Beginning:
        await self._in_thread(self._source.begin)
        line = await self._in_thread(self._source.line, 1)
        self._number = 1
        if line.startswith(GZIP):  # a stream that can not be looked into beforehand
            raise ForeignFile(self.name, "it is compressed: give it through zcat, or as a file")
        try:
            version = _Versioned.of(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ForeignFile(self.name, "it is not an export of Sojourn") from None
        if version > records.VERSION:
            reason = f"it has format {version}, this Sojourn knows up to {records.VERSION}"
            raise NewerSchema(self.name, f"{reason}; upgrade Sojourn to import it")
        record = opened(line, 1, records.decode, self.name)
        if not isinstance(record, records.Beginning):
            raise ForeignFile(self.name, "it is not an export of Sojourn")
        return record

    async def some(self) -> tuple[list[tuple[int, records.Record]], Corrupt | None]:
        """Return the next records, up to the last or the first that is damaged, which comes too."""
        return await self._in_thread(self._some)

    def _some(self) -> tuple[list[tuple[int, records.Record]], Corrupt | None]:
        found: list[tuple[int, records.Record]] = []
        size = 0
        while size < READ_BYTES:
            number = self._number + 1
            try:
                line = self._source.line(number)
                if not line:
                    reason = "the file was cut off: it has no last line that says that it is whole"
                    raise broken(self.name, number, reason)
                record = opened(line, number, records.decode, self.name)
            except Corrupt as error:
                return found, error
            self._number = number
            found.append((number, record))
            size += len(line)
            if isinstance(record, records.End):
                break
        return found, None

    async def end(self) -> None:
        """Raise `Corrupt` if the file goes on behind its last line."""
        if await self._in_thread(self._source.line, self._number + 1):
            raise broken(
                self.name, self._number + 1, "it stands behind the last line of the export"
            )

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await in_thread(call, *arguments, ours=self._source.ours)

    def close(self) -> None:
        """Close the file."""
        self._source.close()


class _Versioned(msgspec.Struct):
    """As much of a first line as every version has."""

    record: str
    version: int

    @classmethod
    def of(cls, line: bytes) -> int:
        """Return the version of the file that begins with this line."""
        found = msgspec.json.decode(line, type=cls)
        if found.record != "export":
            raise msgspec.ValidationError
        return found.version


class _Sharing:
    """Puts tiers and documents of apps, many at a time."""

    def __init__(
        self, store: TransferStore, *, replace: bool, durability: Durability | None
    ) -> None:
        self._store = store
        self._replace = replace
        self._durability: Durability | None = durability
        self._app = ""
        self._items: list[Tier | StoredDocument] = []
        self._size = 0
        self.put = 0

    async def add(self, app: str, item: Tier | StoredDocument) -> None:
        """Put an item, sooner or later."""
        if app != self._app or self._size > DUMP_BYTES:
            await self.flush()
        self._app = app
        self._items.append(item)
        self._size += item_weight(item)

    async def flush(self) -> None:
        """Put what waits."""
        if not self._items:
            return
        restore = RestoreShared(
            app=self._app,
            items=tuple(self._items),
            replace=self._replace,
            durability=self._durability,
        )
        await self._store.restore_shared(restore)
        self._items, self._size = [], 0


class _Large:
    """A session whose parts are coming: its header, its restore, and what came of it so far."""

    def __init__(self, header: Header, line: int, op: bytes) -> None:
        self.header = header
        self.line = line
        self.op = op
        self.outcome: str | SojournError = "partial"


class _Skipped(NamedTuple):
    """A session of an app that was not chosen, and whether parts of it are still to come."""

    app: str
    id: str
    more: bool


class _Import:
    """One import under way."""

    def __init__(
        self, putter: Putter, sharing: _Sharing, apps: set[str] | None, ids: IdSource
    ) -> None:
        self._putter = putter
        self._sharing = sharing
        self._apps = apps
        self._ids = ids
        self._name = ""
        self._waiting: list[tuple[int, Snapshot]] = []
        self._size = 0
        self._large: _Large | None = None
        self._skipped: _Skipped | None = None
        self._outcomes = {"restored": 0, "unchanged": 0}
        self._refusals = Refusals()
        self._tiers = 0
        self._documents = 0
        self._seen = 0
        self._broken_off = 0

    async def run(self, lines: Lines, progress: Progress | None) -> Imported:
        """Put everything; return what was done."""
        self._name = lines.name
        beginning = await lines.begin()
        count = walking.Count(progress, beginning.sessions)
        count.begin("importing")
        number, ended = 1, False
        while not ended:
            found, damage = await lines.some()
            seen = self._seen
            for number, record in found:
                await self._take(number, record)
                ended = isinstance(record, records.End)
            await self._flush()
            count.advance(self._seen - seen)
            if damage is not None:
                raise damage
        await lines.end()
        return Imported(
            restored=self._outcomes["restored"],
            unchanged=self._outcomes["unchanged"],
            refused=self._refusals.count,
            tiers=self._tiers,
            documents=self._documents,
            lines=number,
            refusals=tuple(self._refusals.first),
        )

    async def _take(self, number: int, record: records.Record) -> None:
        """Put what a line holds, or let it wait for others."""
        try:
            item = self._read(record)
        except WRONG as error:
            await self._flush()
            raise broken(self._name, number, str(error)) from error
        if isinstance(item, Snapshot):
            if item.part:
                await self._put_part(item)
            else:
                await self._put_session(number, item)
        elif item is not None:
            await self._sharing.add(*item)

    def _read(self, record: records.Record) -> Snapshot | tuple[str, Tier | StoredDocument] | None:
        """Return what a line holds, checked; `None` when there is nothing to put."""
        if isinstance(record, records.PartRecord):
            return self._read_part(record)
        self._give_up_large()
        if isinstance(record, records.SessionRecord):
            return self._read_session(record)
        if isinstance(record, records.TierRecord | records.AppDocument):
            return self._read_shared(record)
        if isinstance(record, records.Beginning):
            raise Corrupt("the file", "it begins a second time")
        if record.sessions != self._seen - self._broken_off:
            raise Corrupt("the file", f"it has {self._seen} sessions, not {record.sessions}")
        return None

    def _read_session(self, record: records.SessionRecord) -> Snapshot | None:
        self._seen += 1
        if not self._wanted(record.app):
            self._skipped = _Skipped(record.app, record.id, record.more)
            return None
        snapshot = records.to_snapshot(record)
        check_snapshot(snapshot)
        return snapshot

    def _read_part(self, record: records.PartRecord) -> Snapshot | None:
        if self._skipped is not None and self._skipped[:2] == (record.app, record.id):
            self._skipped = self._skipped._replace(more=record.more)
            return None
        large = self._large
        if large is None or (large.header.app, large.header.id) != (record.app, record.id):
            raise Corrupt("the part", "the session that it is of does not stand before it")
        part = records.to_part(record, large.header)
        check_part(part)
        return part

    def _read_shared(
        self, record: records.TierRecord | records.AppDocument
    ) -> tuple[str, Tier | StoredDocument] | None:
        if not self._wanted(record.app):
            return None
        if isinstance(record, records.TierRecord):
            tier = records.to_tier(record)
            check_tier(record.app, tier)
            self._tiers += 1
            return record.app, tier
        document = records.to_document(record.document)
        check_document(document, record.app)
        self._documents += 1
        return record.app, document

    async def _put_session(self, number: int, snapshot: Snapshot) -> None:
        if not snapshot.last:
            await self._flush()
            self._large = _Large(snapshot.header, number, self._ids.operation())
            self._large.outcome = await self._putter.put_part(snapshot, self._large.op)
            return
        self._waiting.append((number, snapshot))
        self._size += weight(snapshot)
        if len(self._waiting) >= TOGETHER or self._size > DUMP_BYTES:
            await self._flush()

    async def _put_part(self, part: Snapshot) -> None:
        large = self._large
        assert large is not None  # the part was read as one of it
        if large.outcome == "partial":
            large.outcome = await self._putter.put_part(part, large.op)
        if part.last:
            self._large = None
            self._note(large.line, large.header, large.outcome)

    def _give_up_large(self) -> None:
        """Note a session whose parts broke off: it could not be read when it was exported."""
        skipped, self._skipped = self._skipped, None
        if skipped is not None and skipped.more:
            self._broken_off += 1
        large, self._large = self._large, None
        if large is not None:
            self._broken_off += 1
            reason = "its later parts are not in the file"
            self._note(large.line, large.header, Corrupt(f"session {large.header.id!r}", reason))

    async def _flush(self) -> None:
        """Put what waits."""
        await self._sharing.flush()
        waiting, self._waiting, self._size = self._waiting, [], 0
        outcomes = await self._putter.put(snapshot for _, snapshot in waiting)
        for (number, snapshot), outcome in zip(waiting, outcomes, strict=True):
            self._note(number, snapshot.header, outcome)

    def _note(self, line: int, header: Header, outcome: str | SojournError) -> None:
        if isinstance(outcome, str):
            self._outcomes[outcome] += 1
        else:
            self._refusals.add(Refusal(header.app, header.id, outcome, line))

    def _wanted(self, app: str) -> bool:
        return self._apps is None or app in self._apps
