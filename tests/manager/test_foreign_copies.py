"""Copies of sessions of another app: their ids mean other sessions here, so they are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sojourn import Event, InvalidQuery, SessionManager, open_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn import Session

    Verb = Callable[[SessionManager, Session], Awaitable[object]]


async def _enter(sessions: SessionManager, session: Session) -> None:
    async with sessions.scope(session, end=True):
        pytest.fail("a scope of another app's session was entered")


async def _read_history(sessions: SessionManager, session: Session) -> object:
    return await sessions.history(session).load()


async def _read_document(sessions: SessionManager, session: Session) -> object:
    return await sessions.documents(session).get("c", "k")


async def _read_checkpoint(sessions: SessionManager, session: Session) -> object:
    return await sessions.checkpoints(session).latest()


VERBS: dict[str, Verb] = {
    "save": lambda sessions, session: sessions.save(session),
    "append": lambda sessions, session: sessions.append(session, Event(kind="note")),
    "truncate": lambda sessions, session: sessions.truncate(session, after=0),
    "refresh": lambda sessions, session: sessions.refresh(session),
    "touch": lambda sessions, session: sessions.touch(session),
    "bind": lambda sessions, session: sessions.bind(session, "eve"),
    "label": lambda sessions, session: sessions.label(session, {"a": "b"}),
    "scope": _enter,
    "history": _read_history,
    "documents": _read_document,
    "checkpoints": _read_checkpoint,
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_copy_of_another_app_is_refused(url: str, verb: str) -> None:
    store = open_store(url)
    await store.open()
    ours, theirs = SessionManager(store, app="ours"), SessionManager(store, app="theirs")
    copy = await ours.create(id="s", user="alice", state={"whose": "ours"})
    await theirs.create(id="s", user="bob", state={"whose": "theirs"})
    await theirs.history("s").append({"role": "user", "content": "hush"})
    with pytest.raises(InvalidQuery, match="it is of app 'ours', and this manager keeps 'theirs'"):
        await VERBS[verb](theirs, copy)
    assert (copy.app, copy.user, dict(copy.state)) == ("ours", "alice", {"whose": "ours"})
    assert len(await theirs.events("s")) == 1
    there = await theirs.require("s")
    assert (there.user, dict(there.state)) == ("bob", {"whose": "theirs"})
    await store.close()


async def test_state_of_partial_events_is_refused(url: str) -> None:
    """They are not stored, so it would be lost without a word."""
    async with SessionManager.open(url) as sessions:
        session = await sessions.create()
        partial = Event(kind="delta", partial=True)
        for target in (session, session.id):
            with pytest.raises(InvalidQuery, match="no state is stored with partial events"):
                await sessions.append(target, partial, partial, state={"turn": 1})
        assert await sessions.append(session, partial, state={}) is partial
        await sessions.append(session, partial, Event(kind="whole"), state={"turn": 1})
        assert (await sessions.require(session.id)).state["turn"] == 1
