"""End hooks and cleaners that block: in a thread, with the context of whoever ends the session."""

from __future__ import annotations

import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
from tests.blocking.waiting import SECONDS

from sojourn import EndFailed, Event, InvalidQuery, current_session
from sojourn.blocking import Reaper, SessionManager
from sojourn.history import RollingSummary
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from sojourn import Session
    from sojourn.history import Message

asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")


def test_a_hook_may_block_and_use_the_manager(sessions: SessionManager) -> None:
    told: list[object] = []

    @sessions.on_end
    def archive(session: Session, reason: str) -> None:
        told.append((reason, asked_by.get(), len(sessions.events(session.id, expired=True))))
        told.append(sessions.end(session.id))  # its own end: waiting for it would never end
        told.append(threading.current_thread().name)

    s = sessions.create(events=[Event(kind="k")])
    asked_by.set("somebody")
    assert sessions.end(s.id, reason="logout")
    assert told == [("logout", "somebody", 1), False, "sojourn hook"]


def test_async_hooks_are_hooks_too(sessions: SessionManager) -> None:
    """Async functions, objects with an async call, and functions that return an awaitable."""
    told: list[str] = []

    async def plain(_session: Session, _reason: str) -> None:
        told.append("async")

    class Called:
        async def __call__(self, _session: Session, _reason: str) -> None:
            told.append("object")

    sessions.on_end(plain)
    sessions.on_end(Called())
    sessions.on_end(functools.partial(plain))
    sessions.on_end(lambda *given: plain(*given))  # noqa: PLW0108 - a plain function is the point
    sessions.end(sessions.create().id)
    assert sorted(told) == ["async", "async", "async", "object"]


@pytest.mark.parametrize("error", [OSError("away"), StopIteration(), KeyboardInterrupt()])
def test_a_failing_hook_leaves_the_session_ending(error: BaseException) -> None:
    clock = FakeClock()
    with SessionManager.open("memory://", clock=clock) as sessions:
        tries: list[str] = []

        @sessions.on_end
        def hook(_session: Session, reason: str) -> None:
            tries.append(reason)
            if len(tries) == 1:
                raise error

        s = sessions.create()
        with pytest.raises(EndFailed) as caught:
            sessions.end(s.id, reason="logout")
        assert len(caught.value.causes) == 1
        clock.advance(1)
        assert Reaper(sessions).sweep() == 1
        assert tries == ["logout", "logout"]


def test_hooks_that_wait_for_each_other_all_have_a_thread(sessions: SessionManager) -> None:
    """However many there are: a bounded pool would be stuck."""
    count = 40
    barrier = threading.Barrier(count)
    for _ in range(count):
        sessions.on_end(lambda _session, _reason: barrier.wait(SECONDS))
    assert sessions.end(sessions.create().id)


def test_what_cannot_be_called_is_no_hook(sessions: SessionManager) -> None:
    with pytest.raises(InvalidQuery, match="hook"):
        sessions.on_end(7)  # type: ignore[arg-type]  # what a caller without types gives
    assert sessions.end(sessions.create().id)


def test_cleaners_may_block_too() -> None:
    cleaned: list[str] = []

    class Cleaner:
        def __init__(self, sessions: list[SessionManager]) -> None:
            self._sessions = sessions

        def clean(self, session: Session, reason: str, /) -> None:
            assert self._sessions[0].get(session.id, expired=True) is not None
            cleaned.append(reason)

    reach: list[SessionManager] = []
    with SessionManager.open("memory://", cleaners=[Cleaner(reach)]) as sessions:
        reach.append(sessions)
        assert sessions.end(sessions.create().id, reason="done")
    assert cleaned == ["done"]


def test_a_summariser_may_block(sessions: SessionManager) -> None:
    """It is called in a thread, so that it does not stop everybody else's calls."""
    history = sessions.history(sessions.create().id)
    for number in range(12):
        history.append({"role": "user", "content": str(number)})
    seen: list[int] = []

    def summarize(_before: str | None, messages: list[Message]) -> str:
        seen.append(sessions.count())
        return f"{len(messages)} messages"

    shown = history.load(RollingSummary(summarize, keep=2))
    assert seen
    assert "messages" in shown[0]["content"]
    assert current_session() is None


def test_a_hook_can_not_close_its_manager() -> None:
    """Closing waits for the hook. Refused, it leaves everything as it was."""
    with SessionManager.open("memory://") as sessions:

        @sessions.on_end
        def close(_session: Session, _reason: str) -> None:
            with pytest.raises(InvalidQuery, match="invalid close: an end hook can not"):
                sessions.close()

        assert sessions.end(sessions.create().id)
        sessions.create()
