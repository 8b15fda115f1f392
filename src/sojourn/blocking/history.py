"""History without `await`: chat messages over a session's log.

Made of `sojourn.history` by `python -m tests.blocking.mirror`: change that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.blocking.lease import held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sojourn import history as async_face
    from sojourn import manager
    from sojourn.blocking.gateway import Gateway
    from sojourn.blocking.lease import Lease
    from sojourn.committing import Policy
    from sojourn.history.messages import Message
    from sojourn.history.strategies import RollingSummary, Strategy
    from sojourn.history.summaries import Summary
    from sojourn.model import Event
    from sojourn.store import Durability


class History:
    """The conversation of one session."""

    def __init__(
        self, gateway: Gateway, of: Callable[[manager.SessionManager], async_face.History]
    ) -> None:
        """Made by `SessionManager.history`."""
        of(gateway.bridge().sessions)  # refuses at once what makes no sense
        self._gateway = gateway
        self._of = of

    def append(
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
        return self._gateway.run(
            lambda sessions: self._of(sessions).append(
                message,
                *more,
                state=state,
                conflict=conflict,
                lease=held(lease),
                durability=durability,
            )
        )

    def load(
        self, strategy: Strategy | None = None, *, last: int | None = None, expired: bool = False
    ) -> list[Message]:
        """Return messages, oldest first: all, the `last` so many, or what a strategy shows.

        A strategy shows no tool result without its call, and always the newest message.
        `RollingSummary` may summarise first; if that fails, it is logged, what was not summarised
        is shown as it is, and for a while nobody is kept waiting for that again. `expired` is for
        end hooks: it also reads a session past its deadline. Raises `NotFound` for a missing
        session, and `InvalidQuery`.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).load(strategy, last=last, expired=expired)
        )

    def compact(self, strategy: RollingSummary, *, lease: Lease | None = None) -> Summary | None:
        """Make the next summary now, if it is due, and return it once it is stored.

        For work in the background, where a `load` should not wait. It speaks for at most
        `MESSAGES_AT_ONCE` messages more than the last one: call it again until it returns `None`,
        which it also does when another summary was faster or the messages are gone. Nothing is
        removed. Raises `SummaryFailed`, `NotFound` or `Ended`, and `LeaseLost`.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).compact(strategy, lease=held(lease))
        )

    def summary(self, *, expired: bool = False) -> Summary | None:
        """Return the summary that counts, `None` when there is none. Raises `NotFound`."""
        return self._gateway.run(lambda sessions: self._of(sessions).summary(expired=expired))

    def clear(self, *, conflict: Policy = "merge", lease: Lease | None = None) -> None:
        """Remove the session's whole log: messages, summaries, and events of other kinds.

        State, documents and the session itself stay; numbers are not used again. Raises what
        `SessionManager.truncate` does.
        """
        self._gateway.run(
            lambda sessions: self._of(sessions).clear(conflict=conflict, lease=held(lease))
        )
