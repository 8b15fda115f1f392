"""One session of a user or a key at a time, found or made; and anonymous ones that are reused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import (
    Corrupt,
    EndFailed,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    NotFound,
    NotOwner,
    Phase,
    Reaper,
    RoleTaken,
    Session,
    SessionManager,
    Trigger,
    Unavailable,
)
from sojourn.store import Listed
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

by_user_and_by_key = pytest.mark.parametrize("by", [{"user": "u-1"}, {"key": "order-42"}], ids=str)


# -------------------------------------------------------------------------------- one at a time


@pytest.mark.behaviour(128)
@by_user_and_by_key
async def test_the_same_name_is_the_same_session(opened: Opener, by: dict[str, Any]) -> None:
    """Made by the first call with its facts; the next calls change nothing about it."""
    async with opened() as sessions:
        assert await sessions.find(**by) is None
        made = await sessions.get_or_create(**by, state={"n": 1}, labels={"a": "b"})
        found = await sessions.get_or_create(**by, state={"n": 2})
        assert (found.id, found.epoch, found.state["n"]) == (made.id, made.epoch, 1)
        assert found.labels["a"] == "b"
        assert found.user == by.get("user")
        looked = await sessions.find(**by)
        assert looked is not None
        assert looked.epoch == made.epoch
        assert await sessions.count() == 1


@pytest.mark.behaviour(128)
async def test_names_of_each_kind_mean_themselves(opened: Opener) -> None:
    """Another user, another key, a key like the user, an id like the key: all are different."""
    async with opened() as sessions, opened(app="other") as others:
        made = [
            await sessions.get_or_create(user="a"),
            await sessions.get_or_create(user="A"),
            await sessions.get_or_create(key="a"),
            await sessions.get_or_create(key="sojourn:user"),
            await sessions.get_or_create(key="'; --"),
            await sessions.get_or_create(key="🙂" * 255),
            await sessions.get_or_create("a"),
            await others.get_or_create(user="a"),
        ]
        assert len({session.epoch for session in made}) == len(made)
        assert (await sessions.get_or_create(key="🙂" * 255)).epoch == made[5].epoch


@pytest.mark.behaviour(128)
@by_user_and_by_key
async def test_of_twenty_first_requests_at_once_one_makes_it(
    opened: Opener, by: dict[str, Any]
) -> None:
    """Through two managers on one store; all hold the same session."""
    async with opened() as sessions, opened() as others:
        managers = [sessions, others] * 10
        found = await asyncio.gather(*(each.get_or_create(**by) for each in managers))
        assert len({session.epoch for session in found}) == 1
        assert await sessions.count() == 1


@pytest.mark.behaviour(129)
@pytest.mark.parametrize("bad", ["", " ", "\t", "a\x00", "x" * 256, 7, b"u"])
@pytest.mark.parametrize("kind", ["user", "key"])
async def test_what_is_no_name_is_refused_before_the_store(url: str, kind: str, bad: Any) -> None:
    """Empty, only spaces, too long, not a string: the error says which it was."""
    async with watched(url) as (sessions, store):
        for call in (sessions.get_or_create, sessions.find):
            with pytest.raises(InvalidId) as caught:
                await call(**{kind: bad})
            assert caught.value.what == kind
        assert store.calls == []


@pytest.mark.behaviour(129)
async def test_what_makes_no_sense_is_refused(url: str) -> None:
    """No name at all, two names, claims beside the claim; nothing reaches the store."""
    async with watched(url) as (sessions, store):
        for call in (sessions.get_or_create(), sessions.get_or_create(user=None), sessions.find()):
            with pytest.raises(InvalidId, match="session id"):
                await call
        refused: list[tuple[str, dict[str, Any]]] = [
            ("key", {"id": "s", "key": "k"}),
            ("reuse", {"id": "s", "reuse": True}),
            ("reuse", {"user": "u", "reuse": True}),
            ("reuse", {"key": "k", "reuse": True}),
            ("exclusive", {"key": "k", "labels": {"a": "b"}, "exclusive": ["a"]}),
            ("exclusive", {"reuse": True, "labels": {"a": "b"}, "exclusive": ["a"]}),
        ]
        for field, arguments in refused:
            with pytest.raises(InvalidQuery) as caught:
                await sessions.get_or_create(**arguments)
            assert caught.value.field == field
        assert store.calls == []


@pytest.mark.behaviour(130)
@pytest.mark.behaviour(131)
async def test_a_key_is_not_handed_to_another_user(opened: Opener) -> None:
    """Whose session it is does not change; the other learns only that it is not theirs."""
    async with opened() as sessions:
        made = await sessions.get_or_create(key="order-42", user="u-1", state={"private": 1})
        for call in (sessions.get_or_create, sessions.find):
            with pytest.raises(NotOwner) as caught:
                await call(key="order-42", user="u-2")
            assert "u-1" not in str(caught.value)
        assert (await sessions.get_or_create(key="order-42", user="u-1")).epoch == made.epoch
        assert (await sessions.get_or_create(key="order-42")).user == "u-1"


async def test_it_counts_as_use_to_get_one_and_not_to_look_for_it(opened: Opener) -> None:
    """The idle deadline of what was handed over counts from then."""
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=100)) as sessions:
        made = await sessions.get_or_create(user="u")
        clock.advance(60)
        await sessions.find(user="u")
        assert (await sessions.require(made.id)).active_at == made.active_at
        got = await sessions.get_or_create(user="u")
        clock.advance(60)
        assert (await sessions.get_or_create(user="u")).epoch == made.epoch
        assert (got.active_at - made.active_at).total_seconds() == 60


# ------------------------------------------------------------------- when the current one is over


@pytest.mark.behaviour(128)
@pytest.mark.behaviour(50)
@by_user_and_by_key
@pytest.mark.parametrize("how", ["expired", "ended", "retained", "deleted", "cleared"])
async def test_after_it_is_over_there_is_a_new_one(
    opened: Opener, by: dict[str, Any], how: str
) -> None:
    """It is never revived; its end ran; and the new one starts from nothing."""
    clock = FakeClock()
    ended: list[str] = []

    async def hook(session: Session, reason: str) -> None:
        ended.append(f"{session.state['n']} {reason}")

    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        first = await sessions.get_or_create(**by, state={"n": 1}, expiry=Expiry(idle=100))
        match how:
            case "expired":
                clock.advance(100)
            case "ended":
                await sessions.end(first.id)
            case "retained":
                await sessions.end(first.id, retain=60)
            case "deleted":
                await sessions.delete(first.id)
            case "cleared":
                first.state.clear()
                await sessions.save(first)
        assert await sessions.find(**by) is None
        found = await asyncio.gather(
            *(sessions.get_or_create(**by, state={"n": 2}) for _ in range(20))
        )
        assert {session.state["n"] for session in found} == {2}
        assert len({session.epoch for session in found} | {first.epoch}) == 2
        ran = {"expired": ["1 expired"], "ended": ["1 ended"], "retained": ["1 ended"]}
        assert ended == ran.get(how, [])
        assert await sessions.count(phase=Phase.OPEN) == 1


@by_user_and_by_key
async def test_one_that_is_ending_is_waited_for(opened: Opener, by: dict[str, Any]) -> None:
    """Its hooks run to their end first; then there is a new one."""
    async with opened() as sessions, opened() as others:
        in_hook, go = asyncio.Event(), asyncio.Event()
        order: list[str] = []

        async def hook(session: Session, reason: str) -> None:
            in_hook.set()
            await go.wait()
            order.append("persisted")

        sessions.on_end(hook)
        first = await sessions.get_or_create(**by)
        ending = asyncio.create_task(sessions.end(first.id))
        await in_hook.wait()
        assert await sessions.find(**by) is None
        waiting = [asyncio.create_task(each.get_or_create(**by)) for each in (sessions, others)]
        for task in waiting:
            task.add_done_callback(lambda _task: order.append("found"))
        await asyncio.sleep(0)
        assert order == []
        go.set()
        found = await asyncio.gather(*waiting)
        await ending
        assert order == ["persisted", "found", "found"]
        assert found[0].epoch == found[1].epoch != first.epoch


@by_user_and_by_key
async def test_one_whose_end_fails_keeps_its_claim(opened: Opener, by: dict[str, Any]) -> None:
    """The refusal names it and why it failed; once the end works there is a new one."""
    broken = [True]

    async def hook(session: Session, reason: str) -> None:
        if broken[0]:
            raise OSError("disk full")

    async with opened() as sessions:
        sessions.on_end(hook)
        first = await sessions.get_or_create(**by)
        with pytest.raises(EndFailed):
            await sessions.end(first.id)
        with pytest.raises(RoleTaken) as caught:
            await sessions.get_or_create(**by)
        assert caught.value.holder == first.id
        assert isinstance(caught.value.__cause__, EndFailed)
        broken[0] = False
        assert (await sessions.get_or_create(**by)).epoch != first.epoch


async def test_an_expired_one_whose_end_fails_keeps_its_claim(opened: Opener) -> None:
    """The same for one that went past its deadline: it is never handed out."""
    clock = FakeClock()

    async def hook(session: Session, reason: str) -> None:
        raise OSError("disk full")

    async with opened(clock=clock) as sessions:
        sessions.on_end(hook)
        first = await sessions.get_or_create(user="u", expiry=Expiry(idle=100))
        clock.advance(100)
        for _ in range(2):
            with pytest.raises(RoleTaken) as caught:
                await sessions.get_or_create(user="u")
            assert caught.value.holder == first.id


async def test_inside_its_own_end_hook_there_is_no_new_one_yet(opened: Opener) -> None:
    """It would wait for itself: it is refused at once instead."""
    refusals: list[str] = []

    async with opened() as sessions:

        async def hook(session: Session, reason: str) -> None:
            with pytest.raises(RoleTaken) as caught:
                await sessions.get_or_create(user="u")
            refusals.append(caught.value.holder)

        sessions.on_end(hook)
        first = await sessions.get_or_create(user="u")
        await sessions.end(first.id)
        assert refusals == [first.id]
        assert (await sessions.get_or_create(user="u")).epoch != first.epoch


async def test_an_agent_that_is_terminating_is_cleaned_first(opened: Opener) -> None:
    """One process of a key at a time, in the agent lifecycle too."""
    async with opened() as sessions:
        first = await sessions.get_or_create(key="worktree-1", lifecycle="agent")
        await sessions.apply(first.id, Trigger.TERMINATE)
        second = await sessions.get_or_create(key="worktree-1", lifecycle="agent")
        assert second.epoch != first.epoch
        assert await sessions.get(first.id) is None


async def test_one_that_goes_while_it_is_being_handed_over_is_followed_by_another(
    url: str,
) -> None:
    """Found, then ended before it could be touched: the caller gets a live one all the same."""
    clock = FakeClock()
    async with watched(url, clock=clock) as (sessions, store):
        first = await sessions.get_or_create(user="u", expiry=Expiry(idle=100))
        clock.advance(50)
        gate = store.hold("touch", "before")
        getting = asyncio.create_task(sessions.get_or_create(user="u"))
        await gate.arrived.wait()
        await sessions.delete(first.id)
        gate.go()
        second = await getting
        assert second.epoch != first.epoch
        assert (await sessions.require(second.id)).epoch == second.epoch


async def test_one_that_goes_over_and_over_is_an_error_in_the_end(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes back what it says is not asked for ever."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.get_or_create(user="u", expiry=Expiry(idle=100))
        clock.advance(50)
        listed = await sessions.store.list(
            sessions._reading.query(user="u", anonymous=False, phase=None, labels=None, parent=None)
        )
        await sessions.delete(listed.records[0].header.id)
        asked: list[object] = []

        async def stale(query: object, /) -> Listed:
            asked.append(query)
            return listed

        monkeypatch.setattr(sessions.store, "list", stale)
        with pytest.raises(NotFound):
            await sessions.get_or_create(user="u")
        assert len(asked) < 20


# ---------------------------------------------------------------------------- what could mislead


async def test_a_fork_of_it_is_not_it(opened: Opener) -> None:
    """A fork has the labels and not the claim; also when there are many, and the first is gone."""
    async with opened() as sessions:
        made = await sessions.get_or_create(user="u", events=[Event(kind="a")])
        for _ in range(40):
            await sessions.fork(made.id)
        assert (await sessions.get_or_create(user="u")).epoch == made.epoch
        await sessions.end(made.id)
        assert await sessions.find(user="u") is None
        again = await sessions.get_or_create(user="u")
        found = await sessions.find(user="u")
        assert found is not None
        assert found.epoch == again.epoch


async def test_a_label_like_it_is_not_it(opened: Opener) -> None:
    """Somebody else's session with the label, and without the claim, is not handed out."""
    async with opened() as sessions:
        other = await sessions.create(user="v", labels={"sojourn:user": "u"})
        await sessions.create(
            user="v", labels={"sojourn:user": "u", "x": "y"}, exclusive=["sojourn:user", "x"]
        )
        mine = await sessions.get_or_create(user="u")
        assert mine.user == "u"
        assert mine.epoch != other.epoch
        assert (await sessions.get_or_create(user="u")).epoch == mine.epoch


async def test_trouble_and_damage_make_no_second_session(url: str) -> None:
    """A list that fails, or leaves a record out as corrupt, does not look like "nobody"."""
    async with watched(url) as (sessions, store):
        store.fail("list", Unavailable("store", "down"))
        with pytest.raises(Unavailable):
            await sessions.get_or_create(user="u")
        assert "create" not in store.verbs
        corrupt = Corrupt("session 's'", "torn")

        async def torn(query: object, /) -> Listed:
            return Listed([], None, (corrupt,))

        store.list = torn  # type: ignore[attr-defined]  # the glass passes everything on
        for call in (sessions.get_or_create, sessions.find):
            with pytest.raises(Corrupt):
                await call(user="u")
        assert "create" not in store.verbs


async def test_a_cancelled_first_call_leaves_a_session_that_the_next_one_finds(url: str) -> None:
    """The create went through although its caller gave up: there is one, not two."""
    async with watched(url) as (sessions, store):
        gate = store.hold("create", "after")
        getting = asyncio.create_task(sessions.get_or_create(user="u", state={"n": 1}))
        await gate.arrived.wait()
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        assert (await sessions.get_or_create(user="u", state={"n": 2})).state["n"] == 1
        assert await sessions.count() == 1


# ------------------------------------------------------------------------------------------- reuse


@pytest.mark.behaviour(138)
async def test_an_anonymous_session_is_reused_only_when_asked_for(opened: Opener) -> None:
    """What others made anonymously, for a visitor or a key, is never handed to a job."""
    async with opened() as sessions:
        visitor = await sessions.create(state={"cart": ["private"]})
        keyed = await sessions.get_or_create(key="k")
        first = await sessions.get_or_create(reuse=True, state={"n": 1})
        again = await sessions.get_or_create(reuse=True, state={"n": 2})
        assert (again.epoch, again.state["n"]) == (first.epoch, 1)
        assert first.epoch not in {visitor.epoch, keyed.epoch}
        assert (await sessions.create()).epoch != first.epoch


@pytest.mark.behaviour(138)
async def test_a_session_is_not_reused_once_it_is_over_or_somebodys(opened: Opener) -> None:
    """Expired, ended, or bound to a user: a new one is made."""
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=100)) as sessions:
        seen: set[str] = set()
        for over in ("expire", "end", "bind", "nothing"):
            session = await sessions.get_or_create(reuse=True)
            assert session.epoch not in seen
            seen.add(session.epoch)
            if over == "expire":
                clock.advance(100)
            elif over == "end":
                await sessions.end(session.id, retain=60)
            elif over == "bind":
                await sessions.bind(session, "u")
        assert await Reaper(sessions).sweep() == 1


@pytest.mark.behaviour(138)
async def test_reuse_is_use_and_takes_the_last_used(opened: Opener) -> None:
    """Of several with these labels, the one used last; and getting it extends its time."""
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=100)) as sessions:
        old = await sessions.get_or_create(reuse=True, labels={"job": "import"})
        clock.advance(10)
        await sessions.get_or_create(reuse=True, labels={"job": "mail"})
        offered = await sessions.create(labels={"sojourn:reusable": "yes", "job": "import"})
        clock.advance(50)
        got = await sessions.get_or_create(reuse=True, labels={"job": "import"})
        assert got.epoch == offered.epoch != old.epoch
        clock.advance(60)
        assert (await sessions.get_or_create(reuse=True, labels={"job": "import"})).epoch == (
            offered.epoch
        )
