"""Summaries: events that speak for the messages before them; how they are found, made and kept.

A summary names the last message that it speaks for, by number and id. It counts as long as that
message is there: a log is only ever cut at its end, so then all before it are there as well. Of
several, the one that speaks for most counts, in whatever order they were written.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Hashable
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from sojourn.errors import SojournError, SummaryFailed, TooLarge, Unserializable
from sojourn.exiting import called_in_thread
from sojourn.history.pauses import Pauses
from sojourn.history.transcript import CutMeanwhile, Transcript
from sojourn.history.windows import PAIR_REACH, Window, clean_cut
from sojourn.model import Event
from sojourn.session import Session
from sojourn.store import EventQuery

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from sojourn.appending import Appending
    from sojourn.history.messages import Message, Numbered
    from sojourn.history.strategies import RollingSummary, Summarize
    from sojourn.lease import Lease
    from sojourn.reading import Reading

GIVEN_UP_SECONDS = 5.0
"""Who is cancelled after waiting for a summary so long had no more patience with it: as good as a
failure. Who is cancelled before that may have had any reason."""

PLAIN_CALLS = 64
"""Most calls of plain summarisers under way, each in a thread; more wait for their turn, as long as
a summary may take. Those that never return keep theirs: more would be a leak without an end."""

TURN_SECONDS = 0.05
"""How often it is looked whether there is a turn."""

_summarising: ContextVar[tuple[tuple[Appending, str, asyncio.Task[object]], ...]] = ContextVar(
    "sojourn_summarising", default=()
)
"""The sessions whose summarisers the code at hand is part of: to wait for one would never end."""

_THREAD = "sojourn summary"
"""What such a thread is called."""

SUMMARY = "summary"
"""The kind of the events that summaries are."""

SUMMARIES_PAGE = 4
"""Summaries read at a time: mostly the newest is the one that counts."""

MESSAGES_AT_ONCE = 500
"""Messages given to a summariser at a time; a longer backlog takes several summaries."""


AHEAD = MESSAGES_AT_ONCE + 2 * PAIR_REACH
"""Messages behind the last summary that tell what to summarise next, if there are many more: those
to be summarised, and as many as it takes to see which results belong to their calls."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A stored summary: it speaks for all messages up to number `covers`, and lies at `seq`."""

    text: str
    covers: int
    seq: int
    at: datetime


class _Candidate(NamedTuple):
    summary: Summary
    covers_id: str


class Excerpt(NamedTuple):
    """What a rolling summary is about: the preamble, the summary, and the messages since.

    `whole` is whether these are all, and not only the first of them.
    """

    preamble: list[Numbered]
    summary: Summary | None
    since: list[Numbered]
    whole: bool

    def shown(self, strategy: RollingSummary) -> list[Message]:
        """Return the messages to show: nothing is left out but results without a call."""
        window = Window(None, strategy.weigh)
        for item in reversed(self.since):
            window.add(item)
        head = [item.message for item in self.preamble]
        middle = [] if self.summary is None else [strategy.shown(self.summary.text)]
        return [*head, *middle, *(item.message for item in window.shown())]

    def due(self, strategy: RollingSummary) -> Sequence[Numbered] | None:
        """Return the oldest messages, if it is time to summarise them.

        `None` if the first ones do not tell. They do if what is kept of them alone begins behind
        what is summarised at once: of all, it begins later still.
        """
        if sum(strategy.weigh(item.message) for item in self.since) <= strategy.bound:
            return () if self.whole else None
        window = Window(strategy.keep, strategy.weigh)
        for item in reversed(self.since):
            window.add(item)
            if window.full:
                break
        first_kept = self.since.index(window.shown()[0])
        if not self.whole and first_kept < MESSAGES_AT_ONCE:
            return None
        return self.since[: clean_cut(self.since, min(first_kept, MESSAGES_AT_ONCE))]


class Summaries:
    """The summaries of one session."""

    def __init__(
        self,
        reading: Reading,
        appending: Appending,
        target: Session | str,
        *,
        expired: bool = False,
    ) -> None:
        """`expired` also reads a session past its deadline."""
        self._reading = reading
        self._appending = appending
        self._target = target
        self._id = target.id if isinstance(target, Session) else target
        self._pauses = _pauses_of(appending)
        self._expired = expired
        self._transcript = Transcript(reading, target, expired=expired)

    async def newest(self) -> Summary | None:
        """Return the summary that counts, `None` when there is none."""
        found = await self._newest()
        return None if found is None else found.summary

    async def _newest(self) -> _Candidate | None:
        best: _Candidate | None = None
        before: int | None = None
        while True:
            covered = best.summary.covers if best else 0
            page = await self._page(before, after=covered)
            for event in reversed(page):
                found = _candidate(event)
                if found is None or found.summary.covers <= covered:
                    continue
                if await self._transcript.has(found.summary.covers, found.covers_id):
                    best, covered = found, found.summary.covers
            # What lies before a message cannot speak for it.
            if len(page) < SUMMARIES_PAGE or (page[0].seq or 0) <= covered + 1:
                return best
            before = page[0].seq

    async def _page(self, before: int | None, *, after: int) -> list[Event]:
        window = EventQuery(
            last=SUMMARIES_PAGE, before_seq=before, after_seq=after, kinds=(SUMMARY,)
        )
        return await self._transcript.events(window)

    async def excerpt(self, most: int | None = None) -> Excerpt:
        """Return what there is to show, with so many messages behind the summary at the most.

        Read again if the log is cut meanwhile.
        """
        while True:
            try:
                return await self._excerpt(most)
            except CutMeanwhile:
                continue

    async def _excerpt(self, most: int | None) -> Excerpt:
        preamble = await self._transcript.preamble()
        head = preamble[-1].seq if preamble else 0
        found = await self._newest()
        if found is None:
            later = since = await self._transcript.behind(head, most)
        else:
            # From the last message that it speaks for: while that is there, the summary counts.
            since = await self._transcript.behind(found.summary.covers - 1, most)
            if not since or since[0][:2] != (found.summary.covers, found.covers_id):
                raise CutMeanwhile
            later = [item for item in since[1:] if item.seq > head]
        await self._transcript.check(preamble)
        summary = None if found is None else found.summary
        return Excerpt(preamble, summary, later, whole=most is None or len(since) < most)

    async def _due(self, strategy: RollingSummary) -> tuple[Excerpt, Sequence[Numbered]]:
        """Return what is to be summarised now, and what it is taken from."""
        excerpt = await self.excerpt(AHEAD)
        due = excerpt.due(strategy)
        if due is None:
            excerpt = await self.excerpt()
            due = excerpt.due(strategy)
        assert due is not None  # all of them do tell
        return excerpt, due

    async def extend(
        self, strategy: RollingSummary, lease: Lease | None = None, *, insists: bool = False
    ) -> Summary | None:
        """Summarise once if it is time, and return the new summary once it is stored.

        `None` if it is not time, or if what it speaks for is summarised or gone by then. Who does
        not insist gets `None` as well while the summariser has a pause.
        """
        assert strategy.summarize is not None  # who calls has looked
        if self._is_being_summarised():
            if insists:
                raise SummaryFailed(self._id, "its summariser asks for the summary that it makes")
            return None
        async with _turn_of(self._appending, self._id, strategy.summarize):
            # First, so that nothing read from here on can end up in a later session of the same id.
            session = await loaded(self._reading, self._target)
            if self._pauses.holds(session.epoch) and not insists:
                return None
            excerpt, due = await self._due(strategy)
            if not due:
                return None
            loop = asyncio.get_running_loop()
            begun = loop.time()
            try:
                made = await self._made(session, excerpt.summary, due, strategy, lease)
            except (SojournError, asyncio.CancelledError) as error:
                if isinstance(error, SojournError) or loop.time() - begun >= GIVEN_UP_SECONDS:
                    self._pauses.begin(session.epoch, strategy.pause_span)
                raise
            self._pauses.end(session.epoch)
            return made

    def _is_being_summarised(self) -> bool:
        """Return whether this is called, however indirectly, by a summariser of this session."""
        return any(
            (of, id) == (self._appending, self._id) and not task.done()
            for of, id, task in _summarising.get()
        )

    async def _made(
        self,
        session: Session,
        before: Summary | None,
        due: Sequence[Numbered],
        strategy: RollingSummary,
        lease: Lease | None,
    ) -> Summary | None:
        """Ask for the summary that is due, and store it."""
        assert strategy.summarize is not None  # who calls has looked
        previous = None if before is None else before.text
        messages = [item.message for item in due]
        call = _called((self._appending, self._id), strategy.summarize, previous, messages)
        text = await _asked(self._id, call, strategy.seconds)
        try:
            return await self._keep(session, text, due[-1], lease)
        except (Unserializable, TooLarge) as error:
            reason = "what the summariser returned can not be stored"
            raise SummaryFailed(self._id, reason) from error

    async def _keep(
        self, session: Session, text: str, last: Numbered, lease: Lease | None
    ) -> Summary | None:
        newest = await self.newest()
        if newest is not None and newest.covers >= last.seq:
            return None
        if not await self._transcript.has(last.seq, last.id):
            return None
        event = Event(kind=SUMMARY, body={"text": text, "covers": last.seq, "covers_id": last.id})
        (stored,) = await self._appending.append(
            session, [event], state=None, conflict="merge", lease=lease, durability=None
        )
        found = _candidate(stored)
        return None if found is None else found.summary


def _turn_of(appending: Appending, session: str, summarize: Summarize) -> asyncio.Lock:
    """Return the lock of a session's summariser: of many who find a summary due, one asks for it.

    The others find it made, or that it has failed. Other summarisers and processes
    are not waited for: of two summaries of the same messages one is not kept.
    """
    turns = _turns.setdefault(appending, WeakValueDictionary())
    key = (session, _known_by(summarize))
    turn = turns.get(key)
    if turn is None:
        turn = turns[key] = asyncio.Lock()
    return turn


def _known_by(summarize: Summarize) -> Hashable:
    """Return what tells a summariser from others: a method is a new object at each look, but equal.

    One that can not be hashed is known by its number, and kept by whoever calls it.
    """
    try:
        hash(summarize)
    except TypeError:
        return id(summarize)
    return summarize


def _pauses_of(appending: Appending) -> Pauses:
    """Return the pauses of a manager's sessions."""
    pauses = _pauses.get(appending)
    if pauses is None:
        pauses = _pauses[appending] = Pauses(appending.now)
    return pauses


_pauses: WeakKeyDictionary[Appending, Pauses] = WeakKeyDictionary()
_Turns = WeakValueDictionary[tuple[str, Hashable], asyncio.Lock]
_turns: WeakKeyDictionary[Appending, _Turns] = WeakKeyDictionary()


async def loaded(reading: Reading, target: Session | str) -> Session:
    """Return the caller's copy of a session, or one of our own. Raises `NotFound`."""
    if isinstance(target, Session):
        return target
    return await reading.require(target, user=None, events=None, touch=False)


def _candidate(event: Event) -> _Candidate | None:
    """Return the summary in an event, `None` for an event of that kind that is none."""
    body = event.body
    if not isinstance(body, dict) or event.seq is None or event.at is None:
        return None
    text, covers, covers_id = body.get("text"), body.get("covers"), body.get("covers_id")
    if not isinstance(text, str) or not isinstance(covers_id, str) or type(covers) is not int:
        return None
    if not 0 < covers < event.seq:
        return None
    return _Candidate(Summary(text=text, covers=covers, seq=event.seq, at=event.at), covers_id)


async def _asked(id: str, call: Coroutine[Any, Any, object], seconds: float) -> str:
    """Return the text that a call of a summariser comes to, or raise `SummaryFailed`.

    It runs in a task of its own, so that its cancellation is told from the caller's, and it is
    not waited for beyond its time, whatever it does.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(_retrieve)
            task.cancel()
    if not task.done():
        raise SummaryFailed(id, f"the summariser took longer than {seconds:g} s")
    if task.cancelled():
        raise SummaryFailed(id, "the summariser was cancelled")
    error = task.exception()
    if isinstance(error, Exception):
        raise SummaryFailed(id, f"the summariser raised {type(error).__name__}") from error
    text = task.result()
    if type(text) is not str or not text.strip():
        raise SummaryFailed(id, "the summariser returned no text")
    return text


async def _called(
    of: tuple[Appending, str],
    summarize: Summarize,
    previous: str | None,
    messages: list[Message],
) -> object:
    """Call a summariser, in a task of its own."""
    task = asyncio.current_task()
    assert task is not None  # it was made for this
    _summarising.set((*_summarising.get(), (*of, task)))
    if inspect.iscoroutinefunction(summarize) or inspect.iscoroutinefunction(
        getattr(summarize, "__call__", None)  # noqa: B004 - an object may be async to call
    ):
        made = summarize(previous, messages)
    else:
        while _plain_calls() >= PLAIN_CALLS:  # noqa: ASYNC110 - threads that end tell no loop
            await asyncio.sleep(TURN_SECONDS)
        made = await called_in_thread(lambda: summarize(previous, messages), _THREAD)
    return await made if inspect.isawaitable(made) else made


def _plain_calls() -> int:
    """Return how many calls of plain summarisers are under way."""
    return sum(thread.name == _THREAD for thread in threading.enumerate())


def _retrieve(task: asyncio.Task[object]) -> None:
    """Look at how an abandoned task ended, so that nobody complains that no one did."""
    if not task.cancelled():
        task.exception()
