"""Arguments of the wrong kind are `InvalidQuery`, by name, and nothing is written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sojourn import (
    Background,
    Event,
    Expiry,
    InvalidQuery,
    Lease,
    Reaper,
    RoleTaken,
    Session,
    SessionManager,
    Trigger,
    Unserializable,
)
from sojourn.telemetry import LoggingObserver

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

EVENT = Event(kind="note")

NO_MAPPING = [5, [("a", 1)], "a", True, {"a"}]
NO_LEASE = [5, "token", {"token": 1}]
NO_LIST = [5, None, 1.5]
NO_FLAG: list[Any] = [None, 0, "yes", [], 10**400]


class Wrong(NamedTuple):
    """A call with an argument that makes no sense."""

    call: Callable[[SessionManager, Session, Any], Any]
    argument: str
    values: list[Any]


async def leased(sessions: SessionManager, **options: Any) -> None:
    async with sessions.lease("s", **options):
        pass


async def with_the_session_as_lease(sessions: SessionManager, s: Session, _value: Any) -> None:
    await sessions.append(s, EVENT, lease=s)  # type: ignore[arg-type]  # the mistake under test


async def with_a_lease_that_was_not_entered(
    sessions: SessionManager, s: Session, _value: Any
) -> None:
    lease = sessions.lease("s")
    await sessions.append(s, EVENT, lease=lease)  # type: ignore[arg-type]  # as above


CALLS: dict[str, Wrong] = {
    "create(expiry)": Wrong(
        lambda m, _, v: m.create(expiry=v), "expiry", [1800, "1h", {"idle": 1}]
    ),
    "new(expiry)": Wrong(lambda m, _, v: m.new(expiry=v), "expiry", [1800, "1h"]),
    "fork(expiry)": Wrong(lambda m, _, v: m.fork("s", expiry=v), "expiry", [1800, "1h"]),
    "get_or_create(expiry)": Wrong(
        lambda m, _, v: m.get_or_create(user="u", expiry=v), "expiry", [1800]
    ),
    "save(expiry)": Wrong(lambda m, s, v: m.save(s, expiry=v), "expiry", [1800]),
    "create(events)": Wrong(lambda m, _, v: m.create(events=v), "events", [EVENT, *NO_LIST, "ab"]),
    "create(state)": Wrong(lambda m, _, v: m.create(state=v), "state", [*NO_MAPPING, []]),
    "new(state)": Wrong(lambda m, _, v: m.new(state=v), "state", [*NO_MAPPING, []]),
    "get_or_create(state)": Wrong(
        lambda m, _, v: m.get_or_create(key="k", state=v), "state", NO_MAPPING
    ),
    "append(state)": Wrong(lambda m, s, v: m.append(s, EVENT, state=v), "state", NO_MAPPING),
    "append(state) to a delta": Wrong(
        lambda m, s, v: m.append(s, Event(kind="n", delta={"a": 1}), state=v), "state", NO_MAPPING
    ),
    "append(delta)": Wrong(
        lambda m, s, v: m.append(s, Event(kind="n", delta=v)), "event.delta", NO_MAPPING
    ),
    "append(delta) and a state": Wrong(
        lambda m, s, v: m.append(s, Event(kind="n", delta=v), state={"a": 1}),
        "event.delta",
        NO_MAPPING,
    ),
    "create(delta)": Wrong(
        lambda m, _, v: m.create(events=[Event(kind="n", delta=v)]), "event.delta", NO_MAPPING
    ),
    "history(state)": Wrong(
        lambda m, s, v: m.history(s).append({"role": "user", "content": "a"}, state=v),
        "state",
        NO_MAPPING,
    ),
    "create(labels)": Wrong(lambda m, _, v: m.create(labels=v), "labels", [*NO_MAPPING, []]),
    "new(labels)": Wrong(lambda m, _, v: m.new(labels=v), "labels", NO_MAPPING),
    "get_or_create(labels)": Wrong(
        lambda m, _, v: m.get_or_create(key="k", labels=v), "labels", NO_MAPPING
    ),
    "list(labels)": Wrong(lambda m, _, v: m.list(labels=v), "labels", NO_MAPPING),
    "count(labels)": Wrong(lambda m, _, v: m.count(labels=v), "labels", NO_MAPPING),
    "label": Wrong(lambda m, s, v: m.label(s, v), "labels", [*NO_MAPPING, None]),
    "share": Wrong(lambda m, _, v: m.share(v), "changes", [*NO_MAPPING, None, ["app:a"]]),
    "append(lease)": Wrong(lambda m, s, v: m.append(s, EVENT, lease=v), "lease", NO_LEASE),
    "append(lease=session)": Wrong(with_the_session_as_lease, "lease", [None]),
    "append(lease=lease())": Wrong(with_a_lease_that_was_not_entered, "lease", [None]),
    "save(lease)": Wrong(lambda m, s, v: m.save(s, user="u", lease=v), "lease", NO_LEASE),
    "truncate(lease)": Wrong(lambda m, s, v: m.truncate(s, after=0, lease=v), "lease", NO_LEASE),
    "replace_suffix(lease)": Wrong(
        lambda m, s, v: m.replace_suffix(s, expected=[1], events=[], lease=v), "lease", NO_LEASE
    ),
    "apply(lease)": Wrong(lambda m, _, v: m.apply("s", Trigger.END, lease=v), "lease", NO_LEASE),
    "list(phase)": Wrong(lambda m, _, v: m.list(phase=v), "phase", [5, [[]], True]),
    "count(phase)": Wrong(lambda m, _, v: m.count(phase=v), "phase", [5, [None]]),
    "list(anonymous)": Wrong(lambda m, _, v: m.list(anonymous=v), "anonymous", NO_FLAG),
    "count(anonymous)": Wrong(lambda m, _, v: m.count(anonymous=v), "anonymous", NO_FLAG),
    "documents.get(expired)": Wrong(
        lambda m, s, v: m.documents(s.id).get("c", "k", expired=v), "expired", NO_FLAG
    ),
    "documents.list(expired)": Wrong(
        lambda m, s, v: m.documents(s.id).list("c", expired=v), "expired", NO_FLAG
    ),
    "checkpoints.get(expired)": Wrong(
        lambda m, s, v: m.checkpoints(s.id).get("c", expired=v), "expired", NO_FLAG
    ),
    "checkpoints.latest(expired)": Wrong(
        lambda m, s, v: m.checkpoints(s.id).latest(expired=v), "expired", NO_FLAG
    ),
    "create(exclusive)": Wrong(lambda m, _, v: m.create(exclusive=v), "exclusive", NO_LIST),
    "replace_suffix(expected)": Wrong(
        lambda m, s, v: m.replace_suffix(s, expected=v, events=[]), "expected", [1, None, "1"]
    ),
    "replace_suffix(events)": Wrong(
        lambda m, s, v: m.replace_suffix(s, expected=[1], events=v), "events", [EVENT, None, 5]
    ),
    "lease(wait)": Wrong(
        lambda m, _, v: leased(m, wait=v), "wait", [None, "1", True, float("nan"), 10**400]
    ),
    "lease(ttl)": Wrong(lambda m, _, v: leased(m, ttl=v), "ttl", [None, "1"]),
    "Reaper(interval)": Wrong(
        lambda m, _, v: Reaper(m, interval=v),
        "interval",
        [None, "60", 0, -1, float("nan"), True, 10**400],
    ),
    "Reaper(batch)": Wrong(
        lambda m, _, v: Reaper(m, batch=v), "batch", ["x", None, 0, 1.5, 100_001]
    ),
    "Reaper(concurrency)": Wrong(
        lambda m, _, v: Reaper(m, concurrency=v), "concurrency", ["x", None, 0, 1.5]
    ),
    "Background(drain)": Wrong(
        lambda m, _, v: Background(m, drain=v), "drain", ["60", -1, [], float("nan"), 10**400]
    ),
    "SessionManager(cleaners)": Wrong(
        lambda m, _, v: SessionManager(m.store, cleaners=v), "cleaners", [*NO_LIST, "clean"]
    ),
    "SessionManager(expiry)": Wrong(
        lambda m, _, v: SessionManager(m.store, expiry=v), "expiry", [1800, None]
    ),
    "open(observers)": Wrong(
        lambda _m, _s, v: SessionManager.open("memory://", observers=v),
        "observers",
        [LoggingObserver(), 5],
    ),
}


async def done(wrong: Wrong, sessions: SessionManager, session: Session, value: Any) -> None:
    made = wrong.call(sessions, session, value)
    if asyncio.iscoroutine(made):
        await made


ONE_BY_ONE = [
    pytest.param(wrong, value, id=f"{name} {value!r:.20}")
    for name, wrong in CALLS.items()
    for value in wrong.values
]


@pytest.mark.parametrize(("wrong", "value"), ONE_BY_ONE)
async def test_it_is_refused_by_name_and_nothing_is_written(
    opened: Opener, wrong: Wrong, value: Any
) -> None:
    async with opened() as sessions:
        session = await sessions.create(id="s", events=[EVENT])
        with pytest.raises(InvalidQuery, match="give ") as caught:
            await done(wrong, sessions, session, value)
        assert caught.value.field == wrong.argument
        assert await sessions.count() == 1
        assert (await sessions.require("s")).revision == session.revision == 1
        assert await sessions.app_state() == {}


async def test_what_a_value_is_wrong_in_is_still_what_is_said(opened: Opener) -> None:
    """That the arguments are of the right kind is asked only once something went wrong."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        with pytest.raises(Unserializable, match=r"delta\.a"):
            await sessions.append(session, Event(kind="n", delta={"a": {1, 2}}))
        with pytest.raises(Unserializable, match=r"delta\.a"):
            await sessions.append(session, EVENT, state={"a": {1, 2}})


async def test_what_can_be_walked_through_only_once_is_taken_whole(opened: Opener) -> None:
    async with opened() as sessions:
        first = await sessions.create(
            labels={"a": "1"},
            exclusive=(name for name in ["a"]),  # type: ignore[arg-type]  # it says a sequence
            events=(event for event in [EVENT, EVENT]),  # type: ignore[arg-type]  # as above
            expiry=Expiry(idle=60),
        )
        assert [event.seq for event in first.events] == [1, 2]
        with pytest.raises(RoleTaken):
            await sessions.create(labels={"a": "1"}, exclusive=["a"])


class Recorder:
    """A cleaner that remembers."""

    def __init__(self) -> None:
        self.cleaned: list[str] = []

    async def clean(self, session: Session, _reason: str, /) -> None:
        self.cleaned.append(session.id)


async def test_cleaners_are_taken_from_any_iterable() -> None:
    cleaner = Recorder()
    given: Any = (one for one in [cleaner])
    async with SessionManager.open("memory://", cleaners=given) as sessions:
        await sessions.create(id="s")
        await sessions.end("s")
    assert cleaner.cleaned == ["s"]


async def test_a_lease_is_still_taken(opened: Opener) -> None:
    async with opened() as sessions:
        session = await sessions.create(id="s")
        async with sessions.lease("s", wait=1) as lease:
            assert isinstance(lease, Lease)
            await sessions.append(session, EVENT, lease=lease)
