"""Reading the messages of one session: from the start, back from the end, behind a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.history.messages import MESSAGE, Numbered, is_preamble, numbered
from sojourn.limits import EVENTS_PAGE
from sojourn.store import EventQuery

if TYPE_CHECKING:
    from sojourn.history.windows import Window
    from sojourn.reading import Reading

PREAMBLE_PAGE = 4
"""Messages read at a time to find the end of the preamble: mostly there are one or two."""

MAX_PREAMBLE = 32
"""System messages at the start that every window keeps: more of them are no preamble."""

KINDS = (MESSAGE,)


class CutMeanwhile(Exception):
    """The log was cut while it was read in parts, so the parts do not fit together: read anew."""


class Transcript:
    """The messages of one session, read when asked for."""

    def __init__(self, reading: Reading, id: str, *, expired: bool) -> None:
        """`expired` also reads a session past its deadline. Reads raise `NotFound`."""
        self._reading = reading
        self._id = id
        self._expired = expired

    async def all(self) -> list[Numbered]:
        """Return every message."""
        return await self._read(EventQuery(kinds=KINDS))

    async def none(self) -> list[Numbered]:
        """Return nothing of a session that is there."""
        return await self._read(EventQuery(last=0, kinds=KINDS))

    async def preamble(self) -> list[Numbered]:
        """Return the system messages that the conversation starts with."""
        found: list[Numbered] = []
        while len(found) < MAX_PREAMBLE:
            after = found[-1].seq if found else 0
            page = await self._read(
                EventQuery(first=PREAMBLE_PAGE, after_seq=after, kinds=KINDS),
            )
            for item in page:
                if not is_preamble(item.message):
                    return found
                found.append(item)
            if len(page) < PREAMBLE_PAGE:
                return found
        return found

    async def check(self, preamble: list[Numbered]) -> None:
        """Raise `CutMeanwhile` if a preamble that was read is not there any more."""
        if preamble and not await self.has(preamble[-1].seq, preamble[-1].id):
            raise CutMeanwhile

    async def behind(self, after: int) -> list[Numbered]:
        """Return the messages behind a number."""
        return await self._read(EventQuery(after_seq=after, kinds=KINDS))

    async def has(self, seq: int, id: str) -> bool:
        """Return whether this message is still there, and so all before it."""
        window = EventQuery(last=1, after_seq=seq - 1, before_seq=seq + 1, kinds=KINDS)
        return [(item.seq, item.id) for item in await self._read(window)] == [(seq, id)]

    async def fill(self, window: Window, *, after: int, pages: tuple[int, int]) -> None:
        """Give a window the messages behind `after`, from the newest back, until it is full.

        They are read page by page: `pages` says how many at first and then, after that twice as
        many each time. Each page begins with the message that the one before it ended with: as
        long as that is there, nothing before it has changed. Raises `CutMeanwhile` when it is not.
        """
        seam: Numbered | None = None
        page, further = pages
        while True:
            before = None if seam is None else seam.seq + 1
            wanted = page if seam is None else page + 1
            query = EventQuery(last=wanted, after_seq=after, before_seq=before, kinds=KINDS)
            found = await self._read(query)
            if seam is not None and (not found or found.pop()[:2] != seam[:2]):
                raise CutMeanwhile
            for item in reversed(found):
                window.add(item)
                if window.full:
                    return
            if len(found) < page:
                return
            seam = found[0]
            page, further = further, min(2 * further, EVENTS_PAGE)

    async def _read(self, window: EventQuery) -> list[Numbered]:
        entries = await self._reading.entries(self._id, window, expired=self._expired)
        return [numbered(entry) for entry in entries]
