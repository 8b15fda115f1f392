"""The bag: a session's state is a mapping that knows what changed, and nothing in it is shared."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.manager.watched_store import watched

from sojourn import (
    DELETE,
    Ended,
    Event,
    Expiry,
    InvalidId,
    SessionManager,
    TooLarge,
    Unbound,
    Unserializable,
)
from sojourn.limits import MAX_STATE_KEY, MAX_VALUE
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

WRITES = {"create", "commit", "delete", "touch"}

EXACT: dict[str, Any] = {
    "none": None,
    "yes": True,
    "no": False,
    "one": 1,
    "float one": 1.0,
    "big": 2**64 + 1,
    "negative big": -(10**40),
    "zero": -0.0,
    "tiny": 5e-324,
    "nul": "a\x00b",
    "empty": "",
    "emoji": "\U0001f600",
    "list": [],
    "dict": {},
    "nested": {"a": [1, 1.0, True, None, {"": [[]]}]},
    "": {"not": "here"},
}
del EXACT[""]


# --- what is written --------------------------------------------------------------------------


@pytest.mark.behaviour(32)
async def test_an_untouched_new_session_is_never_written(url: str) -> None:
    """Saving it asks nothing of the store, and loading it gives nothing."""
    async with watched(url) as (sessions, store):
        session = sessions.new(id="s")
        assert (session.stored, session.modified, session.revision) == (False, False, 0)
        await sessions.save(session)
        assert store.calls == []
        assert await sessions.get("s") is None
        session.state["n"] = 1
        assert session.modified
        await sessions.save(session)
        assert (session.stored, session.modified, session.revision) == (True, False, 1)
        assert (await sessions.require("s")).epoch == session.epoch


@pytest.mark.behaviour(32)
async def test_a_new_session_starts_with_what_it_is_given(opened: Opener) -> None:
    """State given to `new` is a change; user and labels alone are none."""
    async with opened() as sessions:
        session = sessions.new(id="s", user="u", labels={"a": "b"})
        assert not session.modified
        filled = sessions.new(id="t", user="u", state={"n": 1, "user:k": 2})
        assert filled.modified
        await sessions.save(filled)
        assert dict((await sessions.require("t")).state) == {"n": 1, "user:k": 2}


@pytest.mark.behaviour(33)
async def test_saving_a_clean_session_asks_nothing_of_the_store(url: str) -> None:
    """Loaded and only read, or saved just now: no store call."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", state={"n": 1, "list": [1, {"a": 2}]})
        session = await sessions.require("s")
        assert session.state["n"] == 1
        assert session.state["list"][1]["a"] == 2
        assert dict(session.state) == {"n": 1, "list": [1, {"a": 2}]}
        store.forget_calls()
        assert not session.modified
        await sessions.save(session)
        assert store.calls == []
        session.state["n"] = 2
        await sessions.save(session)
        await sessions.save(session)
        await sessions.save(session, conflict="fail")
        assert store.verbs == ["commit"]


@pytest.mark.behaviour(34)
async def test_what_counts_as_a_change(opened: Opener) -> None:
    """Set does, deleting an existing key does, clear does; deleting a missing one does not."""
    async with opened() as sessions:
        await sessions.create(id="s", state={"n": 1, "m": 2})

        session = await sessions.require("s")
        with pytest.raises(KeyError):
            del session.state["missing"]
        assert session.state.pop("missing", None) is None
        assert not session.modified

        session = await sessions.require("s")
        session.state["k"] = 1
        assert session.modified

        session = await sessions.require("s")
        del session.state["n"]
        assert session.modified
        assert dict(session.state) == {"m": 2}

        session = await sessions.require("s")
        session.state.clear()
        assert session.modified
        assert dict(session.state) == {}


async def test_set_and_deleted_again_is_no_change(url: str) -> None:
    """A key that was never stored leaves no trace."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s")
        store.forget_calls()
        session.state["k"] = 1
        del session.state["k"]
        assert not session.modified
        await sessions.save(session)
        assert store.calls == []


async def test_deleted_and_set_again_is_the_new_value(opened: Opener) -> None:
    """The last thing done to a key is what is saved."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"k": 1, "l": 1})
        del session.state["k"]
        session.state["k"] = 2
        session.state["l"] = 2
        del session.state["l"]
        await sessions.save(session)
        assert dict(session.state) == {"k": 2}
        assert dict((await sessions.require("s")).state) == {"k": 2}


CHANGES: list[tuple[str, Callable[[Any], object]]] = [
    ("list append", lambda state: state["list"].append(1)),
    ("list item", lambda state: state["list"].__setitem__(0, 9)),
    ("deep list", lambda state: state["tree"]["a"][0]["b"].append(1)),
    ("deep key", lambda state: state["tree"]["a"][0].update(c=1)),
    ("deep removal", lambda state: state["tree"]["a"][0].pop("b")),
    ("int to float", lambda state: state["tree"].update(n=1.0)),
    ("int to bool", lambda state: state["tree"].update(n=True)),
    ("sign of zero", lambda state: state["tree"].update(z=-0.0)),
    ("shared by the app", lambda state: state["app:list"].append(1)),
    ("shared by the user", lambda state: state["user:list"].append(1)),
]


@pytest.mark.parametrize(
    "change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES]
)
async def test_nested_changes_count(opened: Opener, change: Callable[[Any], object]) -> None:
    """A change deep inside a value, or of its type only, is noticed and saved."""
    async with opened() as sessions:
        tree = {"a": [{"b": [1]}], "n": 1, "z": 0.0}
        state = {"list": [1], "tree": tree, "app:list": [1], "user:list": [1]}
        await sessions.create(id="s", user="u", state=state)
        session = await sessions.require("s")
        before = session.modified
        change(session.state)
        changed = session.modified
        await sessions.save(session)
        assert (before, changed, session.modified) == (False, True, False)
        assert repr(dict((await sessions.require("s")).state)) == repr(dict(session.state))


async def test_a_nested_change_that_was_undone_is_none(url: str) -> None:
    """Compared with what was loaded, by value: nothing to write."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", state={"d": {"a": 1, "b": 2}, "l": [1]})
        session = await sessions.require("s")
        session.state["l"].append(2)
        session.state["l"].pop()
        session.state["d"]["a"] = session.state["d"].pop("a")  # the order of keys is another now
        store.forget_calls()
        assert not session.modified
        await sessions.save(session)
        assert store.calls == []


async def test_only_what_changed_is_sent(url: str) -> None:
    """A save is a delta: other keys are not in it, however large they are."""
    async with watched(url) as (sessions, store):
        await sessions.create(id="s", user="u", state={"a": "x" * 1000, "b": [1], "c": 1})
        session = await sessions.require("s")
        assert session.state["a"]
        session.state["b"].append(2)
        del session.state["c"]
        session.state["user:k"] = None
        await sessions.save(session)
        (change,) = store.calls[-1][1]
        assert {key: bytes(value) for key, value in change.session.set.items()} == {"b": b"[1,2]"}
        assert change.session.drop == ("c",)
        assert {key: bytes(value) for key, value in change.user_tier.set.items()} == {"k": b"null"}
        assert (change.app_tier, change.clear, change.events) == (None, False, ())


# --- clear ------------------------------------------------------------------------------------


@pytest.mark.behaviour(35)
async def test_saving_a_cleared_session_deletes_it(opened: Opener) -> None:
    """It is gone from the store, and its handle does not bring it back."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 1}, events=[Event(kind="x")])
        session.state.clear()
        assert session.state.cleared
        assert await sessions.get("s") is not None
        await sessions.save(session)
        assert await sessions.get("s") is None
        assert not session.modified


@pytest.mark.behaviour(35)
async def test_clearing_what_is_empty_deletes_it_too(opened: Opener) -> None:
    """Clear is an intention, not a difference."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        session.state.clear()
        await sessions.save(session)
        assert await sessions.get("s") is None


async def test_clearing_a_copy_of_an_expired_session_says_that_it_ended(opened: Opener) -> None:
    """Also when another session has its id by then, which is left alone."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        old = await sessions.create(id="one", expiry=Expiry(idle=10))
        old.state.clear()
        clock.advance(10)
        await sessions.create(id="one", state={"a": 1})
        with pytest.raises(Ended):
            await sessions.save(old)
        assert (await sessions.require("one")).state == {"a": 1}


async def test_a_cleared_session_that_was_never_stored_stays_unstored(url: str) -> None:
    """There is nothing to delete and nothing to store."""
    async with watched(url) as (sessions, store):
        session = sessions.new(id="s", state={"n": 1})
        session.state.clear()
        await sessions.save(session)
        assert "create" not in store.verbs
        assert not session.stored
        assert await sessions.get("s") is None


@pytest.mark.behaviour(36)
async def test_cleared_and_set_it_survives_with_the_new_keys_only(opened: Opener) -> None:
    """Keys that another writer added in between are gone as well; events stay."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"old": 1}, events=[Event(kind="x")])
        other = await sessions.require("s")
        other.state["theirs"] = 1
        await sessions.save(other)
        session.state.clear()
        session.state["new"] = 1
        assert not session.state.cleared
        await sessions.save(session)
        assert not session.modified
        back = await sessions.require("s", events=5)
        assert (dict(back.state), len(back.events)) == ({"new": 1}, 1)
        session.state["more"] = 2
        await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"new": 1, "more": 2}


async def test_cleared_set_and_deleted_again_is_cleared(opened: Opener) -> None:
    """Nothing was set in the end, so the save deletes."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 1})
        session.state.clear()
        session.state["k"] = 1
        del session.state["k"]
        await sessions.save(session)
        assert await sessions.get("s") is None


async def test_clear_speaks_of_the_session_tier_only(opened: Opener) -> None:
    """Shared and temporary keys stay where they are, on the handle and in the store."""
    async with opened() as sessions:
        state = {"n": 1, "app:a": 1, "user:u": 1, "temp:t": 1}
        session = await sessions.create(id="s", user="u", state=state)
        session.state.clear()
        assert dict(session.state) == {"app:a": 1, "user:u": 1, "temp:t": 1}
        await sessions.save(session)
        assert await sessions.get("s") is None
        assert await sessions.app_state() == {"a": 1}
        assert await sessions.user_state("u") == {"u": 1}


async def test_shared_keys_changed_before_a_clear_are_saved(opened: Opener) -> None:
    """The session goes; what it wrote for the app and the user does not."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u", state={"n": 1, "user:gone": 1})
        session.state["app:a"] = 1
        session.state["user:u"] = 2
        del session.state["user:gone"]
        session.state.clear()
        await sessions.save(session)
        assert await sessions.get("s") is None
        assert await sessions.app_state() == {"a": 1}
        assert await sessions.user_state("u") == {"u": 2}


async def test_an_append_after_a_clear_is_kept_by_the_next_save(opened: Opener) -> None:
    """Keys that came with an event after the clear were set after the clear: they stay."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"old": 1})
        session.state.clear()
        await sessions.append(session, Event(kind="x"), state={"kept": 1})
        assert not session.state.cleared
        session.state["more"] = 2
        await sessions.save(session)
        assert dict(session.state) == {"kept": 1, "more": 2}
        assert dict((await sessions.require("s")).state) == {"kept": 1, "more": 2}


# --- the mapping ------------------------------------------------------------------------------


@pytest.mark.behaviour(78)
async def test_it_is_a_mutable_mapping(opened: Opener) -> None:
    """With all that one can do, and `KeyError` for what is not there."""
    async with opened() as sessions:
        session = await sessions.create(state={"a": 1, "b": 2})
        state = session.state
        assert isinstance(state, MutableMapping)
        assert (list(state), len(state), "a" in state, "z" in state) == (["a", "b"], 2, True, False)
        with pytest.raises(KeyError):
            state["z"]
        assert (state.get("z"), state.get("z", 7), state.get("a")) == (None, 7, 1)
        assert state.setdefault("c", 3) == 3
        assert state.pop("a") == 1
        state.update(b=4, d=5)
        state["e"] = 6
        assert dict(state.items()) == {"b": 4, "c": 3, "d": 5, "e": 6}
        assert state == {"b": 4, "c": 3, "d": 5, "e": 6}
        assert list(state.values()) == [4, 3, 5, 6]
        with pytest.raises(KeyError):
            del state["a"]


async def test_a_mapping_or_pairs_are_merged_in_place(opened: Opener) -> None:
    """As with a `dict`; it stays the state that it was, and what changed is saved."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"a": 1, "b": 2})
        state = session.state
        session.state |= {"b": 3, "c": 4}
        session.state |= [("d", 5)]
        assert session.state is state
        assert state.changed() == ["b", "c", "d"]
        await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"a": 1, "b": 3, "c": 4, "d": 5}


async def test_what_is_merged_in_place_is_checked_as_what_is_set(opened: Opener) -> None:
    async with opened() as sessions:
        session = await sessions.create()
        with pytest.raises(Unbound):
            session.state |= {"user:theme": "dark"}
        with pytest.raises(InvalidId):
            session.state |= {"": 1}
        with pytest.raises(TypeError, match="unsupported operand"):
            session.state |= 7  # type: ignore[arg-type]  # the mistake under test
        assert not session.modified


async def test_its_representation_shows_keys_and_no_values(opened: Opener) -> None:
    """Values may be private and logs are not; the same for the session."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"password": "tea"})
        assert "password" in repr(session.state)
        assert "tea" not in repr(session.state)
        assert repr(session) == "<Session 's' OPEN revision 1>"
        assert "empty" in repr((await sessions.create()).state)


@pytest.mark.behaviour(38)
async def test_text_is_a_string_or_the_default(opened: Opener) -> None:
    """Missing and not a string give the default; a stored `None` is told apart by `in`."""
    async with opened() as sessions:
        await sessions.create(id="s", state={"t": "x", "empty": "", "n": 1, "none": None, "l": []})
        state = (await sessions.require("s")).state
        assert (state.text("t"), state.text("empty")) == ("x", "")
        for key in ("n", "none", "l", "missing"):
            assert (state.text(key), state.text(key, "d")) == ("", "d")
        assert "none" in state
        assert "missing" not in state


@pytest.mark.behaviour(39)
async def test_what_is_taken_out_whole_is_a_copy(opened: Opener) -> None:
    """Changing `dict(state)` changes neither the session nor the store."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"a": 1})
        everything = dict(session.state)
        everything["b"] = 2
        assert "b" not in session.state
        assert not session.modified


@pytest.mark.parametrize("key", ["", "app:", "user:", "temp:", 7, None, "\ud800"], ids=ascii)
async def test_a_bad_key_is_refused_when_it_is_set(opened: Opener, key: Any) -> None:
    """`InvalidId` at once, and the state is as it was."""
    async with opened() as sessions:
        session = await sessions.create(user="u")
        with pytest.raises(InvalidId):
            session.state[key] = 1
        assert not session.modified
        with pytest.raises(TooLarge):
            session.state["k" * (MAX_STATE_KEY + 1)] = 1
        assert not session.modified


# --- values -----------------------------------------------------------------------------------


@pytest.mark.behaviour(44)
async def test_values_come_back_exactly(opened: Opener) -> None:
    """Equal in type and value, over create, save and append, in every store."""
    async with opened() as sessions:
        await sessions.create(id="created", state=EXACT)
        saved = sessions.new(id="saved", state=EXACT)
        await sessions.save(saved)
        appended = await sessions.create(id="appended")
        await sessions.append(appended, Event(kind="x", body=EXACT), state=EXACT)
        for id in ("created", "saved", "appended"):
            back = await sessions.require(id, events=1)
            assert repr(dict(back.state)) == repr(EXACT)
            for event in back.events:
                assert repr(event.body) == repr(EXACT)
                assert repr(event.delta) == repr(EXACT)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=10,
)


@pytest.mark.behaviour(44)
@settings(max_examples=25)
@given(st.lists(JSON, min_size=1, max_size=10))
def test_any_values_come_back_exactly(values: list[Any]) -> None:
    """The same for values nobody thought of, through a store and back."""
    import asyncio

    async def body() -> None:
        async with SessionManager.open("memory://") as sessions:
            session = sessions.new(id="s")
            session.state.update({f"k{n}": value for n, value in enumerate(values)})
            await sessions.save(session)
            back = await sessions.require("s")
            assert repr(list(back.state.values())) == repr(values)
            assert not back.modified

    asyncio.run(body())


@pytest.mark.behaviour(44)
@pytest.mark.parametrize(
    "value",
    [(), b"x", {1}, {1: 2}, float("nan"), float("inf"), datetime(2026, 1, 1, tzinfo=UTC), DELETE],
    ids=ascii,
)
async def test_what_is_no_json_value_is_refused_at_the_save(url: str, value: Any) -> None:
    """By its path; nothing is written and the handle keeps what it had, until it is put right."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s", state={"n": 1})
        store.forget_calls()
        session.state["n"] = 2
        session.state["deep"] = {"list": [0, value]}
        assert session.modified
        with pytest.raises(Unserializable) as caught:
            await sessions.save(session)
        assert caught.value.path.startswith("state.deep.list[1]")
        assert store.calls == []
        assert (session.state["n"], session.modified, session.revision) == (2, True, 1)
        session.state["deep"] = {"list": [0]}
        await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"n": 2, "deep": {"list": [0]}}


async def test_a_loaded_value_made_unserializable_is_a_change(opened: Opener) -> None:
    """It cannot be compared, so it counts, and the save names it."""
    async with opened() as sessions:
        await sessions.create(id="s", state={"l": []})
        session = await sessions.require("s")
        session.state["l"].append({1})
        assert session.modified
        with pytest.raises(Unserializable):
            await sessions.save(session)


async def test_a_value_that_is_too_large_is_refused(opened: Opener) -> None:
    """`TooLarge`, and nothing is written."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 1})
        session.state["big"] = "x" * MAX_VALUE
        with pytest.raises(TooLarge):
            await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"n": 1}


async def test_temporary_values_may_be_anything(opened: Opener) -> None:
    """They are never stored, so they need not be JSON, and they are no change."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"n": 1})
        thing = object()
        session.state["temp:thing"] = thing
        assert not session.modified
        session.state["n"] = 2
        await sessions.save(session)
        assert session.state["temp:thing"] is thing


# --- copies -----------------------------------------------------------------------------------


@pytest.mark.behaviour(40)
async def test_nothing_loaded_aliases_the_store(opened: Opener) -> None:
    """Changing what get returned, without a save, is seen by nobody."""
    async with opened() as sessions:
        await sessions.create(id="s", state={"d": {"l": [1]}})
        one = await sessions.require("s")
        one.state["d"]["l"].append(2)
        one.state["new"] = 1
        assert dict((await sessions.require("s")).state) == {"d": {"l": [1]}}


@pytest.mark.behaviour(40)
async def test_nothing_saved_aliases_the_store(opened: Opener) -> None:
    """Changing the object after the save is not stored until the next save, and then it is."""
    async with opened() as sessions:
        session = await sessions.create(id="s")
        value = {"l": [1]}
        session.state["d"] = value
        await sessions.save(session)
        value["l"].append(2)
        assert (await sessions.require("s")).state["d"] == {"l": [1]}
        assert session.modified
        await sessions.save(session)
        assert (await sessions.require("s")).state["d"] == {"l": [1, 2]}


@pytest.mark.behaviour(41)
async def test_shared_tiers_and_events_do_not_alias(opened: Opener) -> None:
    """The same for `app:` and `user:` values, shared state and every event that is returned."""
    async with opened() as sessions:
        state = {"app:l": [1], "user:l": [1]}
        body, delta = {"l": [1]}, {"k": [1]}
        session = await sessions.create(id="s", user="u", state=state)
        stored = await sessions.append(session, Event(kind="x", body=body, delta=delta))
        body["l"].append(2)
        delta["k"].append(2)
        stored.body["l"].append(3)
        session.state["k"].append(4)
        one = await sessions.require("s", events=1)
        for value in (one.state["app:l"], one.state["user:l"], one.events[0].body["l"]):
            assert value == [1]
            value.append(5)
        one.events[0].delta["k"].append(5)
        (await sessions.app_state())["l"].append(6)
        (await sessions.user_state("u"))["l"].append(6)
        two = await sessions.require("s", events=1)
        assert dict(two.state) == {"app:l": [1], "user:l": [1], "k": [1]}
        assert (two.events[0].body, two.events[0].delta) == ({"l": [1]}, {"k": [1]})
        (again,) = await sessions.events("s")
        assert (again.body, again.delta) == ({"l": [1]}, {"k": [1]})


async def test_labels_of_a_session_are_read_only(opened: Opener) -> None:
    """They are changed by `label` alone."""
    async with opened() as sessions:
        session = await sessions.create(labels={"a": "b"})
        with pytest.raises(TypeError):
            session.labels["a"] = "c"  # type: ignore[index]  # that it is refused is the point


# --- two handles ------------------------------------------------------------------------------


@pytest.mark.behaviour(45)
async def test_two_handles_with_different_keys_both_survive(opened: Opener) -> None:
    """Nothing is silently lost: each saves its own."""
    async with opened() as sessions:
        await sessions.create(id="s", state={"base": 0})
        one, two = await sessions.require("s"), await sessions.require("s")
        one.state["one"] = 1
        two.state["two"] = 2
        del two.state["base"]
        await sessions.save(one)
        await sessions.save(two)
        assert dict((await sessions.require("s")).state) == {"one": 1, "two": 2}


@pytest.mark.behaviour(78)
async def test_what_is_not_saved_is_seen_by_nobody(opened: Opener) -> None:
    """Set on one handle, in every tier: other handles do not show it."""
    async with opened() as sessions:
        session = await sessions.create(id="s", user="u")
        session.state.update({"n": 1, "app:n": 1, "user:n": 1})
        assert dict((await sessions.require("s")).state) == {}
        await sessions.save(session)
        assert dict((await sessions.require("s")).state) == {"n": 1, "app:n": 1, "user:n": 1}


async def test_refresh_starts_over_from_the_store(opened: Opener) -> None:
    """Unsaved changes are dropped, temporary keys stay, the window is read anew."""
    async with opened() as sessions:
        session = await sessions.create(id="s", state={"a": 1, "b": [1]})
        await sessions.append(session, Event(kind="x"))
        other = await sessions.require("s")
        other.state["a"] = 2
        await sessions.save(other)
        await sessions.append(other, Event(kind="y"))
        session.state.update({"c": 1, "temp:t": 1})
        session.state["b"].append(2)
        await sessions.refresh(session)
        assert dict(session.state) == {"a": 2, "b": [1], "temp:t": 1}
        assert (session.modified, session.revision) == (False, other.revision)
        assert [event.kind for event in session.events] == ["x", "y"]
