"""Large bodies: stored once, wholly or not at all, and gone when nobody uses them."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from tests.checkpoints.contents import bodies, ids, is_clean, pending, pieces
from tests.manager.watched_store import watched

from sojourn import CheckpointMissing, Conflict, Corrupt, Event, NotFound, SessionManager
from sojourn.checkpoints.bodies import CHUNK_BYTES, CHUNKS, UPLOAD_STALE
from sojourn.errors import Unavailable
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn import Checkpoints

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

HOUR = UPLOAD_STALE / 1_000_000
ONE_CHUNK = b"o" * 60
MANY_CHUNKS = b"m" * 300
large = pytest.mark.parametrize("body", [ONE_CHUNK, MANY_CHUNKS], ids=["one chunk", "many"])


async def whole(checkpoints: Checkpoints, id: str) -> bytes | None:
    found = await checkpoints.get(id)
    return None if found is None else found.body


class Broken(Exception):
    """What a source of bytes raises in these tests."""


async def breaking(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise Broken


# ------------------------------------------------------------------------------------------ sharing


@large
async def test_equal_bodies_are_stored_once(opened: Opener, small: None, body: bytes) -> None:
    """Given whole or in pieces; deleting one keeps the others, deleting the last frees it."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        for name, given in (("a", body), ("b", body), ("c", pieces(body[:7], body[7:]))):
            await checkpoints.save(given, id=name)
            assert list((await bodies(sessions, "s")).values()) == [-(-len(body) // 64)]
        await checkpoints.save(body[::-1] + b"!", id="other")
        assert len(await bodies(sessions, "s")) == 2
        for gone, left in (("a", "bc"), ("c", "b")):
            assert await checkpoints.delete(gone) == 1
            assert [await whole(checkpoints, name) for name in left] == [body] * len(left)
        await checkpoints.delete("b")
        assert len(await bodies(sessions, "s")) == 1
        await checkpoints.save(body, id="again")
        assert await whole(checkpoints, "again") == body
        await checkpoints.delete("again", "other")
        assert await is_clean(sessions, "s")


async def test_an_equal_body_is_not_sent_again(url: str, small: None) -> None:
    """However large: what is written is the checkpoint alone."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(MANY_CHUNKS)
        store.forget_calls()
        await checkpoints.save(MANY_CHUNKS)
        (change,) = [arguments[0] for verb, arguments in store.calls if verb == "commit"]
        assert max(len(part.body) for part in change.documents) < 300


@large
async def test_saving_anew_lets_go_of_the_old_body(
    opened: Opener, small: None, body: bytes
) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        for given in (body, body, body + b"!", b"tiny", body):
            await checkpoints.save(given, id="a")
            assert len(await bodies(sessions, "s")) == (given != b"tiny")
            assert await whole(checkpoints, "a") == given
        assert await pending(sessions, "s") == []


@large
async def test_many_at_once_share_one_body(
    opened: Opener, small: None, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two managers, eight savers: every checkpoint reads back; deleting all leaves nothing."""
    for module in ("bodies", "keeping"):  # more than all of them commit together
        monkeypatch.setattr(f"sojourn.checkpoints.{module}.SETTLE_ATTEMPTS", 1_000)
    async with opened() as one, opened() as other:
        await one.create(id="s")
        managers = (one, other)
        await asyncio.gather(
            *(managers[n % 2].checkpoints("s").save(body, id=f"c{n}") for n in range(8))
        )
        assert len(await bodies(one, "s")) == 1
        checkpoints = one.checkpoints("s")
        assert [await whole(checkpoints, f"c{n}") for n in range(8)] == [body] * 8
        await asyncio.gather(*(managers[n % 2].checkpoints("s").delete(f"c{n}") for n in range(8)))
        await checkpoints.prune(keep=0)
        assert await is_clean(one, "s")
        assert await bodies(one, "s") == {}


@large
async def test_saving_and_deleting_at_once_never_takes_a_body_away(
    opened: Opener, small: None, body: bytes
) -> None:
    """What was acknowledged reads back, while others delete the equal ones around it."""
    async with opened() as one, opened() as other:
        await one.create(id="s")

        async def churn(manager: SessionManager, who: str) -> None:
            checkpoints = manager.checkpoints("s")
            for number in range(6):
                name = f"{who}{number}"
                await checkpoints.save(body, id=name)
                assert await whole(checkpoints, name) == body
                if number:
                    await checkpoints.delete(f"{who}{number - 1}")

        await asyncio.gather(churn(one, "a"), churn(other, "b"), churn(one, "c"))
        checkpoints = one.checkpoints("s")
        for who in "abc":
            assert await whole(checkpoints, f"{who}5") == body
        await checkpoints.delete("a5", "b5", "c5")
        await checkpoints.prune(keep=0)
        assert await is_clean(one, "s")


@large
async def test_a_body_deleted_just_before_it_is_shared_is_stored_again(
    url: str, small: None, body: bytes
) -> None:
    """The commit that would share it expects the revision at which it was there."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(body, id="a")
        gate = store.hold("commit", "before")
        saving = asyncio.create_task(checkpoints.save(body, id="b"))
        await gate.arrived.wait()
        await checkpoints.delete("a")
        gate.go()
        await saving
        assert await whole(checkpoints, "b") == body
        assert len(await bodies(sessions, "s")) == 1


@large
async def test_a_body_shared_just_before_it_is_removed_stays(
    url: str, small: None, body: bytes
) -> None:
    """The commit that would remove it expects the revision at which nobody used it."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(body, id="a")
        await checkpoints.save(body, id="b")
        gate = store.hold("get", "after")  # of the removal: it has seen the revision
        deleting = asyncio.create_task(checkpoints.delete("a"))
        await gate.arrived.wait()
        await checkpoints.save(body, id="c")
        gate.go()
        await deleting
        assert [await whole(checkpoints, name) for name in "bc"] == [body, body]
        assert await pending(sessions, "s") == []


@large
async def test_who_never_gets_ahead_keeps_a_body_of_its_own(
    url: str, small: None, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a session so busy that no expected revision holds, saving and deleting still work."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(body, id="a")
        commit = store._store.commit

        async def overtaken(change: Any) -> Any:
            if change.revision is not None:
                expected = (change.epoch, change.revision)
                raise Conflict(change.id, expected, (change.epoch, change.revision + 1))
            return await commit(change)

        monkeypatch.setattr(store._store, "commit", overtaken)
        await checkpoints.save(pieces(body), id="b")
        assert [await whole(checkpoints, name) for name in "ab"] == [body, body]
        assert len(await bodies(sessions, "s")) == 2
        await checkpoints.delete("a", cut=True)
        assert await ids(checkpoints) == ["b"]
        assert len(await pending(sessions, "s")) == 1  # left for a sweep
        monkeypatch.undo()
        await checkpoints.prune(keep=1)
        assert await pending(sessions, "s") == []
        assert await whole(checkpoints, "b") == body
        assert len(await bodies(sessions, "s")) == 1


# --------------------------------------------------------------------------- wholly or not at all


@pytest.mark.parametrize("good", [0, 1, 3, 9])
async def test_a_source_that_fails_leaves_nothing(opened: Opener, small: None, good: int) -> None:
    """Its own error is what is raised, and what it replaces is still there."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(MANY_CHUNKS, id="a")
        before = await bodies(sessions, "s")
        with pytest.raises(Broken):
            await checkpoints.save(breaking(*[b"x" * 50] * good), id="a")
        assert await bodies(sessions, "s") == before
        assert await whole(checkpoints, "a") == MANY_CHUNKS


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(7))
async def test_one_that_is_cancelled_is_there_or_not(
    url: str, small: None, nth: int, when: Any
) -> None:
    """At each commit of an upload, before or after it reaches the store: all or nothing."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        reached = asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            for number in range(6):
                if number == nth:
                    reached.set()
                yield bytes([number]) * 64
            reached.set()

        saving = asyncio.create_task(checkpoints.save(source(), id="a"))
        await reached.wait()
        gate = store.hold("commit", when)
        await gate.arrived.wait()
        saving.cancel()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await saving
        found = await whole(checkpoints, "a")
        assert found in (None, b"".join(bytes([number]) * 64 for number in range(6)))
        assert await pending(sessions, "s") == []
        assert list((await bodies(sessions, "s")).values()) == ([] if found is None else [6])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(7))
async def test_one_whose_commit_fails_is_there_or_not(
    url: str, small: None, nth: int, when: Any
) -> None:
    """The store fails at each commit: a lost reply is no failure, the rest leaves nothing."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        body = b"".join(bytes([number]) * 64 for number in range(6))
        commits = 0
        inner = store._store.commit

        async def failing(change: Any) -> Any:
            nonlocal commits
            commits += 1
            if commits == nth + 1:
                if when == "after":
                    await inner(change)
                raise Unavailable("test", "the line was cut")
            return await inner(change)

        store._store.commit = failing  # type: ignore[method-assign]  # a fault, not a mock
        if when == "after":
            await checkpoints.save(body, id="a")
        else:
            with pytest.raises(Unavailable):
                await checkpoints.save(body, id="a")
        assert await whole(checkpoints, "a") == (body if when == "after" else None)
        assert await pending(sessions, "s") == []


async def test_nothing_of_an_upload_shows_before_it_is_whole(opened: Opener, small: None) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        before = await checkpoints.save(b"before")
        seen: list[list[str]] = []

        async def source() -> AsyncIterator[bytes]:
            for _ in range(5):
                seen.append(await ids(checkpoints))
                assert await checkpoints.get("a") is None
                yield b"x" * 64

        await checkpoints.save(source(), id="a")
        assert seen == [[before.id]] * 5
        assert await ids(checkpoints) == ["a", before.id]


async def test_what_a_dead_process_left_is_swept(opened: Opener, small: None) -> None:
    """Not while it may still go on; an hour after its last chunk by the next upload or prune."""
    for way in ("upload", "prune"):
        clock = FakeClock()
        async with opened(clock=clock) as sessions:
            session = await sessions.create()
            checkpoints = sessions.checkpoints(session.id)
            stuck = asyncio.Event()
            task = asyncio.ensure_future(checkpoints.save(endless(stuck)))
            await stuck.wait()
            (name,) = await pending(sessions, session.id)
            await leave_behind(sessions, session.id, name, task)
            clock.advance(HOUR - 1)
            await checkpoints.prune(keep=1)
            assert name in await pending(sessions, session.id)
            clock.advance(1)
            if way == "upload":
                await checkpoints.save(MANY_CHUNKS)
            else:
                await checkpoints.prune(keep=1)
            assert await pending(sessions, session.id) == []
            assert await sessions.documents(session.id).list(CHUNKS + name) == []


async def endless(stuck: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield some bytes, and then none until it is cancelled; `stuck` says that it is so far."""
    yield b"x" * 200
    stuck.set()
    await asyncio.Event().wait()


async def leave_behind(sessions: SessionManager, id: str, name: str, task: Any) -> None:
    """Stop an upload, and put back what its process would have left if it had died instead."""
    documents = sessions.documents(id)
    chunks = [
        await documents.get(CHUNKS + name, found.key)
        for found in await documents.list(CHUNKS + name)
    ]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pending(sessions, id) == []
    await documents.put("sojourn.checkpoint-pending", name, b"")
    for chunk in chunks:
        assert chunk is not None
        assert chunk.body is not None
        await documents.put(CHUNKS + name, chunk.key, chunk.body)


@pytest.mark.parametrize("pause", [HOUR / 2 - 1, HOUR / 2 + 1, HOUR - 1])
@pytest.mark.parametrize("at", [1, 4, 5])
async def test_a_slow_source_is_not_swept(
    opened: Opener, small: None, pause: float, at: int
) -> None:
    """It stays as long as there is less than an hour between its pieces, at the end as well."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)

        async def source() -> AsyncIterator[bytes]:
            for number in range(5):
                if number == at:
                    clock.advance(pause)
                    await checkpoints.prune(keep=9)
                yield bytes([number]) * 64
            if at == 5:
                clock.advance(pause)

        saved = await checkpoints.save(source())
        found = await whole(checkpoints, saved.id)
        assert found == b"".join(bytes([number]) * 64 for number in range(5))


@pytest.mark.parametrize("at", [3, 5])
async def test_a_source_that_stands_still_too_long_is_told(
    opened: Opener, small: None, at: int
) -> None:
    """Its upload was swept: it can not be completed, and no half of it is saved."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)

        async def source() -> AsyncIterator[bytes]:
            for number in range(5):
                if number == at:
                    clock.advance(HOUR)
                    await checkpoints.prune(keep=9)
                yield bytes([number]) * 64
            if at == 5:
                clock.advance(HOUR)
                await checkpoints.prune(keep=9)

        with pytest.raises(CheckpointMissing, match="abandoned"):
            await checkpoints.save(source(), id="a")
        assert await is_clean(sessions, "s")


async def test_a_session_made_anew_during_an_upload_gets_nothing_of_it(
    opened: Opener, small: None
) -> None:
    for at in range(2, 7):
        async with opened() as sessions:
            await sessions.create(id="s")
            checkpoints = sessions.checkpoints("s")

            async def source(at: int = at, sessions: SessionManager = sessions) -> Any:
                for number in range(6):
                    if number == at:
                        await sessions.delete("s")
                        await sessions.create(id="s")
                    yield bytes([number]) * 64
                if at == 6:
                    await sessions.delete("s")
                    await sessions.create(id="s")

            with pytest.raises(NotFound):
                await checkpoints.save(source(), id="a")
            assert await is_clean(sessions, "s")
            await sessions.delete("s")


# ------------------------------------------------------------------------------- reading and damage


@large
async def test_a_body_replaced_while_it_is_read_is_read_anew(
    url: str, small: None, body: bytes
) -> None:
    """`get` returns what is there now, or `None`; a stream says that it can not go on."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        for now in (b"tiny", body + b"!", None):
            await checkpoints.save(body, id="a")
            stream = checkpoints.stream("a")
            gate = store.hold("document", "after")
            reading = asyncio.create_task(checkpoints.get("a"))
            await gate.arrived.wait()
            streaming_gate = store.hold("document", "after")
            streaming = asyncio.ensure_future(anext(stream))
            await streaming_gate.arrived.wait()
            if now is None:
                await checkpoints.delete("a")
            else:
                await checkpoints.save(now, id="a")
            gate.go()
            streaming_gate.go()
            found = await reading
            assert (found and found.body) == now
            with pytest.raises(CheckpointMissing, match="while it was read"):
                await streaming


@large
@pytest.mark.parametrize("damage", ["missing", "changed", "short"])
async def test_a_damaged_body_is_corrupt(
    opened: Opener, small: None, body: bytes, damage: str
) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(body, id="a")
        ((name, chunks),) = (await bodies(sessions, "s")).items()
        documents = sessions.documents("s")
        last = f"{chunks - 1:08}"
        found = await documents.get(CHUNKS + name, last)
        assert found is not None
        assert found.body is not None
        if damage == "missing":
            await documents.drop(CHUNKS + name, last)
        else:
            wrong = found.body[:-1] + (b"?" if damage == "changed" else b"")
            await documents.put(CHUNKS + name, last, wrong)
        with pytest.raises(Corrupt, match="checkpoint 'a'"):
            await checkpoints.get("a")
        with pytest.raises(Corrupt, match="checkpoint 'a'"):
            async for _ in checkpoints.stream("a"):
                pass


async def test_a_use_that_was_left_behind_is_swept(opened: Opener, small: None) -> None:
    """By prune: of a checkpoint that is gone, and of one that has another body by now."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        await checkpoints.save(MANY_CHUNKS, id="gone")
        await checkpoints.save(ONE_CHUNK, id="other")
        documents = sessions.documents("s")
        found = await documents.get("sojourn.checkpoints", "other")
        assert found is not None
        assert found.body is not None
        await documents.drop("sojourn.checkpoints", "gone")
        await checkpoints.save(b"!" + ONE_CHUNK[1:], id="third")
        third = await documents.get("sojourn.checkpoints", "third")
        assert third is not None
        assert third.body is not None
        await documents.put("sojourn.checkpoints", "other", third.body)
        assert len(await bodies(sessions, "s")) == 3
        await checkpoints.prune(keep=5)
        assert len(await bodies(sessions, "s")) == 1
        assert await pending(sessions, "s") == []


# --------------------------------------------------------------------------------------------- size


async def test_a_large_stream_goes_through_flat_memory(tmp_path: Any) -> None:
    """In and out: a few chunks at a time, of a body many times as large."""
    piece = bytes(range(256)) * 400
    count = 24 * CHUNK_BYTES // len(piece)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield piece

    async with SessionManager.open(f"sqlite:///{tmp_path / 'a.db'}") as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        tracemalloc.start()
        try:
            saved = await checkpoints.save(source())
            digest = hashlib.sha256()
            async for chunk in checkpoints.stream(saved):
                digest.update(chunk)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert saved.size == count * len(piece)
        assert digest.hexdigest() == saved.sha256
        assert peak < 8 * CHUNK_BYTES


async def test_others_write_while_a_large_body_comes_in(opened: Opener, small: None) -> None:
    """Each chunk is a commit of its own, and their commits do not disturb it."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        checkpoints = sessions.checkpoints("s")

        async def source() -> AsyncIterator[bytes]:
            for number in range(10):
                await sessions.append(session, Event(kind="message", body=number))
                yield bytes([number]) * 64

        saved = await checkpoints.save(source())
        assert saved.seq == 10
        assert len(await sessions.events("s")) == 10
        assert await whole(checkpoints, saved.id) == b"".join(bytes([n]) * 64 for n in range(10))
