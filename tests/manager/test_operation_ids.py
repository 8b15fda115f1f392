"""Operation ids: a commit whose reply was lost is applied once, and the caller's copy agrees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    AlreadyExists,
    Event,
    Phase,
    Session,
    SessionManager,
    Trigger,
    Unavailable,
)
from sojourn.limits import OPERATIONS_REMEMBERED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]
    Verb = Callable[[SessionManager, Session], Awaitable[object]]


async def save(sessions: SessionManager, session: Session) -> None:
    session.state["k"] = 2
    await sessions.save(session)


async def save_strictly(sessions: SessionManager, session: Session) -> None:
    session.state["k"] = 2
    await sessions.save(session, conflict="fail")


VERBS: dict[str, Verb] = {
    "append": lambda sessions, s: sessions.append(s, Event(kind="b"), Event(kind="c")),
    "append by id": lambda sessions, s: sessions.append(s.id, Event(kind="b")),
    "apply": lambda sessions, s: sessions.apply(s.id, Trigger.END),
    "bind": lambda sessions, s: sessions.bind(s, "u1"),
    "document": lambda sessions, s: sessions.documents(s.id).put("c", "k", b"x"),
    "label": lambda sessions, s: sessions.label(s, {"room": "blue"}),
    "replace_suffix": lambda sessions, s: sessions.replace_suffix(
        s, expected=[1], events=[Event(kind="b")]
    ),
    "save": save,
    "strict save": save_strictly,
    "truncate": lambda sessions, s: sessions.truncate(s, after=0),
}
"""Every verb that commits to a session."""

every_verb = pytest.mark.parametrize("verb", VERBS)


async def a_session(sessions: SessionManager) -> Session:
    return await sessions.create(id="s1", state={"k": 1}, events=[Event(kind="a", id="e1")])


async def outcome(opened: Opener, verb: str) -> tuple[Any, ...]:
    """Return what a verb leads to when nothing goes wrong: revision, log, state, phase, ..."""
    async with opened(app="undisturbed") as sessions:
        session = await a_session(sessions)
        await VERBS[verb](sessions, session)
        return await seen(sessions, session)


async def seen(sessions: SessionManager, session: Session) -> tuple[Any, ...]:
    """Return what is stored now, and what the copy thinks is."""
    found = await sessions.require("s1", events=99)
    return (
        (found.revision, found.phase, found.user, dict(found.labels), dict(found.state)),
        [(event.seq, event.kind) for event in found.events],
        [document.key for document in await sessions.documents("s1").list("c")],
        (session.revision, dict(session.state), session.modified),
        [(event.seq, event.kind) for event in session.events],
    )


def wrap(
    monkeypatch: pytest.MonkeyPatch,
    sessions: SessionManager,
    verb: str,
    call: Callable[[Callable[[Any], Awaitable[Any]], Any], Awaitable[Any]],
) -> None:
    """Put `call(real verb, what it was asked)` in the place of a verb of the store."""
    real = getattr(sessions.store, verb)

    async def wrapped(asked: Any, /) -> Any:
        return await call(real, asked)

    monkeypatch.setattr(sessions.store, verb, wrapped)


# ------------------------------------------------------------------------------------- lost replies


@every_verb
async def test_a_commit_whose_reply_was_lost_succeeds(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Applied, then the connection broke: no error, applied once, and the copy knows."""
    expected = await outcome(opened, verb)
    async with opened() as sessions:
        session = await a_session(sessions)
        lost: list[Any] = []

        async def apply_and_lose(real: Any, change: Any) -> Any:
            committed = await real(change)
            if not lost:
                lost.append(change)
                raise Unavailable("wire", "the reply was lost")
            return committed

        wrap(monkeypatch, sessions, "commit", apply_and_lose)
        await VERBS[verb](sessions, session)
        assert len(lost) == 1
        assert await seen(sessions, session) == expected


@every_verb
async def test_a_commit_that_is_sent_twice_is_applied_once(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A driver that repeats what it sent gets the first result again."""
    expected = await outcome(opened, verb)
    async with opened() as sessions:
        session = await a_session(sessions)
        results: list[Any] = []

        async def twice(real: Any, change: Any) -> Any:
            results.extend([await real(change), await real(change)])
            return results[-1]

        wrap(monkeypatch, sessions, "commit", twice)
        await VERBS[verb](sessions, session)
        first, second = results
        assert (first.repeated, second.repeated) == (False, True)
        assert (first.revision, first.seqs) == (second.revision, second.seqs)
        assert await seen(sessions, session) == expected


@every_verb
async def test_a_commit_cancelled_after_it_was_applied_is_known_to_the_copy(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The caller is cancelled while the reply is on its way: store and copy agree all the same."""
    expected = await outcome(opened, verb)
    async with opened() as sessions:
        session = await a_session(sessions)
        applied = asyncio.Event()

        async def apply_and_hang(real: Any, change: Any) -> Any:
            committed = await real(change)
            if not applied.is_set():
                applied.set()
                await asyncio.Event().wait()
            return committed

        wrap(monkeypatch, sessions, "commit", apply_and_hang)
        task = asyncio.ensure_future(VERBS[verb](sessions, session))
        await applied.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await seen(sessions, session) == expected


@every_verb
@pytest.mark.parametrize("failure", [Unavailable("wire", "down"), asyncio.CancelledError()])
async def test_a_commit_that_was_not_applied_changes_nothing(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, verb: str, failure: BaseException
) -> None:
    """It fails as it failed, store and copy are as before, and trying again works."""
    expected = await outcome(opened, verb)
    async with opened() as sessions:
        session = await a_session(sessions)
        before = await seen(sessions, session)
        down = [True]

        async def refuse(real: Any, change: Any) -> Any:
            if down.pop():
                raise failure
            return await real(change)

        wrap(monkeypatch, sessions, "commit", refuse)
        with pytest.raises(type(failure)):
            await VERBS[verb](sessions, session)
        stored, *_ = await seen(sessions, session)
        assert stored == before[0]
        assert session.revision == 1
        monkeypatch.undo()
        await VERBS[verb](sessions, session)
        assert await seen(sessions, session) == expected


async def test_trouble_that_lasts_is_reported(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied or not, nobody can tell: `Unavailable`; the changes are still on the copy."""
    async with opened() as sessions:
        session = await a_session(sessions)

        async def down(_asked: Any, /) -> Any:
            raise Unavailable("wire", "down")

        monkeypatch.setattr(sessions.store, "commit", down)
        monkeypatch.setattr(sessions.store, "get", down)
        with pytest.raises(Unavailable):
            await save(sessions, session)
        assert session.modified
        assert session.state["k"] == 2


# ------------------------------------------------------------------------------------------ creates


@pytest.mark.parametrize("how", ["create", "new", "get_or_create"])
@pytest.mark.parametrize("fault", ["lost", "twice"])
async def test_a_create_whose_reply_was_lost_succeeds(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, how: str, fault: str
) -> None:
    """It is there once, and it is ours: no `AlreadyExists` of our own making."""
    async with opened() as sessions:
        calls: list[Any] = []

        async def faulty(real: Any, create: Any) -> Any:
            calls.append(create)
            await real(create)
            if fault == "twice":
                return await real(create)
            raise Unavailable("wire", "the reply was lost")

        wrap(monkeypatch, sessions, "create", faulty)
        event = Event(kind="a", delta={"n": 1})
        if how == "create":
            session = await sessions.create(id="s1", state={"k": 1}, events=[event])
        elif how == "get_or_create":
            session = await sessions.get_or_create("s1", state={"k": 1}, events=[event])
        else:
            session = await sessions.save(sessions.new(id="s1", state={"k": 1}))
        assert len(calls) == 1
        found = await sessions.require("s1")
        assert (
            (session.epoch, session.revision) == (found.epoch, found.revision) == (found.epoch, 1)
        )
        assert dict(session.state) == dict(found.state)
        assert session.stored
        assert not session.modified
        assert len(await sessions.events("s1")) == (0 if how == "new" else 1)


@pytest.mark.parametrize("new_id", ["copy", None])
@pytest.mark.parametrize("fault", ["lost", "twice"])
async def test_a_fork_whose_reply_was_lost_succeeds(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, fault: str, new_id: str | None
) -> None:
    """There is one copy, and it is returned."""
    async with opened() as sessions:
        await a_session(sessions)

        async def faulty(real: Any, fork: Any) -> Any:
            await real(fork)
            if fault == "twice":
                return await real(fork)
            raise Unavailable("wire", "the reply was lost")

        wrap(monkeypatch, sessions, "fork", faulty)
        fork = await sessions.fork("s1", new_id=new_id)
        assert (fork.forked_from, fork.revision) == ("s1", 1)
        assert len(await sessions.events(fork.id)) == 1
        assert await sessions.count() == 2


async def test_a_fork_that_failed_is_reported(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not applied: `Unavailable`, and there is no copy."""

    async def down(_real: Any, _fork: Any) -> Any:
        raise Unavailable("wire", "down")

    async with opened() as sessions:
        await a_session(sessions)
        wrap(monkeypatch, sessions, "fork", down)
        with pytest.raises(Unavailable):
            await sessions.fork("s1", new_id="copy")
        assert await sessions.count() == 1


async def test_a_create_that_somebody_else_made_meanwhile_is_not_ours(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails before it applies and another has the id: that is not taken for success."""
    async with opened() as sessions, opened() as others:

        async def lose_to_another(_real: Any, _create: Any) -> Any:
            await others.create(id="s1", state={"k": "theirs"})
            raise Unavailable("wire", "down")

        wrap(monkeypatch, sessions, "create", lose_to_another)
        with pytest.raises(Unavailable):
            await sessions.create(id="s1", state={"k": "ours"})
        monkeypatch.undo()
        assert (await sessions.require("s1")).state["k"] == "theirs"
        with pytest.raises(AlreadyExists):
            await sessions.create(id="s1")


# --------------------------------------------------------------------------------------------- ends


async def test_an_end_goes_through_over_lost_replies(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every commit of an end loses its first reply: hooks run once and the record is retained."""
    ran: list[str] = []
    async with opened() as sessions:
        await a_session(sessions)

        @sessions.on_end
        async def note(session: Session, _reason: str) -> None:
            ran.append(session.id)

        lost: set[bytes] = set()

        async def lose_the_first(real: Any, change: Any) -> Any:
            committed = await real(change)
            if change.op not in lost:
                lost.add(change.op)
                raise Unavailable("wire", "the reply was lost")
            return committed

        wrap(monkeypatch, sessions, "commit", lose_the_first)
        assert await sessions.end("s1", retain=60) is True
        assert len(lost) == 2
        assert ran == ["s1"]
        assert (await sessions.require("s1")).phase is Phase.ENDED


# ------------------------------------------------------------------------------------------ the ids


async def test_every_commit_has_an_id_of_its_own(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight bytes, never the same: two equal appends are two operations and two events."""
    ops: list[bytes] = []
    async with opened() as sessions:
        session = await a_session(sessions)

        async def note(real: Any, change: Any) -> Any:
            ops.append(change.op)
            return await real(change)

        wrap(monkeypatch, sessions, "commit", note)
        for _ in range(2):
            for verb in ("append", "append by id", "document", "label", "save"):
                await VERBS[verb](sessions, session)
        assert len(ops) == len(set(ops)) == 10
        assert {len(op) for op in ops} == {8}
        assert len(await sessions.events("s1")) == 7


async def test_the_last_operations_are_remembered(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry that comes after many other commits is still recognised, here and elsewhere."""
    async with opened() as sessions, opened() as others:
        await a_session(sessions)
        changes: list[Any] = []

        async def note(real: Any, change: Any) -> Any:
            changes.append(change)
            return await real(change)

        wrap(monkeypatch, sessions, "commit", note)
        first = await sessions.append("s1", Event(kind="first"))
        for _ in range(OPERATIONS_REMEMBERED - 1):
            await sessions.append("s1", Event(kind="later"))
        repeated = await others.store.commit(changes[0])
        assert (repeated.repeated, repeated.seqs) == (True, (first.seq,))
        assert len(await sessions.events("s1", kind="first")) == 1
