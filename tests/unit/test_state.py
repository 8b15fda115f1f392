"""Tiers as pure functions: naming, checking, splitting, merging, rewinding."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import InvalidId, TooLarge
from sojourn.limits import MAX_STATE_KEY
from sojourn.state import Tier, check_key, key_of, merge, rewind, split, tier_of

Delta = tuple[int, dict[str, msgspec.Raw], list[str]]

NAMES = st.text(min_size=1, max_size=8)
PREFIX = st.sampled_from(["", "app:", "user:", "temp:"])
KEYS = st.builds(str.__add__, PREFIX, NAMES)
PLAIN = st.sampled_from(["a", "b", "c", "d", "note:e"])


@pytest.mark.behaviour(72)
@pytest.mark.parametrize(
    ("key", "tier", "name"),
    [
        ("app:x", "app", "x"),
        ("user:x", "user", "x"),
        ("temp:x", "temp", "x"),
        ("x", "session", "x"),
        ("", "session", ""),
        ("app:", "app", ""),
        ("app:user:x", "app", "user:x"),
        ("user:app:x", "user", "app:x"),
        ("x:app:y", "session", "x:app:y"),
        ("apps:x", "session", "apps:x"),
        ("ap:x", "session", "ap:x"),
        ("App:x", "session", "App:x"),
        ("USER:x", "session", "USER:x"),
        (" app:x", "session", " app:x"),
        ("abc:x", "session", "abc:x"),
        ("abcd:x", "session", "abcd:x"),
        ("app", "session", "app"),
        ("session:x", "session", "session:x"),
        ("\u00e4pp:x", "session", "\u00e4pp:x"),
    ],
)
def test_the_prefix_names_the_tier(key: str, tier: str, name: str) -> None:
    """Only the exact prefixes `app:`, `user:` and `temp:` mean a shared or temporary tier."""
    assert tier_of(key) == (tier, name)


@given(KEYS)
def test_key_of_undoes_tier_of(key: str) -> None:
    """Naming a tier and a name gives back the key that they came from."""
    assert key_of(*tier_of(key)) == key


@given(st.sampled_from(["app", "user", "temp"]), st.text())
def test_tier_of_undoes_key_of(tier: Tier, name: str) -> None:
    """Whatever the name holds, even another prefix, it stays in its prefixed tier."""
    assert tier_of(key_of(tier, name)) == (tier, name)


@pytest.mark.parametrize(
    "key", ["x", "app:x", "user:x", "temp:x", " ", "a b", "\x00", "\n", "\u00e9", "\U0001f600"]
)
def test_a_key_may_hold_any_text(key: str) -> None:
    """State keys are data, not names: anything that UTF-8 can hold is fine, and unchanged."""
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "app:", "user:", "temp:"])
def test_a_key_needs_a_name(key: str) -> None:
    """An empty key, and an empty name after a prefix, are refused."""
    with pytest.raises(InvalidId) as caught:
        check_key(key)
    assert caught.value.what == "state key"
    assert ("after its prefix" in caught.value.reason) is bool(key)


class Text(str):
    """A string that is not exactly a string."""

    __slots__ = ()


@pytest.mark.parametrize("key", [None, 1, True, b"x", ("x",), Text("x")])
def test_a_key_is_exactly_a_string(key: object) -> None:
    """Other types, subclasses of `str` too, are refused and the type is named."""
    with pytest.raises(InvalidId) as caught:
        check_key(key)
    assert type(key).__name__ in caught.value.reason


def test_a_key_has_a_longest_length() -> None:
    """`MAX_STATE_KEY` characters fit, one more is `TooLarge` with both numbers."""
    assert check_key("k" * MAX_STATE_KEY)
    assert check_key("\u00e9" * MAX_STATE_KEY)
    with pytest.raises(TooLarge) as caught:
        check_key("k" * (MAX_STATE_KEY + 1))
    assert (caught.value.size, caught.value.limit) == (MAX_STATE_KEY + 1, MAX_STATE_KEY)


@pytest.mark.parametrize("key", ["\ud800", "a\udfff", "app:\udc00"])
def test_a_key_is_unicode(key: str) -> None:
    """A lone surrogate cannot be written by any backend and is refused."""
    with pytest.raises(InvalidId, match="lone surrogate"):
        check_key(key)


@pytest.mark.behaviour(70)
@pytest.mark.behaviour(71)
@pytest.mark.behaviour(72)
def test_split_drops_prefixes_and_leaves_untouched_tiers_out() -> None:
    """Each tier gets its keys under their names; a tier without keys is absent."""
    assert split({"app:a": 1, "b": 2, "temp:c": 3, "d": 4}) == {
        "app": {"a": 1},
        "session": {"b": 2, "d": 4},
        "temp": {"c": 3},
    }
    assert split({}) == {}


def test_merge_prefixes_shared_tiers() -> None:
    """The same name in three tiers is three keys."""
    assert merge({"x": 1}, {"x": 2}, {"x": 3}) == {"x": 1, "user:x": 2, "app:x": 3}


def test_merge_returns_a_new_mapping() -> None:
    """What is merged is not what was given: no aliasing."""
    session = {"x": 1}
    merged = merge(session, {}, {})
    merged["y"] = 2
    assert session == {"x": 1}


@given(st.dictionaries(KEYS.filter(lambda key: tier_of(key)[0] != "temp"), st.integers()))
def test_merge_undoes_split(delta: dict[str, int]) -> None:
    """Splitting and merging loses nothing and invents nothing."""
    tiers = split(delta)
    merged = merge(tiers.get("session", {}), tiers.get("user", {}), tiers.get("app", {}))
    assert merged == delta


@given(st.dictionaries(KEYS, st.integers()))
def test_split_puts_every_key_in_one_tier(delta: dict[str, int]) -> None:
    """The tiers together hold exactly the given keys, and none of them is empty."""
    tiers = split(delta)
    assert all(tiers.values())
    rebuilt = {key_of(tier, name): v for tier, part in tiers.items() for name, v in part.items()}
    assert rebuilt == delta


def raw(value: int) -> msgspec.Raw:
    """Return a value as a store keeps it."""
    return msgspec.Raw(str(value).encode())


def plain(state: dict[str, msgspec.Raw]) -> dict[str, int]:
    """Return stored values as numbers."""
    return {key: int(bytes(value)) for key, value in state.items()}


def test_rewind_sets_back_what_changed_afterwards() -> None:
    """A key changed behind the point gets its last delta before it, or is removed; others stay."""
    now = {"a": raw(3), "b": raw(9), "c": raw(2), "saved": raw(7)}
    deltas: list[Delta] = [
        (1, {"a": raw(1), "d": raw(4)}, []),
        (2, {"c": raw(2)}, []),
        (3, {"a": raw(3), "b": raw(9)}, ["d"]),
    ]
    assert plain(rewind(now, deltas, 2)) == {"a": 1, "c": 2, "d": 4, "saved": 7}


def test_rewind_to_a_removal_removes() -> None:
    """If the last delta before the point removed the key, the key is not there."""
    now = {"a": raw(3)}
    deltas: list[Delta] = [(1, {"a": raw(1)}, []), (2, {}, ["a"]), (3, {"a": raw(3)}, [])]
    assert plain(rewind(now, deltas, 2)) == {}


def test_rewind_brings_a_key_back_that_was_removed_afterwards() -> None:
    """A key that a later event removed is there again."""
    deltas: list[Delta] = [(1, {"a": raw(1)}, []), (2, {}, ["a"])]
    assert plain(rewind({}, deltas, 1)) == {"a": 1}


def test_rewind_leaves_the_shared_tiers_alone() -> None:
    """Deltas of `app:` and `user:` keys never show up in the session's own state."""
    deltas: list[Delta] = [
        (1, {"app:x": raw(1), "user:x": raw(1)}, []),
        (2, {"app:x": raw(2), "user:x": raw(2)}, []),
    ]
    assert rewind({}, deltas, 1) == {}


def test_rewind_keeps_later_saves_of_other_keys() -> None:
    """A key that was saved without an event stays as it is now: the log knows nothing of it."""
    assert plain(rewind({"a": raw(5)}, [(1, {"a": raw(1)}, [])], 1)) == {"a": 5}


STEPS = st.lists(
    st.tuples(st.dictionaries(PLAIN, st.integers(0, 9), max_size=3), st.lists(PLAIN, max_size=2)),
    max_size=8,
)


@given(STEPS, st.data())
def test_rewind_equals_replaying_the_log_up_to_there(
    steps: list[tuple[dict[str, int], list[str]]], data: st.DataObject
) -> None:
    """When every change came from the log, the state at any event is the replay up to it."""
    deltas: list[Delta] = []
    states: list[dict[str, int]] = [{}]
    for seq, (changed, removed) in enumerate(steps, start=1):
        gone = [key for key in removed if key not in changed]
        deltas.append((seq, {key: raw(value) for key, value in changed.items()}, gone))
        state = {**states[-1], **changed}
        states.append({key: value for key, value in state.items() if key not in gone})
    at = data.draw(st.integers(0, len(steps)))
    now = {key: raw(value) for key, value in states[-1].items()}
    assert plain(rewind(now, deltas, at)) == states[at]


@given(STEPS)
def test_rewind_to_the_end_changes_nothing(steps: list[tuple[dict[str, int], list[str]]]) -> None:
    """At the last event the state is as it is now, whatever the log says."""
    deltas: list[Delta] = [
        (seq, {key: raw(value) for key, value in changed.items()}, removed)
        for seq, (changed, removed) in enumerate(steps, start=1)
    ]
    now = {"a": raw(1), "z": raw(2)}
    assert rewind(now, deltas, len(steps)) == now
