"""The manager itself: what it takes, what it refuses, opening, closing, and the app it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sojourn import (
    Closed,
    Event,
    InvalidId,
    InvalidQuery,
    NotFound,
    Reaper,
    Session,
    SessionManager,
    Trigger,
    open_store,
)
from sojourn.stores.memory import MemoryStore
from sojourn.testing.fakes import FakeClock, SequenceIds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

# ------------------------------------------------------------------------------------ what it takes


@pytest.mark.behaviour(69)
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("store", None),
        ("store", object()),
        ("store", "sqlite:///sessions.db"),
        ("clock", object()),
        ("clock", 7),
        ("ids", object()),
        ("expiry", None),
        ("expiry", 1_800),
        ("cleaners", [object()]),
        ("cleaners", [None]),
        ("durability", "fast"),
    ],
)
def test_a_missing_collaborator_is_refused_at_once(name: str, given: Any) -> None:
    """`InvalidQuery` names the one that is missing or can not do its job."""
    collaborators: dict[str, Any] = {"store": MemoryStore()} | {name: given}
    with pytest.raises(InvalidQuery, match=name):
        SessionManager(**collaborators)


@pytest.mark.behaviour(69)
def test_there_is_no_manager_without_a_store() -> None:
    """The store is the one collaborator that has no default."""
    with pytest.raises(TypeError, match="store"):
        SessionManager()  # type: ignore[call-arg]  # what this is about


async def test_an_unknown_durability_is_refused_on_each_write(opened: Opener) -> None:
    """A typo is `InvalidQuery`, not a weaker promise; nothing is written."""
    fast: Any = "fast"
    async with opened() as sessions:
        session = await sessions.create(id="s1")
        session.state["k"] = 1
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: sessions.create(id="s2", durability=fast),
            lambda: sessions.save(session, durability=fast),
            lambda: sessions.append(session, Event(kind="a"), durability=fast),
            lambda: sessions.documents("s1").put("c", "k", b"x", durability=fast),
        ]
        for write in writes:
            with pytest.raises(InvalidQuery, match="durability"):
                await write()
        assert (await sessions.require("s1")).revision == 1
        assert await sessions.count() == 1
        await sessions.save(session, durability="relaxed")


@pytest.mark.parametrize("app", ["", " ", "a\nb", "x" * 256, None, 7])
def test_an_app_has_a_name(app: Any) -> None:
    """A malformed one is `InvalidId`, naming it."""
    with pytest.raises(InvalidId, match="app"):
        SessionManager(MemoryStore(), app=app)


@pytest.mark.behaviour(8)
async def test_clock_and_ids_are_injected(opened: Opener) -> None:
    """Sessions and events carry exactly the injected ids and time."""
    clock = FakeClock(1_000_000)
    async with opened(clock=clock, ids=SequenceIds("x")) as sessions:
        session = await sessions.create(events=[Event(kind="a")])
        assert (session.id, session.epoch) == ("x1", "x-epoch-1")
        assert session.created_at.timestamp() == session.active_at.timestamp() == 1_000_000
        (event,) = await sessions.events("x1")
        assert event.id == "x-event-1"
        assert event.at is not None
        assert event.at.timestamp() == 1_000_000
        assert sessions.now() == clock.now() == 1_000_000_000_000


# ------------------------------------------------------------------------------ opening and closing


def calls(sessions: SessionManager, session: Session) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return one call of every verb that could reach the store."""

    async def enter(scope: AbstractAsyncContextManager[Any]) -> None:
        async with scope:
            pass

    async def make() -> None:
        sessions.new(id="fresh")

    async def save() -> None:
        session.state["k"] = 2
        await sessions.save(session)

    docs = sessions.documents("s1")
    carried = {"app": "default", "session": "s1"}
    return {
        "append": lambda: sessions.append(session, Event(kind="b")),
        "app_state": sessions.app_state,
        "apply": lambda: sessions.apply("s1", Trigger.END),
        "bind": lambda: sessions.bind(session, "u1"),
        "checkpoints.latest": lambda: sessions.checkpoints("s1").latest(),
        "count": sessions.count,
        "create": sessions.create,
        "delete": lambda: sessions.delete("s1"),
        "documents.drop": lambda: docs.drop("c"),
        "documents.get": lambda: docs.get("c", "k"),
        "documents.list": lambda: docs.list("c"),
        "documents.put": lambda: docs.put("c", "k", b"x"),
        "end": lambda: sessions.end("s1"),
        "events": lambda: sessions.events("s1"),
        "find": lambda: sessions.find(user="u1"),
        "finish": lambda: sessions.finish("s1"),
        "forget": lambda: sessions.forget("u1"),
        "fork": lambda: sessions.fork("s1"),
        "get": lambda: sessions.get("s1"),
        "get_or_create": lambda: sessions.get_or_create("s1"),
        "heartbeat": lambda: sessions.heartbeat("s1"),
        "history.load": lambda: sessions.history("s1").load(),
        "label": lambda: sessions.label(session, {"a": "b"}),
        "lease": lambda: enter(sessions.lease("s1")),
        "list": sessions.list,
        "new": make,
        "refresh": lambda: sessions.refresh(session),
        "replace_suffix": lambda: sessions.replace_suffix(session, expected=[1], events=[]),
        "require": lambda: sessions.require("s1"),
        "resume": lambda: enter(sessions.resume(carried)),
        "save": save,
        "scope": lambda: enter(sessions.scope("s1")),
        "scope of a copy": lambda: enter(sessions.scope(session)),
        "share": lambda: sessions.share({"app:k": 1}),
        "sweep": lambda: Reaper(sessions).sweep(),
        "touch": lambda: sessions.touch(session),
        "truncate": lambda: sessions.truncate(session, after=0),
        "user_state": lambda: sessions.user_state("u1"),
        "watch": lambda: anext(sessions.watch("s1")),
    }


async def answer(call: Callable[[], Awaitable[Any]]) -> object:
    """Return what a call returns or raises."""
    try:
        return await call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test says which were expected
        return error


def test_every_verb_is_among_the_calls() -> None:
    """The list above is complete: a verb that is added has to say what it does once closed."""
    sessions = SessionManager(MemoryStore())
    verbs = {name.partition(".")[0] for name in calls(sessions, sessions.new())}
    public = {name for name in dir(SessionManager) if not name.startswith("_")}
    other = {"app", "close", "now", "on_end", "open", "store"}
    assert public - other == verbs - {"scope of a copy", "sweep"}


@pytest.mark.behaviour(66)
@pytest.mark.parametrize("owned", [True, False], ids=["owned store", "borrowed store"])
async def test_after_close_every_verb_raises_closed(url: str, owned: bool) -> None:
    """Each of them, whoever the store belongs to; closing twice is fine."""
    store = open_store(url)
    await store.open()
    sessions = SessionManager.open(url) if owned else SessionManager(store)
    await sessions.__aenter__()
    session = await sessions.create(id="s1", events=[Event(kind="a")])
    await sessions.close()
    await sessions.close()
    answers = {name: await answer(call) for name, call in calls(sessions, session).items()}
    assert {name for name, found in answers.items() if type(found) is not Closed} == set()
    with pytest.raises(Closed):
        sessions.now()
    await store.close()


@pytest.mark.behaviour(66)
async def test_a_borrowed_store_is_left_open(url: str) -> None:
    """Neither opened nor closed by a manager that was given it: others go on using it."""
    store = open_store(url)
    await store.open()
    async with SessionManager(store) as first:
        await first.create(id="s1", state={"k": 1})
    async with SessionManager(store) as second:
        assert second.store is store
        assert (await second.require("s1")).state["k"] == 1
    await store.close()
    with pytest.raises(Closed):
        await SessionManager(store).get("s1")


@pytest.mark.behaviour(66)
async def test_an_owned_store_is_opened_and_closed(url: str) -> None:
    """`open` and `async with` manage both: after the block the store is closed as well."""
    async with SessionManager.open(url) as sessions:
        await sessions.create(id="s1")
        store = sessions.store
    with pytest.raises(Closed):
        await SessionManager(store).get("s1")


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_manager_that_was_not_entered_is_not_open(tmp_path: Path) -> None:
    """`open` alone touches nothing: no file is made, and verbs say that the store is not open."""
    sessions = SessionManager.open(f"sqlite:///{tmp_path / 'sessions.db'}")
    with pytest.raises(Closed, match="not open"):
        await sessions.get("s1")
    assert files_in(tmp_path) == []


async def test_before_it_is_entered_no_verb_is_served(url: str) -> None:
    """Not even from memory: what is tried out there works everywhere."""
    sessions = SessionManager.open(url)
    for call in (sessions.create(id="s"), sessions.get("s"), sessions.events("s")):
        with pytest.raises(Closed, match="not open yet"):
            await call
    async with sessions:
        await sessions.create(id="s")


@pytest.mark.behaviour(64)
async def test_what_was_stored_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    """State, log, documents and shared state survive; what was removed stays removed."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with SessionManager.open(url) as sessions:
        await sessions.create(
            id="s1", user="u1", state={"k": [1], "user:theme": "dark"}, events=[Event(kind="a")]
        )
        await sessions.documents("s1").put("c", "k", b"x")
        await sessions.create(id="removed")
        await sessions.end("removed")
    async with SessionManager.open(url) as sessions:
        found = await sessions.require("s1", events=9)
        assert dict(found.state) == {"k": [1], "user:theme": "dark"}
        assert len(found.events) == len(await sessions.documents("s1").list("c")) == 1
        assert await sessions.get("removed") is None
        assert await sessions.count() == 1


def test_an_unknown_store_is_refused_naming_the_known() -> None:
    """A URL of no known scheme, or with an unknown option, is `InvalidQuery`."""
    with pytest.raises(InvalidQuery, match="known are: file://, memory://"):
        SessionManager.open("carrier-pigeon://loft")
    with pytest.raises(InvalidQuery, match="speed"):
        SessionManager.open("memory://?speed=11")


# --------------------------------------------------------------------------------------------- apps


@pytest.mark.behaviour(14)
@pytest.mark.behaviour(23)
async def test_apps_on_one_store_do_not_see_each_other(opened: Opener) -> None:
    """The same id and user in two apps: two sessions, two states, two logs, two of everything."""
    async with opened(app="app") as ours, opened(app="app2") as theirs:
        for manager in (ours, theirs):
            await manager.create(
                id="s1",
                user="u1",
                state={"k": manager.app, "app:k": manager.app, "user:k": manager.app},
                labels={"role": "coder"},
                exclusive=["role"],
                events=[Event(kind=manager.app)],
            )
            await manager.documents().put("c", "k", manager.app.encode())
        for manager in (ours, theirs):
            found = await manager.require("s1", events=9)
            assert set(found.state.values()) == {manager.app}
            assert [event.kind for event in found.events] == [manager.app]
            assert [s.app for s in (await manager.list(user="u1")).items] == [manager.app]
            assert await manager.count() == 1
            assert await manager.app_state() == await manager.user_state("u1") == {"k": manager.app}
            document = await manager.documents().get("c", "k")
            assert document is not None
            assert document.body == manager.app.encode()
        assert await theirs.forget("u1") == 1
        assert await theirs.count() == 0
        assert (await ours.require("s1")).state["user:k"] == "app"
        await theirs.delete("s1")
        assert await ours.count() == 1


async def test_another_apps_session_is_no_parent_and_no_source(opened: Opener) -> None:
    """Children and forks stay in their app."""
    async with opened(app="app") as ours, opened(app="app2") as theirs:
        await ours.create(id="s1")
        with pytest.raises(NotFound):
            await theirs.create(parent="s1")
        with pytest.raises(NotFound):
            await theirs.fork("s1")
        assert await theirs.count() == 0
