"""Reading the messages of one session: from the start, back from the end, behind a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sojourn.events import events_from
from sojourn.history.messages import MESSAGE, Message, Numbered, is_preamble, messages_in, numbered
from sojourn.limits import EVENTS_PAGE
from sojourn.session import Session
from sojourn.store import Ends, EventQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.history.windows import Window
    from sojourn.model import Entry, Event
    from sojourn.reading import Reading

PREAMBLE_PAGE = 4
"""Messages read at a time to find the end of the preamble: mostly there are one or two."""

OPENING = 3
"""Messages from the start that come along with the newest ones: enough to see the end of a preamble
of two."""

MAX_PREAMBLE = 32
"""System messages at the start that every window keeps: more of them are no preamble."""

KINDS = (MESSAGE,)


class CutMeanwhile(Exception):
    """The log was cut while it was read in parts, so the parts do not fit together: read anew."""


class Glimpse(NamedTuple):
    """Both ends of a conversation, read at one moment.

    `lead` messages are the preamble, those from `start` on the newest behind it; if `whole`, then
    there are none between the two.
    """

    entries: Sequence[Entry]
    messages: list[Message]
    lead: int
    start: int
    whole: bool

    @property
    def preamble(self) -> list[Message]:
        """The system messages that the conversation starts with."""
        return self.messages[: self.lead]

    @property
    def newest(self) -> list[Message]:
        """The newest messages behind them."""
        return self.messages[self.start :]


class Transcript:
    """The messages of one session, read when asked for."""

    def __init__(self, reading: Reading, target: Session | str, *, expired: bool) -> None:
        """`expired` also reads a session past its deadline.

        Reads raise `NotFound`, given a copy also for a later session with its id.
        """
        self._reading = reading
        self._id = target.id if isinstance(target, Session) else target
        self._epoch = target.epoch if isinstance(target, Session) else None
        self._expired = expired

    async def all(self) -> list[Message]:
        """Return every message."""
        return messages_in(await self._entries(EventQuery(kinds=KINDS)))

    async def none(self) -> list[Message]:
        """Return nothing of a session that is there."""
        return messages_in(await self._entries(EventQuery(last=0, kinds=KINDS)))

    async def glimpse(self, page: int) -> Glimpse | None:
        """Return the preamble and the newest `page` messages in one read.

        `None` if one read does not tell where the preamble ends.
        """
        entries = await self._entries(Ends(last=page, opening=OPENING, kinds=KINDS))
        before = len(entries) - page
        if before == 0:  # it may be all there is, or all that this store brings along
            return None
        messages = messages_in(entries)
        whole = before < OPENING
        known = min(len(messages) if whole else before, MAX_PREAMBLE)
        lead = 0
        while lead < known and is_preamble(messages[lead]):
            lead += 1
        if lead == before == OPENING:
            return None
        start = max(lead, before)
        return Glimpse(entries, messages, lead, start, whole and start == lead)

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

    async def behind(self, after: int, most: int | None = None) -> list[Numbered]:
        """Return the messages behind a number, the first so many of them at the most."""
        return await self._read(EventQuery(first=most, after_seq=after, kinds=KINDS))

    async def has(self, seq: int, id: str) -> bool:
        """Return whether this message is still there, and so all before it."""
        window = EventQuery(last=1, after_seq=seq - 1, before_seq=seq + 1, kinds=KINDS)
        return [(item.seq, item.id) for item in await self._read(window)] == [(seq, id)]

    async def page(self, size: int, *, after: int) -> list[Numbered]:
        """Return the newest messages behind a number."""
        return await self._read(EventQuery(last=size, after_seq=after, kinds=KINDS))

    async def fill(
        self, window: Window, page: list[Numbered], *, after: int, whole: bool, further: int
    ) -> None:
        """Give a window the messages behind `after`, from the newest back, until it is full.

        `page` are the newest of them, all if `whole`. The others are read page by page: `further`
        at first, then twice as many each time. Each page begins with the message that the one
        before it ended with: as long as that is there, nothing before it has changed. Raises
        `CutMeanwhile` when it is not.
        """
        while True:
            for item in reversed(page):
                window.add(item)
                if window.full:
                    return
            if whole:
                return
            seam = page[0]
            query = EventQuery(
                last=further + 1, after_seq=after, before_seq=seam.seq + 1, kinds=KINDS
            )
            page = await self._read(query)
            if not page or page.pop()[:2] != seam[:2]:
                raise CutMeanwhile
            whole = len(page) < further
            further = min(2 * further, EVENTS_PAGE)

    async def events(self, window: EventQuery) -> list[Event]:
        """Return events of any kind."""
        return events_from(await self._entries(window))

    async def _read(self, window: EventQuery) -> list[Numbered]:
        entries = await self._entries(window)
        return numbered(entries, messages_in(entries))

    async def _entries(self, window: EventQuery) -> Sequence[Entry]:
        return await self._reading.entries(
            self._id, window, expired=self._expired, epoch=self._epoch
        )
