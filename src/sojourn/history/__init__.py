"""History: chat messages over a session's log, seen whole or through a window, budget or summary.

Messages are events of the kind `message`, summaries are events of the kind `summary`. What is
stored stays as it is; strategies only choose what to show.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sojourn.errors import InvalidQuery, SojournError, SummaryFailed
from sojourn.history.messages import Message, event_of, numbered
from sojourn.history.strategies import (
    LastMessages,
    RollingSummary,
    Strategy,
    TokenBudget,
    chosen,
)
from sojourn.history.summaries import Summaries, Summary, loaded
from sojourn.history.transcript import CutMeanwhile, Glimpse, Transcript
from sojourn.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sojourn.appending import Appending
    from sojourn.committing import Policy
    from sojourn.lease import Lease
    from sojourn.model import Event
    from sojourn.reading import Reading
    from sojourn.store import Durability

__all__ = [
    "History",
    "LastMessages",
    "Message",
    "RollingSummary",
    "Strategy",
    "Summary",
    "TokenBudget",
]

log = logging.getLogger("sojourn")


class History:
    """The conversation of one session."""

    def __init__(self, reading: Reading, appending: Appending, session: Session | str) -> None:
        """Made by `SessionManager.history`."""
        if not isinstance(session, Session | str):
            raise InvalidQuery("session", f"give a Session or an id, not {type(session).__name__}")
        self._reading = reading
        self._appending = appending
        self._target = session
        self._id = session.id if isinstance(session, Session) else session

    async def append(
        self,
        message: Mapping[str, Any],
        *more: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
        conflict: Policy = "merge",
        lease: Lease | None = None,
        durability: Durability | None = None,
    ) -> Event:
        """Append messages in one commit, exactly as given; return the event of the last one.

        A message is a mapping with a `role`; `content` is text, `None` or a list of parts, each of
        `tool_calls` has an `id`, a tool's message has a `tool_call_id`. Other keys are kept, the
        mapping is not. `state` goes into the same commit. Raises `InvalidQuery`, naming the part,
        for something else, and what `SessionManager.append` raises; nothing is stored then.
        """
        events = [event_of(each) for each in (message, *more)]
        stored = await self._appending.append(
            self._target, events, state=state, conflict=conflict, lease=lease, durability=durability
        )
        return stored[-1]

    async def load(
        self, strategy: Strategy | None = None, *, last: int | None = None, expired: bool = False
    ) -> list[Message]:
        """Return messages, oldest first: all, the `last` so many, or what a strategy shows.

        A strategy shows no tool result without its call, and always the newest message.
        `RollingSummary` may summarise first; if that fails, it is logged, what was not summarised
        is shown as it is, and for a while nobody is kept waiting for that again. `expired` is for
        end hooks: it also reads a session past its deadline. Raises `NotFound` for a missing
        session, and `InvalidQuery`.
        """
        strategy = chosen(strategy, last)
        if isinstance(strategy, RollingSummary):
            return await self._summarised(strategy, expired=expired)
        transcript = Transcript(self._reading, self._target, expired=expired)
        if strategy is None:
            return await transcript.all()
        return await _windowed(transcript, strategy)

    async def compact(
        self, strategy: RollingSummary, *, lease: Lease | None = None
    ) -> Summary | None:
        """Make the next summary now, if it is due, and return it once it is stored.

        For work in the background, where a `load` should not wait. It speaks for at most
        `MESSAGES_AT_ONCE` messages more than the last one: call it again until it returns `None`,
        which it also does when another summary was faster or the messages are gone. Nothing is
        removed. Raises `SummaryFailed`, `NotFound` or `Ended`, and `LeaseLost`.
        """
        if not isinstance(strategy, RollingSummary):
            raise InvalidQuery("strategy", f"give a RollingSummary, not {type(strategy).__name__}")
        if strategy.summarize is None:
            raise InvalidQuery("strategy.summarize", "give what makes the summary")
        return await self._summaries().extend(strategy, lease, insists=True)

    async def summary(self, *, expired: bool = False) -> Summary | None:
        """Return the summary that counts, `None` when there is none. Raises `NotFound`."""
        return await self._summaries(expired=expired).newest()

    async def clear(self, *, conflict: Policy = "merge", lease: Lease | None = None) -> None:
        """Remove the session's whole log: messages, summaries, and events of other kinds.

        State, documents and the session itself stay; numbers are not used again. Raises what
        `SessionManager.truncate` does.
        """
        if conflict == "fail" and not isinstance(self._target, Session):
            raise InvalidQuery("conflict", "'fail' needs a session that was loaded, not an id")
        session = await loaded(self._reading, self._target)
        await self._appending.truncate(session, after=0, conflict=conflict, lease=lease)

    async def _summarised(self, strategy: RollingSummary, *, expired: bool) -> list[Message]:
        summaries = self._summaries(expired=expired)
        excerpt = await summaries.excerpt()
        if strategy.summarize is not None and not expired and excerpt.due(strategy):
            try:
                await summaries.extend(strategy)
            except SojournError as error:
                # What the summariser said may quote the conversation: only its name is logged.
                log.warning(
                    "the history of session %r was not summarised: %s",
                    self._id,
                    error.reason if isinstance(error, SummaryFailed) else type(error).__name__,
                )
            excerpt = await summaries.excerpt()
        return excerpt.shown(strategy)

    def _summaries(self, *, expired: bool = False) -> Summaries:
        return Summaries(self._reading, self._appending, self._target, expired=expired)


async def _windowed(transcript: Transcript, strategy: LastMessages | TokenBudget) -> list[Message]:
    """Return the preamble and the newest messages that fit behind it."""
    if isinstance(strategy, LastMessages) and strategy.n == 0:
        return await transcript.none()
    while True:
        try:
            glimpse = await transcript.glimpse(strategy.page)
            if glimpse is None:
                return await _windowed_in_parts(transcript, strategy)
            return await _windowed_from(glimpse, transcript, strategy)
        except CutMeanwhile:
            continue


async def _windowed_from(
    glimpse: Glimpse, transcript: Transcript, strategy: LastMessages | TokenBudget
) -> list[Message]:
    """Return what fits, most of which was read at once; what is read further fits behind that."""
    preamble, newest = glimpse.preamble, glimpse.newest
    if isinstance(strategy, LastMessages):
        enough = glimpse.whole or len(newest) == strategy.n
        if enough and not any("tool_call_id" in message for message in newest):
            return [*preamble, *newest]  # nothing to pair, so nothing to leave out
    window = strategy.window(preamble)
    page = numbered(glimpse.entries[glimpse.start :], newest)
    after = glimpse.entries[glimpse.lead - 1].seq if glimpse.lead else 0
    await transcript.fill(window, page, after=after, whole=glimpse.whole, further=strategy.further)
    return [*preamble, *(item.message for item in window.shown())]


async def _windowed_in_parts(
    transcript: Transcript, strategy: LastMessages | TokenBudget
) -> list[Message]:
    """Return what fits behind a preamble that had to be read apart."""
    preamble = await transcript.preamble()
    after = preamble[-1].seq if preamble else 0
    window = strategy.window([item.message for item in preamble])
    page = await transcript.page(strategy.page, after=after)
    whole = len(page) < strategy.page
    await transcript.fill(window, page, after=after, whole=whole, further=strategy.further)
    await transcript.check(preamble)
    return [item.message for item in (*preamble, *window.shown())]
