"""Expiry through the manager: deadlines, touches, clocks that step back, ids that expired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    AlreadyExists,
    Ended,
    EndFailed,
    Event,
    Expiry,
    InvalidQuery,
    NotFound,
    Reaper,
    SessionManager,
    Trigger,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import Session

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]
    Verb = Callable[[SessionManager, Session], Awaitable[object]]

SPAN = 100.0
"""Seconds of every deadline here, idle or absolute."""

TICK = 0.000_001
"""The smallest step of a clock: one microsecond."""

policies = pytest.mark.parametrize(
    "policy",
    [Expiry(idle=SPAN), Expiry(absolute=SPAN), Expiry(idle=5 * SPAN, absolute=SPAN)],
    ids=["idle", "absolute", "both"],
)


async def save(sessions: SessionManager, session: Session) -> None:
    session.state["k"] = 2
    await sessions.save(session)


async def scope(sessions: SessionManager, session: Session) -> None:
    async with sessions.scope(session.id):
        pass


async def scope_of_a_copy(sessions: SessionManager, session: Session) -> None:
    async with sessions.scope(session):
        pass


async def lease(sessions: SessionManager, session: Session) -> None:
    async with sessions.lease(session.id):
        pass


async def watch(sessions: SessionManager, session: Session) -> Event:
    return await anext(sessions.watch(session.id))


async def replace(sessions: SessionManager, session: Session) -> None:
    await sessions.replace_suffix(session, expected=[1], events=[Event(kind="b")])


WRITES: dict[str, Verb] = {
    "append": lambda sessions, s: sessions.append(s, Event(kind="b")),
    "append by id": lambda sessions, s: sessions.append(s.id, Event(kind="b")),
    "apply": lambda sessions, s: sessions.apply(s.id, Trigger.END),
    "bind": lambda sessions, s: sessions.bind(s, "u1"),
    "child": lambda sessions, s: sessions.create(parent=s.id),
    "document drop": lambda sessions, s: sessions.documents(s.id).drop("c"),
    "document put": lambda sessions, s: sessions.documents(s.id).put("c", "k", b"x"),
    "heartbeat": lambda sessions, s: sessions.heartbeat(s.id),
    "label": lambda sessions, s: sessions.label(s, {"room": "blue"}),
    "replace_suffix": replace,
    "save": save,
    "scope of a copy": scope_of_a_copy,
    "touch": lambda sessions, s: sessions.touch(s),
    "truncate": lambda sessions, s: sessions.truncate(s, after=0),
}
"""Verbs that say that a session past its deadline is over."""

READS: dict[str, Verb] = {
    "events": lambda sessions, s: sessions.events(s.id),
    "fork": lambda sessions, s: sessions.fork(s.id),
    "lease": lease,
    "refresh": lambda sessions, s: sessions.refresh(s),
    "require": lambda sessions, s: sessions.require(s.id),
    "scope": scope,
    "watch": watch,
}
"""Verbs to which such a session is as good as unknown."""

VERBS: dict[str, Verb] = WRITES | READS


async def a_session(sessions: SessionManager, policy: Expiry, id: str = "s1") -> Session:
    return await sessions.create(id=id, expiry=policy, state={"k": 1}, events=[Event(kind="a")])


@pytest.mark.behaviour(49)
@pytest.mark.behaviour(50)
@policies
@pytest.mark.parametrize("verb", VERBS)
async def test_at_its_deadline_a_session_is_missing_to_every_verb(
    opened: Opener, policy: Expiry, verb: str
) -> None:
    """At the deadline, unswept, each verb refuses; one microsecond before it, each works."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        early, late = await a_session(sessions, policy, "early"), await a_session(sessions, policy)
        clock.advance(SPAN - TICK)
        await VERBS[verb](sessions, early)

        clock.advance(TICK)
        with pytest.raises(Ended if verb in WRITES else NotFound):
            await VERBS[verb](sessions, late)
        left = await sessions.get(late.id, expired=True)
        assert left is not None
        assert left.revision == 1
        assert await sessions.get(late.id) is None


@pytest.mark.behaviour(49)
@policies
async def test_at_its_deadline_a_session_is_absent_from_reads(
    opened: Opener, policy: Expiry
) -> None:
    """Get, list, count and documents show a session until its deadline and not at it."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, policy)
        documents = sessions.documents(session.id)
        await documents.put("c", "k", b"x")
        clock.advance(SPAN - TICK)
        assert await sessions.get("s1") is not None
        assert await sessions.count() == len((await sessions.list()).items) == 1
        assert await documents.get("c", "k") is not None

        clock.advance(TICK)
        assert await sessions.get("s1") is None
        assert await sessions.get("s1", touch=True) is None
        assert await sessions.count() == len((await sessions.list()).items) == 0
        assert await documents.get("c", "k") is None
        assert await documents.list("c") == []


async def test_what_expired_can_be_read_on_request(opened: Opener) -> None:
    """`expired=True` reads session, events and documents of one not swept yet: for end hooks."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(idle=SPAN))
        await sessions.documents(session.id).put("c", "k", b"x")
        clock.advance(SPAN)

        found = await sessions.get("s1", expired=True)
        assert found is not None
        assert found.state["k"] == 1
        assert [e.kind for e in await sessions.events("s1", expired=True)] == ["a"]
        document = await sessions.documents("s1").get("c", "k", expired=True)
        assert document is not None
        assert document.body == b"x"
        assert len(await sessions.documents("s1").list("c", expired=True)) == 1


@pytest.mark.behaviour(49)
async def test_a_swept_session_is_gone_for_those_who_open_the_store_later(opened: Opener) -> None:
    """After a sweep not even `expired=True` finds the session, from this manager or a new one."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await a_session(sessions, Expiry(idle=SPAN))
        clock.advance(SPAN)
        assert await sessions.get("s1", expired=True) is not None
        assert await Reaper(sessions).sweep() == 1
        async with opened(clock=FakeClock()) as others:
            assert await others.get("s1", expired=True) is None


@pytest.mark.behaviour(47)
@pytest.mark.parametrize("seconds", [None, 0, -1, -0.5])
async def test_a_policy_without_positive_seconds_never_expires(
    opened: Opener, seconds: float | None
) -> None:
    """`None`, zero and negative numbers all mean never, for idle and absolute deadlines."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(idle=seconds, absolute=seconds))
        assert session.expires_at is None
        clock.advance(1_000 * 365 * 86_400)
        assert await Reaper(sessions).sweep() == 0
        assert await sessions.get("s1") is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), True, "60"])
def test_a_policy_refuses_what_is_no_number_of_seconds(bad: Any) -> None:
    """NaN, infinity, booleans and text are `InvalidQuery`, naming the field."""
    with pytest.raises(InvalidQuery, match="idle"):
        Expiry(idle=bad)
    with pytest.raises(InvalidQuery, match="absolute"):
        Expiry(absolute=bad)


async def test_the_managers_policy_is_the_default_for_new_sessions(opened: Opener) -> None:
    """A session takes the manager's policy, unless it is given one of its own: even none at all."""
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=SPAN)) as sessions:
        by_default = await sessions.create()
        never = await sessions.create(expiry=Expiry())
        fresh = sessions.new(state={"k": 1})
        await sessions.save(fresh)
        assert by_default.expires_at == fresh.expires_at is not None
        assert never.expires_at is None
        clock.advance(SPAN)
        assert [s.id for s in (await sessions.list()).items] == [never.id]


@pytest.mark.behaviour(51)
async def test_use_slides_the_idle_deadline(opened: Opener) -> None:
    """Touch, save, append and heartbeat each move `active_at` to now and the deadline behind it."""
    clock = FakeClock()
    uses: dict[str, Verb] = {name: VERBS[name] for name in ("touch", "save", "append", "heartbeat")}
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(idle=SPAN))
        for use in uses.values():
            clock.advance(SPAN / 2)
            await use(sessions, session)
            found = await sessions.require("s1")
            assert found.expires_at is not None
            assert (found.expires_at - found.active_at).total_seconds() == SPAN
            assert (found.active_at - found.created_at).total_seconds() == clock_age(clock)
        clock.advance(SPAN - TICK)
        assert await sessions.get("s1") is not None


def clock_age(clock: FakeClock) -> float:
    """Return how many seconds a clock has advanced."""
    return (clock.now() - FakeClock().now()) / 1_000_000


@pytest.mark.behaviour(51)
async def test_use_leaves_the_absolute_deadline_alone(opened: Opener) -> None:
    """However much a session is used, it expires at its absolute deadline."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(idle=SPAN, absolute=2.5 * SPAN))
        for _ in range(4):
            clock.advance(SPAN / 2)
            await sessions.touch(session)
            await save(sessions, session)
        assert session.expires_at is not None
        assert (session.expires_at - session.created_at).total_seconds() == 2.5 * SPAN
        clock.advance(SPAN / 2)
        assert await sessions.get("s1") is None


@pytest.mark.behaviour(51)
async def test_reading_is_no_use(opened: Opener) -> None:
    """Get, require, events, list and count do not touch; `touch=True` does."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        before = await a_session(sessions, Expiry(idle=SPAN))
        clock.advance(SPAN / 2)
        await sessions.get("s1", events=5)
        await sessions.require("s1")
        await sessions.events("s1")
        await sessions.list()
        await sessions.count()
        found = await sessions.require("s1")
        assert (found.active_at, found.expires_at) == (before.active_at, before.expires_at)

        touched = await sessions.get("s1", touch=True)
        assert touched is not None
        assert touched.active_at > before.active_at
        clock.advance(SPAN / 2)
        touched = await sessions.require("s1", touch=True)
        assert (touched.active_at - before.active_at).total_seconds() == SPAN


async def counted_touches(
    sessions: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> list[object]:
    """Return a list that grows with every touch that reaches the store."""
    touches: list[object] = []
    touch = sessions.store.touch

    async def counting(asked: Any, /) -> Any:
        touches.append(asked)
        return await touch(asked)

    monkeypatch.setattr(sessions.store, "touch", counting)
    return touches


@pytest.mark.behaviour(52)
async def test_a_touch_is_written_once_a_tenth_of_the_idle_time_has_passed(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a tenth of the idle time a touch does not reach the store; at a tenth it does."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(idle=SPAN))
        touches = await counted_touches(sessions, monkeypatch)
        clock.advance(SPAN / 10 - TICK)
        await sessions.touch(session)
        assert len(touches) == 0
        clock.advance(TICK)
        await sessions.touch(session)
        assert len(touches) == 1
        await sessions.touch(session)
        assert len(touches) == 1


async def test_a_touch_without_an_idle_deadline_is_not_written(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to extend, so nothing reaches the store."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(absolute=SPAN))
        touches = await counted_touches(sessions, monkeypatch)
        clock.advance(SPAN / 2)
        await sessions.touch(session)
        assert touches == []


@pytest.mark.behaviour(52)
async def test_read_only_traffic_keeps_a_session_alive_and_its_data_untouched(
    opened: Opener,
) -> None:
    """Touches alone outlive many idle times; the revision stays, so strict saves still succeed."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        held = await a_session(sessions, Expiry(idle=SPAN))
        for _ in range(10):
            clock.advance(SPAN - TICK)
            await sessions.require("s1", touch=True)
        assert (await sessions.require("s1")).revision == held.revision == 1
        held.state["k"] = "strict"
        await sessions.save(held, conflict="fail")


async def test_a_touch_of_a_session_that_was_never_saved_is_refused(opened: Opener) -> None:
    """There is nothing to touch, and a touch never creates."""
    async with opened() as sessions:
        fresh = sessions.new(id="s1", expiry=Expiry(idle=SPAN))
        with pytest.raises(NotFound):
            await sessions.touch(fresh)
        assert await sessions.get("s1") is None


async def test_get_with_touch_returns_none_when_the_session_goes_in_between(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absence is `None` on read, also when a session is removed between its read and its touch."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await a_session(sessions, Expiry(idle=SPAN))
        get = sessions.store.get

        async def get_then_vanish(asked: Any, /) -> Any:
            found = await get(asked)
            await sessions.delete("s1")
            return found

        clock.advance(SPAN / 2)
        monkeypatch.setattr(sessions.store, "get", get_then_vanish)
        assert await sessions.get("s1", touch=True) is None
        with pytest.raises(NotFound):
            await sessions.require("s1", touch=True)


@pytest.mark.behaviour(50)
async def test_a_clock_that_steps_back_revives_nothing(opened: Opener) -> None:
    """What this manager has seen expired stays expired, however far the clock steps back."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await a_session(sessions, Expiry(idle=SPAN))
        clock.advance(SPAN)
        assert await sessions.get("s1") is None
        clock.advance(-SPAN)
        assert await sessions.get("s1") is None
        assert await sessions.count() == 0
        with pytest.raises(Ended):
            await save(sessions, session)
        with pytest.raises(Ended):
            await sessions.heartbeat("s1")


@pytest.mark.behaviour(119)
async def test_a_clock_that_steps_back_does_not_move_activity_back(opened: Opener) -> None:
    """Neither this manager nor one whose clock was always behind moves `active_at` back."""
    clock, behind = FakeClock(), FakeClock()
    async with opened(clock=clock) as sessions, opened(clock=behind) as others:
        session = await a_session(sessions, Expiry(idle=SPAN))
        clock.advance(SPAN / 2)
        latest = await sessions.heartbeat("s1")
        deadline = (await sessions.require("s1")).expires_at

        clock.advance(-SPAN / 2)
        assert await sessions.heartbeat("s1") == latest
        assert await others.heartbeat("s1") == latest
        await save(others, await others.require("s1"))
        await sessions.touch(session)
        found = await others.require("s1")
        assert (found.active_at, found.expires_at) == (latest, deadline)


async def test_creating_over_an_expired_id_finishes_the_old_one_first(opened: Opener) -> None:
    """End hooks of the expired session run, with its data, before the new one takes the id."""
    clock = FakeClock()
    ended: list[tuple[str, int, str]] = []
    async with opened(clock=clock) as sessions:
        old = await a_session(sessions, Expiry(idle=SPAN))

        @sessions.on_end
        async def note(session: Session, reason: str) -> None:
            ended.append((session.epoch, session.state["k"], reason))
            assert await sessions.get("s1") is None

        clock.advance(SPAN)
        new = await sessions.create(id="s1")
        assert ended == [(old.epoch, 1, "expired")]
        assert new.epoch != old.epoch
        assert dict((await sessions.require("s1")).state) == {}
        assert await sessions.events("s1") == []


async def test_saving_a_new_session_over_an_expired_id_finishes_the_old_one_first(
    opened: Opener,
) -> None:
    """The first save of `new()` and `get_or_create` free an expired id as `create` does."""
    clock = FakeClock()
    reasons: list[str] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def note(_session: Session, reason: str) -> None:
            reasons.append(reason)

        await a_session(sessions, Expiry(idle=SPAN))
        clock.advance(SPAN)
        fresh = sessions.new(id="s1", state={"k": "fresh"}, expiry=Expiry(idle=SPAN))
        await sessions.save(fresh)
        assert reasons == ["expired"]

        clock.advance(SPAN)
        found = await sessions.get_or_create("s1", state={"k": "again"})
        assert reasons == ["expired", "expired"]
        assert found.state["k"] == "again"


@pytest.mark.parametrize("how", ["create", "new", "get_or_create"])
async def test_creating_over_an_expired_id_whose_end_fails_says_so(
    opened: Opener, how: str
) -> None:
    """`AlreadyExists` says that the old end failed and why; the old data stays, nothing is made."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await a_session(sessions, Expiry(idle=SPAN))

        @sessions.on_end
        async def refuse(_session: Session, _reason: str) -> None:
            raise OSError("the archive is full")

        clock.advance(SPAN)
        makers: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda: sessions.create(id="s1"),
            "new": lambda: sessions.save(sessions.new(id="s1", state={"k": "new"})),
            "get_or_create": lambda: sessions.get_or_create("s1"),
        }
        with pytest.raises(AlreadyExists, match="expired, and its end failed") as refused:
            await makers[how]()
        cause = refused.value.__cause__
        assert isinstance(cause, EndFailed)
        assert [str(part) for part in cause.causes] == ["the archive is full"]
        old = await sessions.get("s1", expired=True)
        assert old is not None
        assert old.state["k"] == 1


async def test_creating_over_a_live_id_is_refused_and_runs_no_hooks(opened: Opener) -> None:
    """Only what has expired is finished for a create; one tick before, the id is taken."""
    clock = FakeClock()
    reasons: list[str] = []
    async with opened(clock=clock) as sessions:
        await a_session(sessions, Expiry(idle=SPAN))

        @sessions.on_end
        async def note(_session: Session, reason: str) -> None:
            reasons.append(reason)

        clock.advance(SPAN - TICK)
        with pytest.raises(AlreadyExists):
            await sessions.create(id="s1")
        assert reasons == []
        assert (await sessions.require("s1")).state["k"] == 1
