"""Cases that the comparison with the model found, on both stores, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sojourn import DELETE, AlreadyExists, Event, Expiry
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_the_order_of_removed_keys_does_not_make_events_differ(
    opened: Callable[..., Any],
) -> None:
    """A delta is a mapping: the same keys removed in another order are the same delta."""
    async with opened() as sessions:
        session = await sessions.create(state={"a": 1, "b": 2})
        first = Event(id="e", kind="note", delta={"a": DELETE, "b": DELETE})
        again = Event(id="e", kind="note", delta={"b": DELETE, "a": DELETE})
        other = Event(id="e", kind="note", delta={"b": DELETE})
        assert (await sessions.append(session, first)).seq == 1
        assert (await sessions.append(session, again)).seq == 1
        assert (await sessions.append(session, other)).seq == 2


async def test_what_was_only_looked_at_is_not_written_back_by_a_second_bind(
    opened: Callable[..., Any],
) -> None:
    """Binding again shows what others changed in the user's keys; a save does not undo it."""
    async with opened() as sessions:
        session = await sessions.create(user="ann", state={"user:cart": ["tea"]})
        assert session.state["user:cart"] == ["tea"]
        await sessions.share({"user:cart": ["milk"]}, user="ann")
        await sessions.bind(session, user="ann")
        assert session.state["user:cart"] == ["milk"]
        await sessions.save(session)
        assert await sessions.user_state("ann") == {"cart": ["milk"]}


async def test_a_document_put_over_an_expired_one_is_new(opened: Callable[..., Any]) -> None:
    """A document past its own deadline is missing, so what replaces it was created now."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        session = await sessions.create()
        for documents in (sessions.documents(session.id), sessions.documents()):
            await documents.put("notes", "one", b"old", ttl=5)
            await documents.put("notes", "two", b"old", ttl=500)
            first = (await documents.list("notes"))[0].created_at
            clock.advance(5)
            await documents.put("notes", "one", b"new")
            await documents.put("notes", "two", b"new")
            one, two = await documents.list("notes")
            assert one.created_at == one.updated_at > first
            assert two.created_at == first < two.updated_at


async def test_a_new_session_saved_over_one_that_expired_meanwhile_takes_its_id(
    opened: Callable[..., Any],
) -> None:
    """Whether the id is free is decided when the new session is saved, not when it was made."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        fresh = sessions.new(id="one", state={"a": 1})
        await sessions.create(id="one", expiry=Expiry(idle=10))
        clock.advance(10)
        await sessions.save(fresh)
        assert dict((await sessions.require("one")).state) == {"a": 1}


async def test_a_refused_first_save_leaves_the_copy_as_it_was(opened: Callable[..., Any]) -> None:
    """Neither id nor times of a copy move when its first save is refused."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="one")
        fresh = sessions.new(id="one", state={"a": 1}, expiry=Expiry(idle=60))
        before = fresh.header
        clock.advance(5)
        with pytest.raises(AlreadyExists):
            await sessions.save(fresh)
        assert fresh.header == before
        assert (fresh.stored, fresh.modified, fresh.revision) == (False, True, 0)
