"""Documents: named bytes of a session or an app."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from sojourn import (
    Conflict,
    Corrupt,
    Event,
    InvalidId,
    InvalidQuery,
    NotFound,
    SessionManager,
    TooLarge,
    Unserializable,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sojourn import Documents

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

TICK = 0.000_001

owners = pytest.mark.parametrize("owner", ["s1", None], ids=["session", "app"])

MALFORMED = ["", " ", "a\nb", "\x00", "x" * 256, 7, None]


async def documents_of(sessions: SessionManager, owner: str | None) -> Documents:
    """Return the documents of a new session, or of the app."""
    if owner is not None:
        await sessions.create(id=owner)
    return sessions.documents(owner)


async def keys(documents: Documents, collection: str = "c") -> list[str]:
    return [document.key for document in await documents.list(collection)]


# -------------------------------------------------------------------------------------- put and get


@pytest.mark.behaviour(60)
@owners
async def test_what_is_put_comes_back(opened: Opener, owner: str | None) -> None:
    """Every byte, the content type, and the facts: size, times, no deadline."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        documents = await documents_of(sessions, owner)
        body = bytes(range(256)) * 300
        await documents.put("c", "k", body, content_type="image/png")
        found = await documents.get("c", "k")
        assert found is not None
        assert (found.collection, found.key, found.content_type) == ("c", "k", "image/png")
        assert (found.body, found.size) == (body, len(body))
        assert found.created_at == found.updated_at
        assert found.created_at.timestamp() * 1_000_000 == clock.now()
        assert (found.expires_at, found.seq) == (None, 0)


@pytest.mark.behaviour(61)
@owners
async def test_putting_again_replaces(opened: Opener, owner: str | None) -> None:
    """Body, type and `updated_at` are the new ones; `created_at` stays."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        documents = await documents_of(sessions, owner)
        await documents.put("c", "k", b"old", content_type="text/plain")
        clock.advance(5)
        await documents.put("c", "k", b"newer")
        found = await documents.get("c", "k")
        assert found is not None
        assert (found.body, found.size) == (b"newer", 5)
        assert found.content_type == "application/octet-stream"
        assert (found.updated_at - found.created_at).total_seconds() == 5
        assert await keys(documents) == ["k"]


@owners
async def test_a_body_is_bytes_of_any_kind(opened: Opener, owner: str | None) -> None:
    """Bytes, bytearray, memoryview, empty; a later change of what was given changes nothing."""
    async with opened() as sessions:
        documents = await documents_of(sessions, owner)
        changing = bytearray(b"as put")
        for key, body in (("a", b""), ("b", changing), ("c", memoryview(b"xyz")[::2])):
            await documents.put("c", key, body)  # type: ignore[arg-type]  # accepted all the same
        changing[:] = b"later!"
        found = [await documents.get("c", key) for key in "abc"]
        assert [document and document.body for document in found] == [b"", b"as put", b"xz"]


@pytest.mark.parametrize("body", ["text", None, 7, [1, 2]])
async def test_what_is_not_bytes_is_refused(opened: Opener, body: Any) -> None:
    """`Unserializable`, naming the body; nothing is stored."""
    async with opened() as sessions:
        documents = await documents_of(sessions, "s1")
        with pytest.raises(Unserializable, match="body"):
            await documents.put("c", "k", body)
        assert await documents.get("c", "k") is None


async def test_a_document_over_the_limit_is_refused(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit itself fits; one byte more is `TooLarge` with both numbers, the old body stays."""
    monkeypatch.setattr("sojourn.documents.MAX_DOCUMENT", 10)
    async with opened() as sessions:
        documents = await documents_of(sessions, "s1")
        await documents.put("c", "k", b"x" * 10)
        with pytest.raises(TooLarge) as refused:
            await documents.put("c", "k", b"y" * 11)
        assert (refused.value.size, refused.value.limit) == (11, 10)
        found = await documents.get("c", "k")
        assert found is not None
        assert found.body == b"x" * 10


@pytest.mark.behaviour(60)
@owners
async def test_a_missing_document_is_none(opened: Opener, owner: str | None) -> None:
    """Unknown key, unknown collection; dropping either is fine."""
    async with opened() as sessions:
        documents = await documents_of(sessions, owner)
        await documents.put("c", "k", b"x")
        assert await documents.get("c", "other") is None
        assert await documents.get("other", "k") is None
        assert await documents.list("other") == []
        await documents.drop("c", "other")
        await documents.drop("other")
        assert await keys(documents) == ["k"]


async def test_documents_of_an_unknown_session(opened: Opener) -> None:
    """Absent on read, `NotFound` on write, for unknown and malformed ids; nothing is created."""
    async with opened() as sessions:
        for id in ("unknown", "", "a\nb"):
            documents = sessions.documents(id)
            assert await documents.get("c", "k") is None
            assert await documents.list("c") == []
            with pytest.raises(NotFound):
                await documents.put("c", "k", b"x")
            with pytest.raises(NotFound):
                await documents.drop("c", "k")
        assert await sessions.count() == 0


# -------------------------------------------------------------------------------------------- names


@owners
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_name_is_refused_on_write_and_absent_on_read(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, owner: str | None, name: Any
) -> None:
    """`InvalidId` names which; reads answer without asking the store."""
    async with opened() as sessions:
        documents = await documents_of(sessions, owner)
        with pytest.raises(InvalidId, match="collection"):
            await documents.put(name, "k", b"x")
        with pytest.raises(InvalidId, match="document key"):
            await documents.put("c", name, b"x")
        with pytest.raises(InvalidId, match="content type"):
            await documents.put("c", "k", b"x", content_type=name)
        with pytest.raises(InvalidId, match="collection"):
            await documents.drop(name)
        if name is not None:
            with pytest.raises(InvalidId, match="document key"):
                await documents.drop("c", name)

        async def refuse(_asked: Any, /) -> Any:
            raise AssertionError("the store was asked")

        for verb in ("document", "documents"):
            monkeypatch.setattr(sessions.store, verb, refuse)
        assert await documents.get(name, "k") is None
        assert await documents.get("c", name) is None
        assert await documents.list(name) == []


@pytest.mark.behaviour(62)
async def test_names_and_owners_never_collide(opened: Opener) -> None:
    """One key in two collections, sessions, apps, and names with separators: all independent."""
    places = [("a", "b/c"), ("a/b", "c"), ("a:b", "c"), ("a", "b:c"), ("A", "b/c"), ("ä", "ß")]
    async with opened() as sessions, opened(app="other") as others:
        every: list[Documents] = []
        for manager in (sessions, others):
            every.append(manager.documents())
            every += [await documents_of(manager, id) for id in ("s1", "s2")]
        for number, documents in enumerate(every):
            for collection, key in places:
                await documents.put(collection, key, f"{number} {collection} {key}".encode())
        for number, documents in enumerate(every):
            for collection, key in places:
                found = await documents.get(collection, key)
                assert found is not None
                assert found.body == f"{number} {collection} {key}".encode()
        await every[0].drop("a", "b/c")
        await every[1].drop("a/b")
        assert await every[0].get("a", "b/c") is None
        assert await every[0].get("a/b", "c") is not None
        assert await every[1].get("a/b", "c") is None
        assert await every[2].get("a/b", "c") is not None


# -------------------------------------------------------------------------------------------- lists


@owners
async def test_a_list_ascends_by_key_in_pages_without_bodies(
    opened: Opener, owner: str | None
) -> None:
    """`after` is exclusive, `limit` bounds the page, and a listing carries no bodies."""
    async with opened() as sessions:
        documents = await documents_of(sessions, owner)
        names = [f"k{number:02}" for number in range(25)]
        for name in reversed(names):
            await documents.put("c", name, name.encode())
        seen: list[str] = []
        while page := await documents.list("c", after=seen[-1] if seen else None, limit=10):
            assert len(page) <= 10
            assert all(document.body is None and document.size == 3 for document in page)
            seen += [document.key for document in page]
        assert seen == names


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, 2.0])
async def test_the_limit_of_a_list_is_checked(opened: Opener, limit: Any) -> None:
    """From 1 to 1000, whole; all else is `InvalidQuery`."""
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match="limit"):
            await sessions.documents().list("c", limit=limit)


# ----------------------------------------------------------------------------------------- dropping


@owners
async def test_a_document_or_a_collection_is_dropped(opened: Opener, owner: str | None) -> None:
    """With a key only that one; without, the whole collection and no other."""
    async with opened() as sessions:
        documents = await documents_of(sessions, owner)
        for collection in ("c", "d"):
            for key in ("k1", "k2"):
                await documents.put(collection, key, b"x")
        await documents.drop("c", "k1")
        assert await keys(documents, "c") == ["k2"]
        await documents.drop("d")
        assert await keys(documents, "c") == ["k2"]
        assert await keys(documents, "d") == []


@owners
async def test_a_document_with_a_ttl_is_missing_at_its_deadline(
    opened: Opener, owner: str | None
) -> None:
    """There until one microsecond before; replaced without a ttl it stays for good."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        documents = await documents_of(sessions, owner)
        await documents.put("c", "k", b"x", ttl=60)
        clock.advance(60 - TICK)
        found = await documents.get("c", "k")
        assert found is not None
        assert found.expires_at is not None
        assert (found.expires_at - found.created_at).total_seconds() == 60
        assert await keys(documents) == ["k"]
        clock.advance(TICK)
        assert await documents.get("c", "k") is None
        assert await keys(documents) == []

        await documents.put("c", "k", b"x", ttl=60)
        await documents.put("c", "k", b"y")
        clock.advance(1_000)
        assert await keys(documents) == ["k"]


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
async def test_a_ttl_is_positive(opened: Opener, ttl: float) -> None:
    """`InvalidQuery`, and nothing is stored."""
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match="ttl"):
            await sessions.documents().put("c", "k", b"x", ttl=ttl)
        assert await sessions.documents().get("c", "k") is None


# ----------------------------------------------------------------------------- as part of a session


async def test_documents_go_with_their_session_and_those_of_the_app_stay(opened: Opener) -> None:
    """Deleted, ended or cleared, its documents are gone for a successor too; the app's are not."""
    async with opened() as sessions:
        await sessions.documents().put("c", "k", b"app")
        for way in ("delete", "end", "clear"):
            session = await sessions.create(id="s1", state={"k": 1})
            await sessions.documents("s1").put("c", "k", b"x")
            if way == "delete":
                await sessions.delete("s1")
            elif way == "end":
                await sessions.end("s1")
            else:
                session.state.clear()
                await sessions.save(session)
            assert await sessions.documents("s1").get("c", "k") is None
        await sessions.create(id="s1")
        assert await sessions.documents("s1").list("c") == []
        assert await keys(sessions.documents()) == ["k"]


async def test_a_put_is_a_commit_of_its_session(opened: Opener) -> None:
    """It raises the revision, so a strict save conflicts; it notes the log's last number."""
    async with opened() as sessions:
        session = await sessions.create(id="s1", events=[Event(kind="a"), Event(kind="b")])
        await sessions.documents("s1").put("c", "k", b"x")
        found = await sessions.documents("s1").get("c", "k")
        assert found is not None
        assert found.seq == 2
        assert (await sessions.require("s1")).revision == 2
        session.state["k"] = 1
        with pytest.raises(Conflict):
            await sessions.save(session, conflict="fail")


@owners
async def test_concurrent_puts_are_all_there(opened: Opener, owner: str | None) -> None:
    """Forty documents put by two managers at once: none is lost."""
    async with opened() as here, opened() as there:
        await documents_of(here, owner)
        await asyncio.gather(
            *(
                (here, there)[n % 2].documents(owner).put("c", f"k{n:02}", b"%d" % n)
                for n in range(40)
            )
        )
        assert await keys(here.documents(owner)) == [f"k{n:02}" for n in range(40)]


# ------------------------------------------------------------------------------ of a working copy


async def test_a_copy_of_a_session_stands_for_it(opened: Opener) -> None:
    """What is put with the copy is found with the id, and the other way round."""
    async with opened() as sessions:
        session = await sessions.create(id="s1")
        await sessions.documents(session).put("c", "k", b"x")
        await sessions.documents("s1").put("c", "l", b"y")
        assert await keys(sessions.documents(session)) == ["k", "l"]
        assert await keys(sessions.documents("s1")) == ["k", "l"]
        assert await keys(sessions.documents()) == []


async def test_a_copy_takes_note_of_what_was_put_with_it(opened: Opener) -> None:
    """So a strict save of it does not conflict with its own documents."""
    async with opened() as sessions:
        session = await sessions.create(id="s1")
        documents = sessions.documents(session)
        await documents.put("c", "k", b"x")
        await documents.drop("c", "k")
        session.state["k"] = 1
        await sessions.save(session, conflict="fail")


async def test_a_copy_does_not_write_to_a_later_session_with_its_id(opened: Opener) -> None:
    async with opened() as sessions:
        old = await sessions.create(id="s1")
        await sessions.delete("s1")
        await sessions.create(id="s1")
        with pytest.raises(NotFound):
            await sessions.documents(old).put("c", "k", b"x")
        with pytest.raises(NotFound):
            await sessions.documents(old).drop("c")
        assert await keys(sessions.documents("s1")) == []


async def test_a_document_of_no_date_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        documents = sessions.documents((await sessions.create(id="s1")).id)
        await documents.put("c", "k", b"x")
        await documents.put("c", "l", b"x")
    with apsw.Connection(str(path)) as db:
        db.execute("UPDATE documents SET updated_at = 999999999999999999 WHERE key = 'k'")
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        documents = sessions.documents("s1")
        for call in (documents.get("c", "k"), documents.list("c")):
            with pytest.raises(Corrupt, match="document 'k' of 'c' is corrupt: one of its times"):
                await call
        assert await documents.get("c", "l") is not None


async def test_a_copy_that_is_not_saved_has_no_documents(opened: Opener) -> None:
    async with opened() as sessions:
        documents = sessions.documents(sessions.new(id="s1"))
        assert await keys(documents) == []
        with pytest.raises(NotFound, match="not been saved"):
            await documents.put("c", "k", b"x")


@pytest.mark.parametrize("given", [7, b"s1", {"id": "s1"}, ["s1"]], ids=repr)
async def test_what_is_neither_a_session_nor_an_id_has_no_documents(
    opened: Opener, given: Any
) -> None:
    """It is refused at once: it would read as a session without any."""
    async with opened() as sessions:
        with pytest.raises(InvalidQuery, match="session: give a Session, an id, or None"):
            sessions.documents(given)
