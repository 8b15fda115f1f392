"""Saving checkpoints and reading them back: the latest, one by id, all in order, and lines."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from tests.checkpoints.contents import ids, pieces
from tests.manager.watched_store import watched

from sojourn import (
    Checkpoint,
    CheckpointMissing,
    Conflict,
    Corrupt,
    Ended,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    NotFound,
    SessionManager,
    TooLarge,
    Unserializable,
)
from sojourn.checkpoints.record import Facts, put_of
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

MALFORMED = ["", " ", "a\nb", "\x00", "x" * 256, 7, b"c"]
SIZES = [0, 1, 16, 17, 63, 64, 65, 128, 200]
"""Around the bounds of `small`: inline up to 16, one chunk up to 64."""


# ---------------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", SIZES)
async def test_what_is_saved_comes_back(
    opened: Opener, small: None, size: int, streamed: bool
) -> None:
    """Every byte and every fact: by id, as the latest, in a list, and in a stream."""
    clock = FakeClock()
    body = bytes(range(256))[:size]
    async with opened(clock=clock) as sessions:
        session = await sessions.create(events=[Event(kind="message")])
        checkpoints = sessions.checkpoints(session.id)
        saved = await checkpoints.save(
            pieces(body[:30], b"", body[30:]) if streamed else body,
            content_type="application/json",
            metadata={"step": 1, "näme": [None, 1.5]},
        )
        facts = (saved.session, saved.parent, saved.content_type, saved.size, saved.seq)
        assert facts == (session.id, None, "application/json", size, 1)
        assert saved.sha256 == sha256(body).hexdigest()
        assert saved.created_at.timestamp() * 1_000_000 == clock.now()
        reads = [checkpoints.get(saved.id), checkpoints.get(saved), checkpoints.latest()]
        for found in [await read for read in reads]:
            assert found is not None
            assert found.body == body
            assert found.metadata == {"step": 1, "näme": [None, 1.5]}
            assert _facts(found) == _facts(saved)
        (listed,) = await checkpoints.list()
        assert (listed.body, _facts(listed)) == (None, _facts(saved))
        assert b"".join([piece async for piece in checkpoints.stream(saved)]) == body


def _facts(checkpoint: Any) -> list[Any]:
    names = ["session", "id", "parent", "content_type", "size", "sha256", "seq", "created_at"]
    return [getattr(checkpoint, name) for name in names]


async def test_a_body_is_bytes_of_any_kind(opened: Opener, small: None) -> None:
    """Views and arrays too; what happens to them later changes nothing."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        changing = bytearray(b"as saved " * 20)
        saved = await checkpoints.save(changing)
        strided = await checkpoints.save(memoryview(b"xyz" * 50)[::3])
        streamed = await checkpoints.save(pieces(bytearray(b"a" * 70), memoryview(b"b" * 70)))
        changing[:] = b"later"
        wanted = [b"as saved " * 20, b"x" * 50, b"a" * 70 + b"b" * 70]
        for checkpoint, body in zip((saved, strided, streamed), wanted, strict=True):
            found = await checkpoints.get(checkpoint.id)
            assert found is not None
            assert found.body == body


async def test_nothing_returned_is_what_is_stored(opened: Opener) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        given = {"steps": [1]}
        saved = await checkpoints.save(b"x", metadata=given)
        given["steps"].append(2)
        saved.metadata["steps"].append(3)
        for _ in range(2):
            found = await checkpoints.latest()
            assert found is not None
            assert found.metadata == {"steps": [1]}
            found.metadata.clear()


async def test_checkpoints_are_there_after_reopening(opened: Opener, url: str) -> None:
    """Small and large, in order; memory is the same while anybody has it open."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        first = await checkpoints.save(b"x" * 50_000)
        second = await checkpoints.save(b"y", parent=first)
        if url.startswith("sqlite"):
            await sessions.close()
        async with opened() as again:
            found = await again.checkpoints("s").get(first.id)
            assert found is not None
            assert found.body == b"x" * 50_000
            assert await ids(again.checkpoints("s")) == [second.id, first.id]


# ------------------------------------------------------------------------------------------- order


@pytest.mark.behaviour(104)
async def test_the_latest_is_the_last_saved_whatever_the_clocks_say(opened: Opener) -> None:
    """Within one tick, by a clock that is behind, and with ids in any order."""
    ahead = FakeClock()
    ahead.advance(3_600)
    names = ["m", "a", "z", "\U0001f600", "b", "ß"]
    async with opened(clock=FakeClock()) as one, opened(clock=ahead) as other:
        await one.create(id="s")
        for number, name in enumerate(names):
            manager = other if number % 2 == 0 else one
            await manager.checkpoints("s").save(b"", id=name)
            latest = await one.checkpoints("s").latest()
            assert latest is not None
            assert latest.id == name
            assert await ids(other.checkpoints("s")) == names[number::-1]


async def test_two_who_save_at_once_agree_on_the_order(opened: Opener) -> None:
    """All are kept; the latest is the last that either saved, and each one's own are in order."""
    async with opened() as one, opened() as other:
        await one.create(id="s")

        async def save(manager: SessionManager, who: str) -> None:
            parent = None
            for number in range(20):
                parent = await manager.checkpoints("s").save(
                    b"x", id=f"{who}{number}", parent=parent
                )

        await asyncio.gather(save(one, "a"), save(other, "b"), save(one, "c"))
        seen = (await ids(one.checkpoints("s")))[::-1]
        assert seen == (await ids(other.checkpoints("s")))[::-1]
        for who in "abc":
            assert [id for id in seen if id[0] == who] == [f"{who}{n}" for n in range(20)]
        latest = await one.checkpoints("s").latest(body=False)
        assert latest is not None
        assert latest.id == seen[-1]


@pytest.mark.behaviour(104)
@pytest.mark.parametrize("before", [b"old", b"o" * 40, b"o" * 200])
@pytest.mark.parametrize("after", [b"new", b"n" * 40, b"n" * 200, b"o" * 200])
async def test_saving_under_an_id_that_is_there_replaces_it(
    opened: Opener, small: None, before: bytes, after: bytes
) -> None:
    """There is one with the id; it is new in all facts, and the latest."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        await checkpoints.save(before, id="a", metadata={"n": 1}, content_type="text/old")
        await checkpoints.save(b"between", id="b")
        await checkpoints.save(after, id="a", metadata={"n": 2}, parent="b")
        assert await ids(checkpoints) == ["a", "b"]
        found = await checkpoints.get("a")
        assert found is not None
        assert (found.body, found.metadata, found.parent) == (after, {"n": 2}, "b")
        assert found.content_type == "application/octet-stream"


async def test_lists_are_in_pages(opened: Opener) -> None:
    """Newest first, at most `limit`, those before a checkpoint or an id, gone or not."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        saved = [(await checkpoints.save(b"", id=f"c{n}")).id for n in range(25)]
        seen: list[str] = []
        page = await checkpoints.list(limit=10)
        while page:
            assert len(page) <= 10
            assert all(item.body is None for item in page)
            seen += [item.id for item in page]
            await checkpoints.delete(page[-1], cut=True)  # pages go on from it all the same
            await checkpoints.save(b"", id=f"late{len(seen)}")
            page = await checkpoints.list(limit=10, before=page[-1])
        assert seen == saved[::-1]
        assert (await checkpoints.list(limit=1, before="c7"))[0].id == "c6"
        with pytest.raises(CheckpointMissing, match="c5"):
            await checkpoints.list(before="c5")


async def test_pages_go_on_from_what_save_returned_or_another_session_has(opened: Opener) -> None:
    """What has no place, or one elsewhere, is found by its id."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        saved = [await checkpoints.save(b"", id=f"c{n}") for n in range(5)]
        assert [item.id for item in await checkpoints.list(before=saved[2])] == ["c1", "c0"]
        fork = await sessions.fork("s")
        theirs = await sessions.checkpoints(fork).list()
        assert [item.id for item in await checkpoints.list(before=theirs[3])] == ["c0"]


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, 2.0])
async def test_the_limit_of_a_list_is_checked(opened: Opener, limit: Any) -> None:
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match="limit"):
            await sessions.checkpoints("s").list(limit=limit)


async def test_long_metadata_comes_back_in_lists_too(opened: Opener) -> None:
    """Beyond what a listing reads at first, next to inline bodies."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        for number, length in enumerate([10, 900, 1_100, 16_000]):
            await checkpoints.save(b"y" * 16_384, metadata={"text": "x" * length}, id=f"c{number}")
        listed = await checkpoints.list()
        assert [len(item.metadata["text"]) for item in listed] == [16_000, 1_100, 900, 10]
        latest = await checkpoints.latest()
        assert latest is not None
        assert (latest.body, len(latest.metadata["text"])) == (b"y" * 16_384, 16_000)


# ----------------------------------------------------------------------------------- cost and calls


async def test_a_small_one_is_one_commit_and_one_read(url: str) -> None:
    """However many there are; a parent, or an id of one's own, is looked up once."""
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        for number in range(30):
            await checkpoints.save(b"x" * 8_000, id=f"c{number}")
        store.forget_calls()
        first = await checkpoints.save(b"x" * 8_000)
        assert store.verbs == ["commit"]
        await checkpoints.save(b"x" * 8_000, parent=first)
        assert store.verbs == ["commit", "commit"]
        store.forget_calls()
        await sessions.checkpoints(checkpoints._place.id).save(b"x" * 8_000, parent=first)
        assert store.verbs == ["get", "document", "commit"]
        session = await sessions.require(checkpoints._place.id)
        store.forget_calls()
        for _ in range(2):  # a working copy knows the revision
            await sessions.checkpoints(session).save(b"x" * 8_000, parent=first)
        assert store.verbs == ["document", "commit"] * 2
        store.forget_calls()
        found = await checkpoints.latest()
        assert store.verbs == ["documents"]
        assert found is not None
        assert await checkpoints.get(found.id) == found
        assert store.verbs == ["documents", "document"]


async def test_a_parent_that_was_just_saved_is_not_looked_up(url: str) -> None:
    """As long as nobody else commits: the commit itself says so, and else it is looked up."""
    async with watched(url) as (sessions, store):
        id = (await sessions.create()).id
        checkpoints = sessions.checkpoints(id)

        async def saved(parent: Checkpoint | None) -> tuple[Checkpoint, list[str]]:
            store.forget_calls()
            return await checkpoints.save(b"x", parent=parent), store.verbs

        last = None
        for expected in (["commit"], ["commit"]):
            last, verbs = await saved(last)
            assert verbs == expected
        await sessions.append(id, Event(kind="note"))
        looked_up = ["get", "document", "commit"]
        for expected in (["commit", *looked_up], looked_up, ["commit"]):
            last, verbs = await saved(last)
            assert verbs == expected
        assert last is not None
        assert [each.parent for each in await checkpoints.lineage(last)].count(None) == 1
        assert len(await checkpoints.lineage(last)) == 5
        _, verbs = await saved((await checkpoints.list())[-1])
        assert verbs == looked_up


@pytest.mark.parametrize("again", [False, True])
async def test_a_parent_that_was_just_saved_and_removed(opened: Opener, again: bool) -> None:
    """By somebody else, alone or with its session: it is missing, and nothing is saved."""
    async with opened() as sessions:
        await sessions.create(id="s-1")
        checkpoints = sessions.checkpoints("s-1")
        first = await checkpoints.save(b"1")
        second = await checkpoints.save(b"2", parent=first)
        if again:
            await sessions.delete("s-1")
            await sessions.create(id="s-1")
            for number in range(2):  # to the same revision
                await sessions.checkpoints("s-1").save(b"new", id=f"n{number}")
        else:
            await sessions.checkpoints("s-1").delete(second)
        with pytest.raises(CheckpointMissing):
            await checkpoints.save(b"3", parent=second)
        left = [each.id for each in await checkpoints.list()]
        assert left == (["n1", "n0"] if again else [first.id])


async def test_a_parent_that_was_saved_anew_meanwhile(opened: Opener) -> None:
    """It is another one then, and the parent of what comes from it all the same."""
    async with opened() as sessions:
        await sessions.create(id="s-1")
        checkpoints = sessions.checkpoints("s-1")
        first = await checkpoints.save(b"1", id="c")
        await sessions.checkpoints("s-1").delete(first)
        await sessions.checkpoints("s-1").save(b"2", id="c")
        second = await checkpoints.save(b"3", parent=first)
        line = await checkpoints.lineage(second)
        assert [each.id for each in line] == [second.id, "c"]
        assert (await checkpoints.save(b"4", parent=second)).parent == second.id


async def test_a_deep_line_is_read_in_pages(url: str) -> None:
    async with watched(url) as (sessions, store):
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        parent = None
        for _ in range(250):
            parent = await checkpoints.save(b"", parent=parent)
        assert parent is not None
        store.forget_calls()
        assert len(await checkpoints.lineage(parent)) == 250
        assert store.verbs == ["document", "documents", "documents", "documents"]


# ----------------------------------------------------------------------------------------- parents


async def test_lines_of_parents_branch(opened: Opener) -> None:
    """Itself first, without bodies, then those that it came from, and no others."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        root = await checkpoints.save(b"", id="root")
        left = await checkpoints.save(b"", id="left", parent=root)
        right = await checkpoints.save(b"", id="right", parent="root")
        await checkpoints.save(b"", id="leftmost", parent=left)

        async def line(id: str) -> list[str]:
            return [item.id for item in await checkpoints.lineage(id)]

        assert await line("leftmost") == ["leftmost", "left", "root"]
        assert [item.id for item in await checkpoints.lineage(right)] == ["right", "root"]
        await checkpoints.save(b"", id="left", parent="right")  # saved anew, after its child
        assert await line("leftmost") == ["leftmost", "left", "right", "root"]
        assert await line("unknown") == []


@pytest.mark.parametrize("parent", ["unknown", "x" * 255])
async def test_an_unknown_parent_is_refused(opened: Opener, parent: str) -> None:
    """With its id and the session's; nothing is saved."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create(id="s")).id)
        with pytest.raises(CheckpointMissing) as refused:
            await checkpoints.save(b"", parent=parent)
        assert (refused.value.id, refused.value.checkpoint) == ("s", parent)
        assert await ids(checkpoints) == []


async def test_a_line_never_leads_back_to_itself(opened: Opener) -> None:
    """Neither directly nor through others."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        await checkpoints.save(b"", id="a")
        await checkpoints.save(b"", id="b", parent="a")
        await checkpoints.save(b"", id="c", parent="b")
        for parent in ("a", "b", "c"):
            with pytest.raises(InvalidQuery, match="parent"):
                await checkpoints.save(b"", id="a", parent=parent)
        await checkpoints.save(b"", id="b", parent="a")
        assert [item.id for item in await checkpoints.lineage("c")] == ["c", "b", "a"]


async def test_a_line_that_was_made_to_lead_back_is_found_out(opened: Opener) -> None:
    """By a damaged store; reading it says so and comes to an end."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        for name in "ab":
            await checkpoints.save(b"", id=name)
        for name, parent in ("ab", "ba"):
            facts = Facts(size=0, sha256=sha256(b"").hexdigest(), parent=parent)
            await checkpoints._place.commit([put_of(name, facts, "text/plain", b"")])
        with pytest.raises(Corrupt, match="leads back"):
            await checkpoints.lineage("a")
        await checkpoints.save(b"", id="c")
        assert await checkpoints.delete("a", "b") == 2


async def test_who_gets_the_id_of_a_deleted_one_is_not_taken_for_it(opened: Opener) -> None:
    """Lines that were cut stay cut, so none can be led back to itself that way either."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        await checkpoints.save(b"", id="a")
        await checkpoints.save(b"", id="b", parent="a")
        await checkpoints.delete("a", cut=True)
        await checkpoints.save(b"", id="a", parent="b")
        assert [item.id for item in await checkpoints.lineage("a")] == ["a", "b"]
        assert [item.id for item in await checkpoints.lineage("b")] == ["b"]
        assert (await checkpoints.prune(keep=2)).cut == ("b",)
        assert await checkpoints.delete("a") == 1  # "b" came from another


# --------------------------------------------------------------------------------------- refusals


async def test_what_is_not_there_is_absent_on_read_and_an_error_on_write(opened: Opener) -> None:
    """No session, a malformed one, no checkpoint, a malformed one."""
    async with opened() as sessions:
        await sessions.create(id="empty")
        for session in ("empty", "unknown", "", "a\nb"):
            checkpoints = sessions.checkpoints(session)
            assert await checkpoints.latest() is None
            assert await checkpoints.list() == []
            for id in ("unknown", "", "a\nb"):
                assert await checkpoints.get(id) is None
                assert await checkpoints.lineage(id) == []
                with pytest.raises(CheckpointMissing):
                    await anext(checkpoints.stream(id))
            if session != "empty":
                for body in (b"", b"x" * 20_000, b"x" * 2_000_000):
                    with pytest.raises(NotFound):
                        await checkpoints.save(body)
                with pytest.raises(NotFound, match="no such session"):
                    await checkpoints.save(b"", parent="unknown")
                with pytest.raises(NotFound, match="no such session"):
                    await checkpoints.prune(keep=1)
                with pytest.raises(NotFound, match="no such session"):
                    await checkpoints.delete("unknown")
        assert await sessions.count() == 1


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_names_are_refused(opened: Opener, name: Any) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        with pytest.raises(InvalidId, match="checkpoint id"):
            await checkpoints.save(b"", id=name)
        with pytest.raises(InvalidId, match="parent"):
            await checkpoints.save(b"", parent=name)
        with pytest.raises(InvalidId, match="content type"):
            await checkpoints.save(b"", content_type=name)
        with pytest.raises(InvalidId, match="checkpoint id"):
            await checkpoints.delete(name)
        assert await checkpoints.get(name) is None
        assert await ids(checkpoints) == []


@pytest.mark.parametrize("body", ["text", None, 7, ["x"], object()])
async def test_what_is_not_bytes_is_refused(opened: Opener, small: None, body: Any) -> None:
    """Whole or as a piece, early or late; nothing is left of it."""
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        with pytest.raises(Unserializable, match="body"):
            await checkpoints.save(body)
        for good in (0, 1, 5):
            with pytest.raises(Unserializable, match="body"):
                await checkpoints.save(pieces(*[b"x" * 50] * good, body))
        assert await ids(checkpoints) == []


@pytest.mark.parametrize(
    "metadata", [{"x": b""}, {"x": float("nan")}, {1: 2}, [1], "x", {"x": (1,)}, {"x": "\ud800"}]
)
async def test_metadata_is_json(opened: Opener, metadata: Any) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        with pytest.raises(Unserializable, match="metadata"):
            await checkpoints.save(b"", metadata=metadata)
        assert await ids(checkpoints) == []


async def test_sizes_are_bounded(
    opened: Opener, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits themselves fit; one byte more is `TooLarge` with both numbers."""
    monkeypatch.setattr("sojourn.checkpoints.keeping.MAX_CHECKPOINT", 200)
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        await checkpoints.save(b"x" * 200)
        await checkpoints.save(pieces(b"y" * 200), metadata={"": "x" * (16 * 1024 - 7)})
        for body in (b"x" * 201, pieces(b"x" * 100, b"y" * 101)):
            with pytest.raises(TooLarge) as refused:
                await checkpoints.save(body)
            assert (refused.value.size, refused.value.limit) == (201, 200)
        with pytest.raises(TooLarge, match="metadata"):
            await checkpoints.save(b"", metadata={"": "x" * (16 * 1024 - 6)})
        assert len(await ids(checkpoints)) == 2


async def test_a_body_too_large_for_memory_is_only_streamed(
    opened: Opener, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.checkpoints.verbs.MAX_DOCUMENT", 150)
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        saved = await checkpoints.save(b"x" * 151)
        with pytest.raises(TooLarge, match="stream"):
            await checkpoints.get(saved.id)
        latest = await checkpoints.latest(body=False)
        assert latest is not None
        assert (latest.id, latest.body) == (saved.id, None)
        assert [len(piece) async for piece in checkpoints.stream(saved)] == [64, 64, 23]


@pytest.mark.parametrize("keep", [-1, True, 1.0, None])
async def test_how_many_to_keep_is_checked(opened: Opener, keep: Any) -> None:
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match="keep"):
            await sessions.checkpoints("s").prune(keep=keep)


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x02\0\0\0\x02{}", b"\x01\0\0\0\x02[]"])
async def test_a_damaged_one_is_corrupt_not_missing(opened: Opener, damage: bytes) -> None:
    async with opened() as sessions:
        session = await sessions.create()
        checkpoints = sessions.checkpoints(session.id)
        await sessions.documents(session.id).put("sojourn.checkpoints", "c", damage)
        for read in (checkpoints.get("c"), checkpoints.latest(), checkpoints.list()):
            with pytest.raises(Corrupt, match="checkpoint 'c'"):
                await read


# --------------------------------------------------------------------------- as part of a session


async def test_a_session_that_is_over_takes_none_and_its_hooks_can_read_them(
    opened: Opener, small: None
) -> None:
    """Expired: missing, but for those who end it. Ended: `Ended`."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create(id="s", expiry=Expiry(idle=60))
        checkpoints = sessions.checkpoints(session.id)
        small_one = await checkpoints.save(b"small")
        large_one = await checkpoints.save(b"large " * 40, parent=small_one)
        clock.advance(60)
        assert await checkpoints.latest() is None
        assert await checkpoints.list() == []
        with pytest.raises(Ended):
            await checkpoints.save(b"x")
        seen: list[Any] = []

        @sessions.on_end
        async def archive(session: Any, reason: str) -> None:
            theirs = sessions.checkpoints(session)
            latest = await theirs.latest(expired=True)
            assert latest is not None
            seen.append(latest.body)
            seen.append([item.id for item in await theirs.lineage(latest, expired=True)])
            seen.extend([item.id for item in await theirs.list(expired=True, before=latest)])
            seen.extend([piece async for piece in theirs.stream(small_one, expired=True)])
            with pytest.raises(Ended):
                await theirs.save(b"x")

        await sessions.end("s")
        line = [large_one.id, small_one.id]
        assert seen == [b"large " * 40, line, small_one.id, b"small"]


@pytest.mark.behaviour(19)
async def test_checkpoints_go_with_their_session(opened: Opener, small: None) -> None:
    """Deleted, forgotten, ended: a successor with the id has none, of whatever size."""
    async with opened() as sessions:
        for way in ("delete", "forget", "end"):
            session = await sessions.create(id="s", user="u")
            checkpoints = sessions.checkpoints("s")
            saved = [await checkpoints.save(b"x" * size) for size in (1, 40, 300)]
            if way == "delete":
                await sessions.delete("s")
            elif way == "forget":
                await sessions.forget("u")
            else:
                await sessions.end("s")
            assert await ids(checkpoints) == []
            await sessions.create(id="s")
            assert await ids(checkpoints) == []
            for checkpoint in saved:
                assert await checkpoints.get(checkpoint.id) is None
            with pytest.raises(NotFound):
                await sessions.checkpoints(session).save(b"of the one before")
            await sessions.delete("s")


async def test_checkpoints_of_a_working_copy_are_of_that_very_session(
    opened: Opener, small: None
) -> None:
    """Made again under the same id it is another; and the copy knows of its own commits."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 0})
        checkpoints = sessions.checkpoints(session)
        for size in (1, 40, 300):
            await checkpoints.save(b"x" * size)
        session.state["n"] = 1
        await sessions.save(session, conflict="fail")
        await sessions.checkpoints("s").save(b"somebody else's")
        session.state["n"] = 2
        with pytest.raises(Conflict):
            await sessions.save(session, conflict="fail")
        await sessions.delete("s")
        await sessions.create(id="s")
        for size in (1, 40, 300):
            with pytest.raises(NotFound):
                await checkpoints.save(b"x" * size)
        assert await ids(sessions.checkpoints("s")) == []


async def test_sessions_and_apps_do_not_see_each_others(opened: Opener, small: None) -> None:
    """One id in two sessions and two apps: four checkpoints, and equal bodies are apart as well."""
    async with opened() as ours, opened(app="other") as theirs:
        places = []
        for manager in (ours, theirs):
            for id in ("s1", "s2"):
                await manager.create(id=id)
                places.append(manager.checkpoints(id))
        for place in places:
            await place.save(b"x" * 300, id="c")
        await places[0].delete("c")
        assert await places[0].get("c") is None
        for place in places[1:]:
            found = await place.get("c")
            assert found is not None
            assert found.body == b"x" * 300


async def test_a_stream_that_is_left_early_costs_nothing_more(opened: Opener, small: None) -> None:
    async with opened() as sessions:
        checkpoints = sessions.checkpoints((await sessions.create()).id)
        saved = await checkpoints.save(b"x" * 1_000)
        async with aclosing(checkpoints.stream(saved)) as stream:
            assert await anext(stream) == b"x" * 64
        assert await checkpoints.delete(saved) == 1
