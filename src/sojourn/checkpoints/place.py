"""Where the checkpoints of one session are: reads and commits of its documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sojourn.arguments import flag
from sojourn.checkpoints.record import (
    COLLECTION,
    LEAD_BYTES,
    LONGEST_LEAD,
    WHOLE_LEAD,
    is_whole,
    saved_in,
)
from sojourn.errors import Conflict, NotFound
from sojourn.names import is_name
from sojourn.session import Session
from sojourn.store import Change, DocumentQuery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sojourn.checkpoints.record import Saved
    from sojourn.context import Context
    from sojourn.model import StoredDocument
    from sojourn.reading import Reading
    from sojourn.store import Committed, Deadlines, Drop, Durability, Put

T = TypeVar("T")

SETTLE_ATTEMPTS = 32
"""Tries at a commit that expects a revision. Who keeps losing does without where that does no harm
(a body is stored a second time, or removed later), and else raises `Conflict`."""


class Seen(NamedTuple):
    """An incarnation of the session and its revision, as a commit may expect them."""

    epoch: str
    revision: int


class Place:
    """The documents of one session, as checkpoints use them.

    Made for a working copy, it writes only to that incarnation of the session, and the copy takes
    note of the commits.
    """

    def __init__(self, context: Context, reading: Reading, session: Session | str) -> None:
        self.context = context
        self._reading = reading
        self._session = session if isinstance(session, Session) else None
        self.id = session.id if isinstance(session, Session) else session
        self._epoch = None if self._session is None else self._session.epoch

    async def seen(self) -> Seen:
        """Return the revision to expect. Raises `NotFound` for a session that is missing."""
        record = None
        if is_name(self.id):
            record = await self._reading.record(self.id)
        if record is None or self._epoch not in (None, record.header.epoch):
            raise NotFound(str(self.id))
        return Seen(record.header.epoch, record.header.revision)

    def known(self) -> Seen | None:
        """Return the revision that the working copy has seen, if it knows of nobody else's commits.

        It may have moved on: a commit that expects it says so.
        """
        session = self._session
        if session is None or not session.revision or session.revision != session.header.revision:
            return None
        return Seen(session.epoch, session.revision)

    @property
    def is_crowded(self) -> bool:
        """Whether somebody here has lost a try and is at it: who goes ahead makes them lose on."""
        return self.context.turn(self.id).locked()

    async def settled(self, work: Callable[[Seen], Awaitable[T]], first: Seen | None = None) -> T:
        """Return what `work` does: it looks, and commits only at the revision that it is given.

        If others got ahead it is done again, from what it looks at on; from then on those of this
        manager take turns, and whoever comes meanwhile waits for them, so that however many there
        are, each comes to its end. `first` is the revision to try first, if one is known. Raises
        `Conflict` in a session that is never still.
        """
        if not self.is_crowded:
            try:
                return await work(first or await self.seen())
            except Conflict:
                pass
        async with self.context.turn(self.id):
            for _attempt in range(SETTLE_ATTEMPTS - 1):
                try:
                    return await work(await self.seen())
                except Conflict:
                    continue
            return await work(await self.seen())

    async def commit(
        self,
        parts: Sequence[Put | Drop],
        *,
        epoch: str | None = None,
        expect: Seen | None = None,
        durability: Durability | None = None,
        now: int | None = None,
        deadlines: Deadlines | None = None,
    ) -> Committed:
        """Put and drop in one commit, in this incarnation, and at this revision if one is expected.

        With `deadlines` the session has those from then on. Raises `NotFound` or `Ended`, and
        `Conflict` when the session moved on.
        """
        if not is_name(self.id):
            raise NotFound(str(self.id))
        context = self.context
        change = Change(
            app=context.app,
            id=self.id,
            op=context.ids.operation(),
            now=context.now() if now is None else now,
            epoch=epoch or self._epoch if expect is None else expect.epoch,
            revision=None if expect is None else expect.revision,
            documents=tuple(parts),
            deadlines=deadlines,
            durability=context.durability(durability),
        )
        return await context.commit(change, self._taken)

    def _taken(self, committed: Committed) -> None:
        if self._session is not None:
            self._session.committed(committed.header, committed.revision)

    # --- checkpoints ---------------------------------------------------------------------------

    async def saved(self, id: object, *, expired: bool = False) -> Saved | None:
        """Return a checkpoint, with its body if that is inline; `None` when there is none."""
        found = await self.document(COLLECTION, id, expired=expired)
        return None if found is None else saved_in(found)

    async def latest(self, *, expired: bool = False) -> Saved | None:
        """Return the checkpoint that was saved last, in one read."""
        found = await self._listing(
            COLLECTION, limit=1, newest=True, lead=WHOLE_LEAD, expired=expired
        )
        return saved_in(found[0]) if found else None

    async def newest(
        self, limit: int, *, before: int | None = None, expired: bool = False
    ) -> list[Saved]:
        """Return checkpoints below a number, the last saved first, without bodies."""
        found: Sequence[StoredDocument] = ()
        for lead in (LEAD_BYTES, LONGEST_LEAD):
            found = await self._listing(
                COLLECTION, limit=limit, newest=True, before=before, lead=lead, expired=expired
            )
            if all(map(is_whole, found)):
                break
        return [saved_in(document) for document in found]

    # --- documents -----------------------------------------------------------------------------

    async def document(
        self, collection: str, key: object, *, expired: bool = False
    ) -> StoredDocument | None:
        """Return a document, `None` when there is none. A malformed name is none."""
        now, expired = self.context.now(), flag("expired", expired)
        if not (is_name(self.id) and type(key) is str and is_name(key)):
            return None
        return await self.context.store.document(
            DocumentQuery(
                app=self.context.app,
                id=self.id,
                collection=collection,
                key=key,
                now=now,
                expired=expired,
            )
        )

    async def listing(
        self, collection: str, *, after: str | None = None, limit: int, lead: int = 0
    ) -> Sequence[StoredDocument]:
        """Return documents ascending by key, with the beginnings of their bodies."""
        return await self._listing(collection, after=after, limit=limit, lead=lead)

    async def _listing(
        self,
        collection: str,
        *,
        limit: int,
        lead: int,
        after: str | None = None,
        newest: bool = False,
        before: int | None = None,
        expired: bool = False,
    ) -> Sequence[StoredDocument]:
        now, expired = self.context.now(), flag("expired", expired)
        if not is_name(self.id):
            return ()
        return await self.context.store.documents(
            DocumentQuery(
                app=self.context.app,
                id=self.id,
                collection=collection,
                now=now,
                after=after,
                limit=limit,
                newest=newest,
                before=before,
                lead=lead,
                expired=expired,
            )
        )
