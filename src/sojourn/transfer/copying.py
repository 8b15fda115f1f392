"""Copying: one store follows another, while both are in use, however often it is interrupted.

A copy goes over each app three times. First it puts what the target lacks or has an older revision
of, told by the headers alone: what an earlier copy has put costs nothing. Then it takes away what
it has put and the source has deleted since. Last it reads both sides whole and compares checksums;
what differs is put again.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sojourn.arguments import flag, level
from sojourn.errors import AlreadyExists, Conflict, Corrupt, InvalidQuery, SojournError
from sojourn.ports import RandomIds, SystemClock
from sojourn.store import Delete, Placed, Walk, place_of
from sojourn.transfer import walking
from sojourn.transfer.checksum import checksum, checksum_of
from sojourn.transfer.journal import Journal, Note
from sojourn.transfer.putting import REPORTED, Putter, Refusal
from sojourn.transfer.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.model import Header
    from sojourn.ports import Clock, IdSource
    from sojourn.store import Durability, Snapshot, Store
    from sojourn.transfer.walking import Progress, TransferStore

ROUNDS = 3
"""Times that a session which changes while it is compared is put and compared again."""


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy did, and how the target stands to the source.

    `verified` sessions are the same on both sides, by checksum; `behind` ones changed while they
    were compared, so the next copy brings them; `different` ones are not the same, nor can they
    become so, nor are shared things that are damaged in the source: each is among `refusals` (the
    first of them) with its reason, shared ones without an id. `put` and `removed` count what was
    written, `shared` the tiers and documents of apps that were.
    """

    put: int
    removed: int
    shared: int
    verified: int
    behind: int
    different: int
    refusals: tuple[Refusal, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every session of the source was the same in the target."""
        return not self.behind and not self.different


async def copy(
    source: Store,
    target: Store,
    *,
    apps: Iterable[str] | None = None,
    final: bool = False,
    durability: Durability | None = None,
    clock: Clock | None = None,
    ids: IdSource | None = None,
    progress: Progress | None = None,
) -> Copied:
    """Make the target have every session of the source, exactly; any kind of store to any other.

    Writers may go on in the source. Interrupted or finished, copy again: it goes on from what the
    target has, brings what changed, and removes what it had put and the source has deleted. A
    source is known again by its place (`sojourn.store.Placed`). What the target has of its own, or
    from elsewhere, stays; where it is in the way (another session with that id, a session that was
    written to in the target, a role that is taken) it stays too and is reported. Tiers and
    documents of apps become what they are in the source, key by key of the source's tiers.

    `apps` chooses some. `final` says that no copy follows: what was noted down in the target for
    the next one is removed (else it expires after 30 days). Raises `InvalidId`, `InvalidQuery` for
    a store onto itself and for arguments that make no sense, `Unavailable` for trouble with a store
    or one without transfer.
    """
    final, durability = flag("final", final), level(durability)
    if source is target or (isinstance(source, Placed) and source.place == place_of(target)):
        raise InvalidQuery("target", "it is the source; give two stores")
    ours, theirs = walking.transferable(source), walking.transferable(target)
    work = _Copy(
        ours,
        theirs,
        clock=clock or SystemClock(),
        ids=ids or RandomIds(),
        durability=durability,
    )
    return await work.run(apps, progress, final=final)


RETRIED = 10_000
"""Sessions of an app that differ and are tried once more at the end; more are only counted."""


class _App(NamedTuple):
    """One app, with what is noted of it and what its sessions share."""

    name: str
    journal: Journal
    sharing: Sharing


class _Sum(NamedTuple):
    """A session as it was read: its header and its checksum."""

    header: Header
    text: str


class _Copy:
    """One copy under way."""

    def __init__(
        self,
        source: TransferStore,
        target: TransferStore,
        *,
        clock: Clock,
        ids: IdSource,
        durability: Durability | None,
    ) -> None:
        self._source = source
        self._target = target
        self._clock = clock
        self._ids = ids
        self._putter = Putter(target, replace=True, ids=ids, clock=clock, durability=durability)
        self._count = walking.Count(None, 0)
        self._put = 0
        self._removed = 0
        self._shared = 0
        self._verified = 0
        self._behind = 0
        self._different = 0
        self._refusals: list[Refusal] = []

    async def run(
        self, chosen: Iterable[str] | None, progress: Progress | None, *, final: bool
    ) -> Copied:
        """Copy app after app; return what was done."""
        apps = await walking.apps_of(self._source, chosen)
        if chosen is None:  # an app that has nothing left may have left something in the target
            apps = list(dict.fromkeys(apps + await walking.apps_of(self._target, None)))
        total = await walking.about(self._source, apps)
        self._count = walking.Count(progress, total)
        self._count.begin("copying")
        for app in apps:
            await self._bring_app(self._app(app))
        self._count.begin("verifying")
        for app in apps:
            await self._verify_app(self._app(app))
            if final:
                await self._app(app).journal.clear()
        return Copied(
            put=self._put,
            removed=self._removed,
            shared=self._shared,
            verified=self._verified,
            behind=self._behind,
            different=self._different,
            refusals=tuple(self._refusals),
        )

    def _app(self, name: str) -> _App:
        place = place_of(self._source)
        journal = Journal(self._target, place, name, clock=self._clock, ids=self._ids)
        sharing = Sharing(
            self._source, self._target, name, journal, clock=self._clock, ids=self._ids
        )
        return _App(name, journal, sharing)

    # --- putting -------------------------------------------------------------------------------

    async def _bring_app(self, app: _App) -> None:
        """Put what the target lacks, told by the headers."""
        self._shared += (await app.sharing.bring()).put
        async for page in walking.headers(self._source, app.name, self._clock):
            theirs = await self._headers(self._target, app, [h.id for h in page.headers])
            wanted = [ours.id for ours in page.headers if _is_behind(theirs.get(ours.id), ours)]
            if wanted:
                await self._bring(app, wanted)
            self._count.advance(len(page.headers) + len(page.corrupt))

    async def _headers(
        self, store: TransferStore, app: _App, ids: Sequence[str]
    ) -> dict[str, Header]:
        """Return the headers of those sessions that are there."""
        found: dict[str, Header] = {}
        for first in range(0, len(ids), walking.PAGE):
            some = tuple(ids[first : first + walking.PAGE])
            walk = Walk(app=app.name, now=self._clock.now(), ids=some, limit=len(some))
            found.update({header.id: header for header in (await store.headers(walk)).headers})
        return found

    async def _bring(self, app: _App, ids: Sequence[str]) -> dict[str, SojournError]:
        """Put sessions as they are now; return those that the target refused, and why."""
        refused: dict[str, SojournError] = {}
        async for page in walking.dumps(self._source, app.name, self._clock, tuple(ids)):
            together: list[Snapshot] = []
            for snapshot in page.snapshots:  # in this order: a parent comes before its children
                if snapshot.last:
                    together.append(snapshot)
                    continue
                await self._bring_whole(app, together, refused)
                together = []
                outcome = await self._bring_parts(app, snapshot.header.id)
                self._outcome(snapshot.header.id, outcome, refused)
            await self._bring_whole(app, together, refused)
        return refused

    async def _bring_whole(
        self, app: _App, snapshots: Sequence[Snapshot], refused: dict[str, SojournError]
    ) -> None:
        if not snapshots:
            return
        await self._note(app, [snapshot.header for snapshot in snapshots])
        outcomes = await self._putter.put(snapshots)
        for snapshot, outcome in zip(snapshots, outcomes, strict=True):
            self._outcome(snapshot.header.id, outcome, refused)

    async def _bring_parts(self, app: _App, id: str) -> str | SojournError:
        async def noted(header: Header) -> None:
            await self._note(app, [header])

        parts = self._source.parts(app.name, id, self._clock.now())
        return await self._putter.put_parts(parts, noted)

    async def _note(self, app: _App, headers: Iterable[Header]) -> None:
        """Have it on record what is about to be put."""
        sessions = tuple((header.id, header.epoch, header.revision) for header in headers)
        await app.journal.add(Note(sessions=sessions))

    def _outcome(
        self, id: str, outcome: str | SojournError, refused: dict[str, SojournError]
    ) -> None:
        if isinstance(outcome, SojournError):
            refused[id] = outcome
        elif outcome == "restored":
            self._put += 1

    # --- removing ------------------------------------------------------------------------------

    async def _prune(self, app: _App) -> None:
        """Remove what was put and is gone from the source; put what took its place there."""
        async for note in app.journal.notes():
            self._removed += await app.sharing.prune(note)
            reborn: list[str] = []
            ids = [id for id, _, _ in note.sessions]
            ours = await self._headers(self._source, app, ids)
            theirs = await self._headers(self._target, app, ids)
            for id, epoch, revision in note.sessions:
                if not _is_stray(ours.get(id), theirs.get(id), epoch, revision):
                    continue
                if id not in ours and await self._is_damaged(app, id):
                    continue  # it can not be read; that does not mean that it is gone
                delete = Delete(
                    app=app.name, id=id, now=self._clock.now(), epoch=epoch, revision=revision
                )
                self._removed += await self._target.delete(delete)
                if id in ours:
                    reborn.append(id)
            if reborn:
                await self._bring(app, reborn)

    async def _is_damaged(self, app: _App, id: str) -> bool:
        walk = Walk(app=app.name, now=self._clock.now(), ids=(id,))
        return bool((await self._source.headers(walk)).corrupt)

    # --- verifying -----------------------------------------------------------------------------

    async def _verify_app(self, app: _App) -> None:
        """Compare both sides whole; put again what differs; say what still does."""
        await self._prune(app)
        shared = await app.sharing.bring()
        self._shared += shared.put
        for damage in shared.damages:
            self._differs(app, "", damage)
        unequal: list[str] = []
        async for page in walking.headers(self._source, app.name, self._clock):
            for error in page.corrupt:
                self._differs(app, "", error)
            left = await self._equalize(app, [header.id for header in page.headers])
            for id, reason in left.items():
                if len(unequal) < RETRIED:
                    unequal.append(id)
                else:
                    self._differs(app, id, reason)
            self._count.advance(len(page.headers) + len(page.corrupt))
        await self._prune(app)
        for first in range(0, len(unequal), walking.PAGE):  # what was in the way may be gone now
            left = await self._equalize(app, unequal[first : first + walking.PAGE])
            for id, reason in left.items():
                self._differs(app, id, reason)

    def _differs(self, app: _App, id: str, reason: SojournError | None) -> None:
        """Count a session that is not the same; without a reason it moved on meanwhile."""
        if reason is None:
            self._behind += 1
            return
        self._different += 1
        if len(self._refusals) < REPORTED:
            self._refusals.append(Refusal(app.name, id, reason))

    async def _equalize(self, app: _App, ids: Sequence[str]) -> dict[str, SojournError | None]:
        """Compare sessions and put what differs until nothing does; return what still does.

        The reason is `None` for a session that changes faster than it is compared.
        """
        left: dict[str, SojournError | None] = dict.fromkeys(ids)
        for attempt in range(ROUNDS):
            if attempt:
                refused = await self._bring(app, list(left))
                left = {id: refused.get(id) for id in left}
            ours = await self._sums(self._source, app, list(left))
            theirs = await self._sums(self._target, app, [id for id in left if id in ours])
            differing = {
                id: left[id] or _difference(mine, theirs.get(id))
                for id, mine in ours.items()
                if not _is_same(mine, theirs.get(id))
            }
            self._verified += len(ours) - len(differing)
            left = differing
            if not left:
                break
        return left

    async def _sums(
        self, store: TransferStore, app: _App, ids: Sequence[str]
    ) -> dict[str, _Sum | Corrupt]:
        """Read sessions whole; return the header and checksum of each that is there."""
        found: dict[str, _Sum | Corrupt] = {}
        damages: list[Corrupt] = []
        async for page in walking.dumps(store, app.name, self._clock, tuple(ids)):
            damages += page.corrupt
            for snapshot in page.snapshots:
                id = snapshot.header.id
                try:
                    if snapshot.last:
                        found[id] = _Sum(snapshot.header, checksum(snapshot))
                        continue
                    parts = store.parts(app.name, id, self._clock.now())
                    async with aclosing(parts):
                        whole = await checksum_of(parts)
                    if whole is not None:
                        found[id] = _Sum(*whole)
                except Corrupt as error:
                    found[id] = error
        if damages:  # which sessions they are about is told by what else is missing
            missing = [id for id in ids if id not in found]
            for id in await self._headers(store, app, missing):
                named = (damage for damage in damages if repr(id) in damage.key)
                found[id] = next(named, damages[0])
        return found


def _is_behind(theirs: Header | None, ours: Header) -> bool:
    """Return whether the target's session can be brought forward to the source's."""
    if theirs is None:
        return True
    if theirs.epoch != ours.epoch:
        return False  # what is there may be ours from before, or somebody else's: see `_prune`
    order = [(it.revision, it.active_at, it.fence) for it in (theirs, ours)]
    return any(here < there for here, there in zip(*order, strict=True))


def _is_stray(ours: Header | None, theirs: Header | None, epoch: str, revision: int) -> bool:
    """Return whether what the target has is what was put, and no more what the source has."""
    if theirs is None or (theirs.epoch, theirs.revision) != (epoch, revision):
        return False
    return ours is None or ours.epoch != epoch


def _is_same(ours: _Sum | Corrupt, theirs: _Sum | Corrupt | None) -> bool:
    """Return whether two sessions are equal, and the target's as lively as the source's."""
    if not isinstance(ours, _Sum) or not isinstance(theirs, _Sum) or ours.text != theirs.text:
        return False
    return not _is_behind(theirs.header, ours.header)


def _difference(ours: _Sum | Corrupt, theirs: _Sum | Corrupt | None) -> SojournError | None:
    """Return why two sessions are not equal, `None` if one only moved on."""
    if isinstance(ours, Corrupt):
        return ours
    if theirs is None or isinstance(theirs, Corrupt):
        return theirs
    mine, other = ours.header, theirs.header
    if mine.epoch != other.epoch:
        return AlreadyExists(mine.id, "the target has another session with this id")
    if mine.revision > other.revision or ours.text == theirs.text:
        return None
    if mine.revision < other.revision:
        return Conflict(mine.id, (mine.epoch, mine.revision), (other.epoch, other.revision))
    reason = f"its checksums differ: {ours.text} in the source, {theirs.text} in the target"
    return Corrupt(f"session {mine.id!r}", reason)
