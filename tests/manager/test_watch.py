"""Watching a log: what is stored, then what comes, without a gap, a repeat, or an end too early."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    DELETE,
    Closed,
    Event,
    Expiry,
    InvalidQuery,
    NotFound,
    Reaper,
    Session,
    SessionManager,
)
from sojourn.ending import REMOVE_ATTEMPTS
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


def events(*bodies: Any) -> list[Event]:
    return [Event(kind="message", body=body) for body in bodies]


async def seqs(watching: AsyncIterator[Event]) -> list[int | None]:
    """Return the numbers of what a watch yields until it stops."""
    return [event.seq async for event in watching]


async def take(watching: AsyncIterator[Event], count: int) -> list[int | None]:
    """Return the numbers of the next so many events."""
    return [(await anext(watching)).seq for _ in range(count)]


# ----------------------------------------------------------------------------------- what it yields


async def test_it_yields_what_is_stored_and_then_what_comes(opened: Opener) -> None:
    """First the stored events, then those of this manager and of another one, as they commit."""
    async with opened() as sessions, opened() as others:
        await sessions.create(id="s1", events=events("a", "b"))
        watching = sessions.watch("s1")
        assert await take(watching, 2) == [1, 2]
        for number, manager in enumerate((sessions, others, sessions), start=3):
            coming = asyncio.ensure_future(anext(watching))
            await manager.append("s1", Event(kind="message", body=number))
            event = await coming
            assert (event.seq, event.body) == (number, number)


async def test_it_yields_events_as_they_are_stored(opened: Opener) -> None:
    """Every field, deltas with `DELETE` too, is as `events` returns it; partial ones are not in."""
    async with opened() as sessions:
        session = await sessions.create(id="s1", state={"gone": 1})
        await sessions.append(
            session,
            Event(kind="note", author="u", body={"x": [1, None]}, id="e1", delta={"k": 1}),
            Event(kind="partial", partial=True),
            Event(kind="note", delta={"gone": DELETE, "app:k": 2}),
        )
        await sessions.end("s1", retain=60)
        watched = [event async for event in sessions.watch("s1")]
        assert watched == await sessions.events("s1")
        assert [event.delta for event in watched] == [{"k": 1}, {"gone": DELETE, "app:k": 2}]


async def test_concurrent_appends_leave_no_gap_and_no_repeat(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watchers of two managers, started before and during 200 appends by both, all see 1 to 200."""
    monkeypatch.setattr("sojourn.watch.EVENTS_PAGE", 7)
    async with opened() as here, opened() as there:
        await here.create(id="s1")
        both = [here, there]
        early = [asyncio.ensure_future(seqs(manager.watch("s1"))) for manager in both]

        async def write(number: int) -> None:
            for body in range(20):
                await both[number % 2].append("s1", Event(kind="message", body=body))

        writers = [asyncio.ensure_future(write(number)) for number in range(10)]
        await here.append("s1", Event(kind="message", body="in between"))
        late = [asyncio.ensure_future(seqs(manager.watch("s1"))) for manager in both]
        await asyncio.gather(*writers)
        await here.end("s1", retain=60)
        for seen in await asyncio.gather(*early, *late):
            assert seen == list(range(1, 202))


async def test_it_resumes_behind_a_cursor(opened: Opener) -> None:
    """`after` is exclusive: reading on from the last number seen repeats and misses nothing."""
    async with opened() as sessions:
        await sessions.create(id="s1", events=events(*"abcde"))
        first = await take(sessions.watch("s1"), 2)
        await sessions.end("s1", retain=60)
        rest = await seqs(sessions.watch("s1", after=2))
        assert first + rest == [1, 2, 3, 4, 5]
        assert await seqs(sessions.watch("s1", after=5)) == []


async def test_a_cursor_ahead_of_the_log_waits_for_what_is_behind_it(opened: Opener) -> None:
    """Events up to the cursor are not yielded, even if they are stored only later."""
    async with opened() as sessions:
        await sessions.create(id="s1", events=events("a"))
        watching = sessions.watch("s1", after=3)
        coming = asyncio.ensure_future(anext(watching))
        await sessions.append("s1", *events("b", "c"))
        await sessions.append("s1", *events("d"))
        assert (await coming).seq == 4


@pytest.mark.parametrize("after", [-1, True, "1", 1.0, None])
async def test_a_cursor_is_the_number_of_an_event(opened: Opener, after: Any) -> None:
    """Anything but a whole number from 0 is `InvalidQuery`, at once."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(InvalidQuery, match="after"):
            sessions.watch("s1", after=after)


@pytest.mark.parametrize("id", ["unknown", "", "a\nb", "deleted"])
async def test_an_unknown_session_can_not_be_watched(opened: Opener, id: str) -> None:
    """Unknown, malformed and deleted ids raise `NotFound`."""
    async with opened() as sessions:
        await sessions.create(id="deleted", events=events("a"))
        await sessions.delete("deleted")
        with pytest.raises(NotFound):
            await anext(sessions.watch(id))


# ------------------------------------------------------------------------------------- how it stops


async def end(sessions: SessionManager, _session: Session) -> None:
    await sessions.end("s1")


async def retain(sessions: SessionManager, _session: Session) -> None:
    await sessions.end("s1", retain=60)


async def delete(sessions: SessionManager, _session: Session) -> None:
    await sessions.delete("s1")


async def clear(sessions: SessionManager, session: Session) -> None:
    session.state.clear()
    await sessions.save(session)


async def forget(sessions: SessionManager, _session: Session) -> None:
    await sessions.forget("u1")


async def delete_parent(sessions: SessionManager, _session: Session) -> None:
    await sessions.delete("parent")


STOPS: dict[str, Callable[[SessionManager, Session], Awaitable[None]]] = {
    "end": end,
    "end and retain": retain,
    "delete": delete,
    "delete of the parent": delete_parent,
    "clear and save": clear,
    "forget": forget,
}
"""What makes a watched session go."""


async def watched(sessions: SessionManager) -> Session:
    await sessions.create(id="parent")
    return await sessions.create(id="s1", user="u1", parent="parent", events=events(*"abcde"))


@pytest.mark.parametrize("how", STOPS)
async def test_what_is_left_is_delivered_and_then_it_stops(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A slow watcher gets every event although the session is gone by the time that it asks."""
    monkeypatch.setattr("sojourn.watch.EVENTS_PAGE", 1)
    async with opened() as sessions:
        session = await watched(sessions)
        watching = sessions.watch("s1")
        assert await take(watching, 2) == [1, 2]
        await STOPS[how](sessions, session)
        assert await seqs(watching) == [3, 4, 5]


@pytest.mark.parametrize("writes", [1, 3, 100])
async def test_what_is_appended_while_it_is_deleted_is_delivered(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """It was acknowledged before the session went. Who writes all the time can not prevent that."""
    monkeypatch.setattr("sojourn.watch.EVENTS_PAGE", 1)
    async with opened() as sessions:
        await watched(sessions)
        delete = sessions.store.delete
        appended: list[Event] = []

        async def delete_after_a_write(asked: Any, /) -> bool:
            if len(appended) < writes:
                appended.append(await sessions.append("s1", *events("f")))
            return await delete(asked)

        monkeypatch.setattr(sessions.store, "delete", delete_after_a_write)
        watching = sessions.watch("s1")
        assert await take(watching, 2) == [1, 2]
        assert await sessions.delete("s1")
        assert await sessions.get("s1", expired=True) is None
        left = [3, 4, 5, *(event.seq for event in appended)]
        assert await seqs(watching) == (left if writes < REMOVE_ATTEMPTS else left[:-1])
        assert len(appended) <= REMOVE_ATTEMPTS + 1


def waiting(monkeypatch: pytest.MonkeyPatch, sessions: SessionManager) -> asyncio.Event:
    """Return an event that is set once a watch of this manager has read all and waits."""
    reached = asyncio.Event()
    store: Any = sessions.store
    subscribe = store.subscribe

    def noting(app: str, id: str, /) -> Any:
        subscription = subscribe(app, id)
        wait = subscription.wait

        async def noting_wait(seconds: float, /) -> None:
            reached.set()
            await wait(seconds)

        subscription.wait = noting_wait
        return subscription

    monkeypatch.setattr(store, "subscribe", noting)
    return reached


@pytest.mark.parametrize("how", STOPS)
async def test_a_watcher_that_waits_is_woken_and_stops(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Caught up and waiting, in this manager and in another one, it stops when the session goes."""
    async with opened() as sessions, opened() as others:
        session = await watched(sessions)
        watchers = []
        for manager in (sessions, others):
            reached = waiting(monkeypatch, manager)
            watchers.append(asyncio.ensure_future(seqs(manager.watch("s1"))))
            await reached.wait()
        await STOPS[how](sessions, session)
        for seen in await asyncio.gather(*watchers):
            assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("with_hook", [False, True], ids=["no hook", "hook"])
@pytest.mark.parametrize("swept", [False, True], ids=["not swept", "swept"])
async def test_expiry_is_an_end_as_any_other(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, with_hook: bool, swept: bool
) -> None:
    """A session that expires while it is watched: what is left is delivered, then it stops."""
    monkeypatch.setattr("sojourn.watch.EVENTS_PAGE", 1)
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        if with_hook:

            @sessions.on_end
            async def note(_session: Session, _reason: str) -> None:
                return

        await sessions.create(id="s1", events=events(*"abcde"), expiry=Expiry(idle=100))
        watching = sessions.watch("s1")
        assert await take(watching, 2) == [1, 2]
        clock.advance(100)
        if swept:
            assert await Reaper(sessions).sweep() == 1
        assert await seqs(watching) == [3, 4, 5]


async def test_an_ended_session_is_read_to_its_end(opened: Opener) -> None:
    """A retained record yields all its events and stops without waiting."""
    async with opened() as sessions:
        await sessions.create(id="s1", events=events("a", "b"))
        await sessions.end("s1", retain=60)
        assert await seqs(sessions.watch("s1")) == [1, 2]


async def test_it_goes_on_while_the_end_is_under_way(opened: Opener) -> None:
    """A session whose end hooks run is still there: the watch stops when it is over, not before."""
    entered, leave = asyncio.Event(), asyncio.Event()
    async with opened() as sessions:

        @sessions.on_end
        async def block(_session: Session, _reason: str) -> None:
            entered.set()
            await leave.wait()

        await sessions.create(id="s1", events=events("a"))
        watching = sessions.watch("s1")
        assert await take(watching, 1) == [1]
        coming = asyncio.ensure_future(anext(watching))
        end_of_it = asyncio.ensure_future(sessions.end("s1"))
        await entered.wait()
        assert not coming.done()
        leave.set()
        await end_of_it
        with pytest.raises(StopAsyncIteration):
            await coming


@pytest.mark.parametrize("again", [False, True])
async def test_a_session_that_gets_the_id_later_is_not_watched(opened: Opener, again: bool) -> None:
    """Deleted and created anew (and deleted again) at once: it stops, without the new events."""
    async with opened() as sessions:
        await sessions.create(id="s1", events=events("old"))
        watching = sessions.watch("s1")
        assert await take(watching, 1) == [1]
        await sessions.delete("s1")
        await sessions.create(id="s1", events=events("new", "new", "new"))
        assert await take(sessions.watch("s1"), 3) == [1, 2, 3]
        if again:
            await sessions.delete("s1")
        assert await seqs(watching) == []


async def test_a_truncated_log_is_followed_by_number(opened: Opener) -> None:
    """What was cut off is not yielded again and not missed; what replaces it comes next."""
    async with opened() as sessions:
        session = await sessions.create(id="s1", events=events(*"abcde"))
        ahead, behind = sessions.watch("s1"), sessions.watch("s1")
        assert await take(ahead, 5) == [1, 2, 3, 4, 5]
        await sessions.truncate(session, after=3)
        await sessions.append(session, *events("f"))
        await sessions.replace_suffix(session, expected=[3, 6], events=events("g", "h"))
        assert await take(ahead, 2) == [7, 8]
        assert await take(behind, 4) == [1, 2, 7, 8]


async def test_a_manager_that_closes_ends_its_watches(opened: Opener) -> None:
    """A watcher that waits is told `Closed`: it does not hang, and does not take it for an end."""
    async with opened() as sessions:
        await sessions.create(id="s1", events=events("a"))
        watching = sessions.watch("s1")
        assert await take(watching, 1) == [1]
        coming = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0)
    with pytest.raises(Closed):
        await coming


async def test_a_watcher_that_leaves_leaves_nothing_behind(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while it waits, no subscription and no task of it remain."""
    async with opened() as sessions:
        await sessions.create(id="s1", events=events("a"))
        before = asyncio.all_tasks()
        reached = waiting(monkeypatch, sessions)
        task = asyncio.ensure_future(seqs(sessions.watch("s1")))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert sessions.ending._watches.watched == frozenset()
        assert asyncio.all_tasks() == before


# --------------------------------------------------------------------------------- across processes

WRITER = """
import asyncio, sys
from sojourn import Event, SessionManager

async def main(url, count):
    async with SessionManager.open(url) as sessions:
        for number in range(int(count)):
            await sessions.append("s1", Event(kind="message", author="child", body=number))
        sys.stdin.readline()
        await sessions.end("s1")

asyncio.run(main(*sys.argv[1:]))
"""
"""A process that appends to the session, and ends it when told to."""

WATCHER = """
import asyncio, sys
from sojourn import SessionManager

async def main(url):
    async with SessionManager.open(url) as sessions:
        async for event in sessions.watch("s1"):
            print(event.seq, flush=True)
        print("stopped", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
"""A process that watches the session and prints the numbers that it sees."""


async def child(code: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start a Python process."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", code, *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)


async def test_it_sees_the_commits_of_another_process(tmp_path: Path) -> None:
    """Two processes append at the same time: the watcher sees every number once, then the end."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s1")
        watching = sessions.watch("s1")
        writer = await child(WRITER, url, "40")
        for number in range(40):
            await sessions.append("s1", Event(kind="message", author="parent", body=number))
        seen = [await anext(watching) for _ in range(80)]
        assert [event.seq for event in seen] == list(range(1, 81))
        for author in ("child", "parent"):
            assert [e.body for e in seen if e.author == author] == list(range(40))
        coming = asyncio.ensure_future(anext(watching))
        await writer.communicate(b"\n")
        assert writer.returncode == 0
        with pytest.raises(StopAsyncIteration):
            await coming


async def test_another_process_sees_our_commits(tmp_path: Path) -> None:
    """A watcher in a process of its own follows what is appended here, and stops at the end."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s1", events=events("a"))
        watcher = await child(WATCHER, url)
        assert watcher.stdout is not None
        assert await watcher.stdout.readline() == b"1\n"
        for number in range(2, 12):
            await sessions.append("s1", Event(kind="message", body=number))
            assert await watcher.stdout.readline() == b"%d\n" % number
        await sessions.end("s1")
        output, _ = await watcher.communicate()
        assert (output, watcher.returncode) == (b"stopped\n", 0)
