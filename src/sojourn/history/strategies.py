"""Strategies: which part of a history to show. They are views; none of them removes anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sojourn.errors import InvalidQuery
from sojourn.expiry import span_of
from sojourn.history.messages import Message, weight
from sojourn.history.windows import Window
from sojourn.limits import EVENTS_PAGE
from sojourn.names import is_name
from sojourn.timestamps import MICROSECONDS

Count = Callable[[Message], int]
"""What a message weighs, in tokens or whatever the caller counts."""

Summarize = Callable[[str | None, list[Message]], Awaitable[str] | str]
"""Makes the next summary of the last one (`None` at first) and the messages that come after it."""

SUMMARY_SECONDS = 60.0
"""Time for one summary unless a strategy says otherwise: whoever loads a history waits for it."""

PAUSE_SECONDS = 30.0
"""Time in which a summariser that failed is left alone, unless a strategy says otherwise: a service
that is down is not waited for at every turn of the conversation, and is back within minutes."""

KEPT_MESSAGES = 20
"""Messages that a rolling summary leaves as they are, unless told otherwise: some ten turns."""

PAIR_SLACK = 8
"""Messages read beyond a window of so many when it cuts through a tool call: enough to see most of
them whole. They are read only then, as few windows do, and so stay short enough for one quick read.
"""

BUDGET_PAGE = 32
"""Messages that a token budget reads first."""


class LastMessages(msgspec.Struct, frozen=True):
    """The last `n` messages, fewer if that keeps tool calls and results together; 0 is none.

    The system messages at the start come on top.
    """

    n: int

    def __post_init__(self) -> None:
        _check_whole("last", self.n, 0)

    @property
    def page(self) -> int:
        """How many messages to read at first."""
        return min(self.n, EVENTS_PAGE)

    @property
    def further(self) -> int:
        """How many to read next, if those were not enough."""
        return PAIR_SLACK

    def window(self, _preamble: Sequence[Message]) -> Window:
        """Return an empty window."""
        return Window(self.n, lambda _message: 1, least=1)


class TokenBudget(msgspec.Struct, frozen=True):
    """The newest messages that weigh at most `limit` together, as `count(message)` says.

    The system messages at the start count, and are kept. So is the newest message, and with a tool
    result its call, even if they alone weigh more.
    """

    limit: int
    count: Count

    def __post_init__(self) -> None:
        _check_whole("limit", self.limit, 0)
        _check_callable("count", self.count)

    @property
    def page(self) -> int:
        """How many messages to read at first."""
        return BUDGET_PAGE

    @property
    def further(self) -> int:
        """How many to read next, if those were not enough."""
        return 2 * BUDGET_PAGE

    def window(self, preamble: Sequence[Message]) -> Window:
        """Return an empty window with the room that the preamble leaves."""
        room = self.limit - sum(weight(self.count, message) for message in preamble)
        return Window(room, lambda message: weight(self.count, message))


class RollingSummary(msgspec.Struct, frozen=True):
    """A summary of what is older, then the messages since.

    Once more than `limit` messages came since the last summary (twice `keep` by default), all but
    the newest `keep` are summarised. With `count`, both numbers are in what it counts instead of
    messages. `summarize(previous, messages)` returns the new summary, which has to speak for the
    previous one as well; it may be `async`, else it runs in a thread. It has `timeout` seconds. If
    it fails, loads of that session ask for none for `pause` seconds; `History.compact` still does.
    Without one, only what was summarised before is shown as a summary.

    The summary is shown as a message of `role`, its text behind `heading`.
    """

    summarize: Summarize | None = None
    keep: int = KEPT_MESSAGES
    limit: int | None = None
    count: Count | None = None
    timeout: float = SUMMARY_SECONDS
    pause: float = PAUSE_SECONDS
    role: str = "system"
    heading: str = "Summary of earlier conversation: "

    def __post_init__(self) -> None:
        if self.summarize is not None:
            _check_callable("summarize", self.summarize)
        _check_whole("keep", self.keep, 1)
        if self.limit is not None:
            _check_whole("limit", self.limit, self.keep)
        if self.count is not None:
            _check_callable("count", self.count)
        span_of("timeout", self.timeout)
        if self.pause != 0:
            span_of("pause", self.pause)
        if not is_name(self.role):
            raise InvalidQuery("role", f"give a name like 'system', not {self.role!r}")
        if not isinstance(self.heading, str):
            raise InvalidQuery("heading", f"give text, not {type(self.heading).__name__}")

    @property
    def bound(self) -> int:
        """What may come since the last summary before the next one is due."""
        return 2 * self.keep if self.limit is None else self.limit

    @property
    def seconds(self) -> float:
        """The time for one summary, no longer than a timer can be."""
        return span_of("timeout", self.timeout) / MICROSECONDS

    @property
    def pause_span(self) -> int:
        """The pause after a failure, in microseconds."""
        return 0 if self.pause == 0 else span_of("pause", self.pause)

    def weigh(self, message: Message) -> int:
        """Return what a message counts for `keep` and `limit`."""
        return weight(self.count, message)

    def shown(self, text: str) -> Message:
        """Return a summary as the message that stands for it."""
        return {"role": self.role, "content": f"{self.heading}{text}"}


Strategy = LastMessages | TokenBudget | RollingSummary
"""What chooses the part of a history that is shown."""


def chosen(strategy: Strategy | None, last: int | None) -> Strategy | None:
    """Return the strategy that a caller chose, `None` for everything."""
    if strategy is not None and last is not None:
        raise InvalidQuery("last", "give either a strategy or last, not both")
    if last is not None:
        return LastMessages(last)
    if strategy is not None and not isinstance(strategy, Strategy):
        raise InvalidQuery(
            "strategy",
            "give LastMessages, TokenBudget or RollingSummary, "
            f"not {getattr(strategy, '__name__', type(strategy).__name__)}",
        )
    return strategy


def _check_whole(field: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise InvalidQuery(field, f"give a whole number from {least}, not {value!r}")


def _check_callable(field: str, value: object) -> None:
    if not callable(value):
        raise InvalidQuery(field, f"give something that can be called, not {value!r}")
