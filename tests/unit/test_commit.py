"""The rules of a commit: what it remembers, what refuses it (in order), what it leads to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import (
    AlreadyBound,
    Conflict,
    Ended,
    InvalidId,
    InvalidTransition,
    LeaseHeld,
    LeaseLost,
    LogFull,
    NotFound,
    Phase,
    TailMismatch,
    TooLarge,
    Trigger,
    Unbound,
)
from sojourn.commit import (
    advance,
    check_parent,
    claim_of,
    created,
    deltas_of,
    exists,
    forbid,
    forked,
    is_repeat,
    leased,
    may_delete,
    merged_state,
    numbered,
    patched,
    recall,
    remember,
    renewed,
    touched,
)
from sojourn.limits import MAX_LABELS, MAX_SEQ, MAX_STATE, OPERATIONS_REMEMBERED
from sojourn.model import Draft, Entry, Header
from sojourn.store import Acquire, Change, Move, Renew, Retry, TierDelta

NOW = 1_000_000
OP = b"12345678"
HEADER = Header(app="app", id="s1", epoch="e1", created_at=0, active_at=0, revision=5, seq=7)
CHANGE = Change(app="app", id="s1", op=OP, now=NOW)
DRAFT = Draft(id="ev", kind="note", author="me", at=9, body='{"a":1,"b":[]}')


def header(**facts: Any) -> Header:
    """Return the header with some facts changed."""
    return msgspec.structs.replace(HEADER, **facts)


def change(**parts: Any) -> Change:
    """Return a change with some parts."""
    return msgspec.structs.replace(CHANGE, **parts)


def tail(count: int) -> tuple[int, ...]:
    """Return the last numbers of a log that ends with 7."""
    return tuple(range(8 - count, 8))


def no_tail(count: int) -> tuple[int, ...]:
    """Fail: nobody expected a tail."""
    raise AssertionError(f"the tail of {count} was read for nothing")


# --- what it remembers --------------------------------------------------------------------------


def op(number: int) -> bytes:
    """Return an operation id."""
    return number.to_bytes(8)


def test_an_operation_is_remembered_with_what_it_led_to() -> None:
    """Revision and last sequence number come back, for the first and the last of many."""
    blob = b""
    for number in range(5):
        blob = remember(blob, op(number), number + 1, number * 10)
    for number in range(5):
        assert recall(header(remembered=blob), op(number)) == (number + 1, number * 10)
    assert recall(header(remembered=blob), op(5)) is None
    assert recall(HEADER, op(0)) is None


def test_only_the_last_operations_are_remembered() -> None:
    """Beyond `OPERATIONS_REMEMBERED` the oldest falls out; the size stays."""
    blob = b""
    for number in range(OPERATIONS_REMEMBERED + 3):
        blob = remember(blob, op(number), 1, 1)
    full = header(remembered=blob)
    assert [recall(full, op(number)) is not None for number in range(4)] == [False] * 3 + [True]
    assert len(blob) == OPERATIONS_REMEMBERED * 20


def test_bytes_that_look_like_an_operation_across_a_border_are_none() -> None:
    """The numbers of one entry and the id of the next can spell an id; that is no memory of it."""
    spelled = b"\x00\x00\x00\x07ABCD"
    blob = remember(b"", b"ZZZZZZZZ", 1, 7)
    blob = remember(blob, b"ABCDEFGH", 2, 8)
    assert spelled in blob
    assert recall(header(remembered=blob), spelled) is None


def test_a_real_entry_behind_a_misaligned_match_is_found() -> None:
    """The search goes on behind bytes that only looked like the operation."""
    spelled = b"\x00\x00\x00\x07ABCD"
    blob = remember(b"", b"ZZZZZZZZ", 1, 7)
    blob = remember(blob, b"ABCDEFGH", 2, 8)
    blob = remember(blob, spelled, 3, 9)
    assert recall(header(remembered=blob), spelled) == (3, 9)


def test_overlapping_misaligned_matches_do_not_hide_an_entry() -> None:
    """An id of equal bytes matches at many places; the aligned one counts."""
    zeros = bytes(8)
    blob = remember(b"", b"\xff" * 4 + bytes(4), 0, 0)
    blob = remember(blob, zeros, 0, 3)
    assert recall(header(remembered=blob), zeros) == (0, 3)


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=8, max_size=8) | st.just(bytes(8)),
            st.integers(0, 3) | st.integers(0, 2**64 - 1),
            st.integers(0, MAX_SEQ),
        ),
        max_size=OPERATIONS_REMEMBERED,
        unique_by=lambda entry: entry[0],
    ),
    st.binary(min_size=8, max_size=8) | st.just(bytes(8)),
)
def test_the_ring_is_a_mapping(entries: list[tuple[bytes, int, int]], asked: bytes) -> None:
    """Whatever the ids and numbers are, recall is a look-up in what was remembered."""
    blob = b""
    for each, revision, seq in entries:
        blob = remember(blob, each, revision, seq)
    known = {each: (revision, seq) for each, revision, seq in entries}
    full = header(remembered=blob)
    assert recall(full, asked) == known.get(asked)
    for each, found in known.items():
        assert recall(full, each) == found


# --- what refuses it ----------------------------------------------------------------------------


def test_a_change_that_fits_is_let_through_without_reading_the_tail() -> None:
    """The header comes back as it was."""
    assert forbid(HEADER, CHANGE, no_tail) is HEADER
    exact = change(epoch="e1", revision=5)
    assert forbid(HEADER, exact, no_tail) is HEADER


LEASED = {"fence": 3, "holder": "worker"}
REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any], type[Exception]]] = [
    ("an earlier incarnation", {}, {"epoch": "e0"}, NotFound),
    ("an earlier incarnation, strict", {}, {"epoch": "e0", "revision": 5}, Conflict),
    ("past its deadline", {"expires_at": NOW}, {}, Ended),
    ("not expired, though it has to be", {}, {"expired": "require"}, Conflict),
    ("not expired yet", {"expires_at": NOW + 1}, {"expired": "require"}, Conflict),
    ("ending", {"phase": Phase.ENDING}, {}, Ended),
    ("ended", {"phase": Phase.ENDED}, {}, Ended),
    ("terminating", {"lifecycle": "agent", "phase": Phase.TERMINATING}, {}, Ended),
    ("an illegal move", {}, {"move": Move(trigger=Trigger.FINISH)}, InvalidTransition),
    ("a retry of one that is over", {"phase": Phase.ENDED}, {"retry": Retry(due_at=1)}, Ended),
    ("a later revision", {}, {"revision": 4}, Conflict),
    ("an earlier revision", {}, {"revision": 6}, Conflict),
    ("an older lease", LEASED, {"fence": 2}, LeaseLost),
    ("a lease of the future", LEASED, {"fence": 4}, LeaseLost),
    ("a released lease", {"fence": 3}, {"fence": 3}, LeaseLost),
    ("another user", {"user": "u"}, {"user": "v"}, AlreadyBound),
    ("no user", {}, {"user_tier": TierDelta({"k": msgspec.Raw(b"1")})}, Unbound),
    ("no user to drop from", {}, {"user_tier": TierDelta({}, ("k",))}, Unbound),
    ("a full log", {"seq": MAX_SEQ}, {"events": (DRAFT,)}, LogFull),
    ("many labels", {}, {"labels": {str(n): "v" for n in range(MAX_LABELS + 1)}}, TooLarge),
    (
        "an exclusive label changed",
        {"labels": {"r": "1"}, "exclusive": ("r",)},
        {"labels": {"r": "2"}},
        InvalidId,
    ),
    (
        "an exclusive label removed",
        {"labels": {"r": "1"}, "exclusive": ("r",)},
        {"labels": {"r": None}},
        InvalidId,
    ),
    ("another tail", {}, {"expect_tail": (5, 6)}, TailMismatch),
]


@pytest.mark.parametrize(
    ("facts", "parts", "kind"), [each[1:] for each in REFUSALS], ids=[each[0] for each in REFUSALS]
)
def test_a_change_is_refused(
    facts: dict[str, Any], parts: dict[str, Any], kind: type[Exception]
) -> None:
    """Each reason to refuse has its own type."""
    with pytest.raises(kind) as caught:
        forbid(header(**facts), change(**parts), tail)
    assert caught.type is kind


@pytest.mark.parametrize(
    ("facts", "parts"),
    [
        ({"expires_at": NOW + 1}, {}),
        ({"expires_at": NOW}, {"expired": "allow"}),
        ({"expires_at": NOW}, {"expired": "require"}),
        ({"phase": Phase.ENDING}, {"retry": Retry(due_at=1)}),
        ({"phase": Phase.ENDING}, {"move": Move(trigger=Trigger.FINISH)}),
        (LEASED, {"fence": 3}),
        ({"user": "u"}, {"user": "u"}),
        ({}, {"user": "u", "user_tier": TierDelta({"k": msgspec.Raw(b"1")})}),
        ({"seq": MAX_SEQ - 1}, {"events": (DRAFT,)}),
        ({}, {"labels": {str(n): "v" for n in range(MAX_LABELS)}}),
        ({"labels": {"r": "1"}, "exclusive": ("r",)}, {"labels": {"r": "1", "s": "2"}}),
        ({}, {"expect_tail": (6, 7)}),
        ({}, {"expect_tail": ()}),
    ],
)
def test_just_short_of_a_refusal_passes(facts: dict[str, Any], parts: dict[str, Any]) -> None:
    """The borders of the rules, seen from inside."""
    found = header(**facts)
    assert forbid(found, change(**parts), tail) is found


@pytest.mark.behaviour(21)
def test_a_missing_session_is_not_found() -> None:
    """Nothing is created by a commit; a change without an id belongs to no session."""
    with pytest.raises(NotFound) as caught:
        forbid(None, CHANGE, no_tail)
    assert caught.value.id == "s1"
    with pytest.raises(NotFound):
        forbid(HEADER, change(id=None), no_tail)


ORDER: list[tuple[dict[str, Any], dict[str, Any], type[Exception]]] = [
    ({}, {"epoch": "e0"}, NotFound),
    ({"expires_at": NOW}, {}, Ended),
    ({"phase": Phase.ENDING}, {}, Ended),
    ({}, {"revision": 4}, Conflict),
    ({}, {"fence": 2}, LeaseLost),
    ({"user": "u"}, {"user": "v"}, AlreadyBound),
    ({"seq": MAX_SEQ}, {"events": (DRAFT,)}, LogFull),
    ({}, {"expect_tail": (1,)}, TailMismatch),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_refusals_come_in_order(first: int) -> None:
    """With everything wrong at once: who it is, then whether it moved on, then contents."""
    facts: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for more_facts, more_parts, _ in ORDER[first:]:
        facts.update(more_facts)
        parts.update(more_parts)
    expected = ORDER[first][2]
    if first == 0:  # strict and of another incarnation at once is a conflict that carries both
        expected = Conflict
    with pytest.raises(expected) as caught:
        forbid(header(**facts), change(**parts), tail)
    assert caught.type is expected


@pytest.mark.behaviour(106)
def test_a_conflict_carries_both_sides() -> None:
    """What was expected and what was found, as (epoch, revision)."""
    with pytest.raises(Conflict) as caught:
        forbid(HEADER, change(epoch="e1", revision=4), no_tail)
    assert (caught.value.expected, caught.value.actual) == (("e1", 4), ("e1", 5))


def test_a_tail_mismatch_carries_both_tails() -> None:
    """What was expected and what the log ends with, as long as what was expected."""
    with pytest.raises(TailMismatch) as caught:
        forbid(HEADER, change(expect_tail=(4, 5, 6)), tail)
    assert (caught.value.expected_tail, caught.value.actual_tail) == ((4, 5, 6), (5, 6, 7))


def test_unbound_names_the_key() -> None:
    """The first key of the user's tier, with its prefix."""
    delta = TierDelta({"theme": msgspec.Raw(b"1")})
    with pytest.raises(Unbound) as caught:
        forbid(HEADER, change(user_tier=delta), no_tail)
    assert (caught.value.id, caught.value.key) == ("s1", "user:theme")


def test_ended_says_why() -> None:
    """Phase and reason of the session, or that none was given."""
    for reason, told in (("logout", "logout"), (None, "no reason given")):
        with pytest.raises(Ended) as caught:
            forbid(header(phase=Phase.ENDING, reason=reason), CHANGE, no_tail)
        assert (caught.value.phase, caught.value.reason) == (Phase.ENDING, told)


# --- what it leads to ---------------------------------------------------------------------------


def test_a_commit_raises_the_revision_by_one_and_is_remembered() -> None:
    """Revision, activity, sequence and memory move; everything else stays."""
    new = advance(HEADER, CHANGE, 2)
    assert recall(new, OP) == (6, 7)
    expected = header(revision=6, seq=9, active_at=NOW, remembered=new.remembered)
    assert new == expected


def test_activity_never_goes_back() -> None:
    """A commit with a clock that is behind keeps the later instant."""
    assert advance(header(active_at=NOW + 5), CHANGE, 0).active_at == NOW + 5


@pytest.mark.behaviour(51)
def test_a_commit_extends_the_idle_deadline_and_not_the_absolute_one() -> None:
    """Idle counts from the commit; the absolute deadline caps it; both are when it is due."""
    sliding = advance(header(idle=100, expires_at=50), change(now=40), 0)
    assert (sliding.expires_at, sliding.due_at) == (140, 140)
    capped = advance(header(idle=100, absolute_at=120, expires_at=50), change(now=40), 0)
    assert (capped.expires_at, capped.due_at) == (120, 120)
    fixed = advance(header(absolute_at=120, expires_at=120), change(now=40), 0)
    assert (fixed.expires_at, fixed.due_at) == (120, 120)


def test_a_commit_binds_and_labels() -> None:
    """User and labels come along, in the same step."""
    new = advance(
        header(labels={"a": "1", "b": "1"}),
        change(user="u", labels={"a": None, "b": "2", "c": "3"}),
        0,
    )
    assert (new.user, new.labels, new.revision) == ("u", {"b": "2", "c": "3"}, 6)


def test_a_move_to_ending_lifts_the_deadline_and_revokes_the_lease() -> None:
    """An ending session stays readable until it is ended, and its runner runs it no more."""
    old = header(
        idle=10, absolute_at=NOW + 90, expires_at=NOW + 5, fence=3, holder="w", leased_until=99
    )
    move = Move(trigger=Trigger.END, reason="logout", due_at=77, retain=500)
    new = advance(old, change(move=move), 0)
    assert (new.phase, new.reason, new.retain) == (Phase.ENDING, "logout", 500)
    assert (new.idle, new.absolute_at, new.expires_at, new.due_at) == (None, None, None, 77)
    assert (new.fence, new.holder, new.leased_until) == (4, None, 0)


@pytest.mark.behaviour(50)
def test_a_move_to_ending_does_not_revive_what_expired() -> None:
    """Past its deadline a session stays missing to readers while it ends."""
    move = Move(trigger=Trigger.END, due_at=77)
    new = advance(header(expires_at=NOW), change(move=move, expired="allow"), 0)
    assert (new.phase, new.expires_at) == (Phase.ENDING, NOW)


def test_ending_again_keeps_the_first_reason_and_retention() -> None:
    """The second END changes when the session is due, no more, unless it gives a reason."""
    old = header(phase=Phase.ENDING, reason="first", retain=5, fence=3, holder="w")
    new = advance(old, change(move=Move(trigger=Trigger.END, due_at=88)), 0)
    assert (new.reason, new.retain, new.fence, new.holder) == ("first", 5, 3, "w")
    assert new.due_at == 88


def test_a_finished_session_is_kept_for_its_retention() -> None:
    """From the finish, so long it stays readable; then it is due for removal."""
    old = header(phase=Phase.ENDING, retain=500)
    new = advance(old, change(move=Move(trigger=Trigger.FINISH)), 0)
    assert new.phase is Phase.ENDED
    assert (new.expires_at, new.due_at, new.idle) == (NOW + 500, NOW + 500, None)


def test_a_failed_end_is_counted_and_due_later() -> None:
    """A retry note is no use of the session: activity and deadline stay."""
    old = header(phase=Phase.ENDING, attempts=2, active_at=1, expires_at=None)
    new = advance(old, change(retry=Retry(due_at=99)), 0)
    assert (new.attempts, new.due_at, new.active_at, new.expires_at) == (3, 99, 1, None)


def test_labels_are_patched() -> None:
    """Named ones change or go, others stay, missing ones are fine; what was given is kept."""
    labels = {"a": "1", "b": "2"}
    assert patched(labels, {"b": None, "c": "3", "d": None}) == {"a": "1", "c": "3"}
    assert labels == {"a": "1", "b": "2"}


# --- touches, leases, claims, deletes -----------------------------------------------------------


@pytest.mark.behaviour(52)
def test_a_touch_moves_the_deadline_and_nothing_else() -> None:
    """Not the revision, not the sequence, not the memory."""
    old = header(idle=100, expires_at=50)
    assert touched(old, "s1", 40, "e1") == header(
        idle=100, active_at=40, expires_at=140, due_at=140
    )


@pytest.mark.behaviour(119)
def test_a_touch_never_goes_back() -> None:
    """A clock that is behind keeps the later instant."""
    assert touched(header(active_at=90), "s1", 40, None).active_at == 90


@pytest.mark.parametrize(
    ("found", "epoch", "kind"),
    [
        (None, None, NotFound),
        (HEADER, "e0", NotFound),
        (header(expires_at=40), None, Ended),
        (header(phase=Phase.ENDED), None, Ended),
        (header(phase=Phase.CLEANED), None, Ended),
    ],
)
def test_a_touch_revives_nothing(
    found: Header | None, epoch: str | None, kind: type[Exception]
) -> None:
    """Missing, of an earlier incarnation, past its deadline or over: refused."""
    with pytest.raises(kind) as caught:
        touched(found, "s1", 40, epoch)
    assert caught.type is kind


def test_a_touch_of_an_ending_session_moves_no_deadline() -> None:
    """It notes the activity; the end goes on as planned."""
    old = header(phase=Phase.ENDING, due_at=77)
    assert touched(old, "s1", 40, None) == header(phase=Phase.ENDING, due_at=77, active_at=40)


ACQUIRE = Acquire(app="app", id="s1", holder="me", now=10, until=50)


def test_a_lease_has_a_rising_token() -> None:
    """A free one is granted with the next token; the same holder again keeps its token."""
    first = leased(header(fence=3), ACQUIRE)
    assert (first.fence, first.holder, first.leased_until) == (4, "me", 50)
    again = leased(first, msgspec.structs.replace(ACQUIRE, until=90))
    assert (again.fence, again.holder, again.leased_until) == (4, "me", 90)


def test_a_lease_that_runs_is_held_and_one_that_ran_out_is_not() -> None:
    """At its last instant it is over."""
    held = header(fence=3, holder="you", leased_until=11)
    with pytest.raises(LeaseHeld) as caught:
        leased(held, ACQUIRE)
    assert caught.value.until == 11
    over = msgspec.structs.replace(held, leased_until=10)
    assert leased(over, ACQUIRE).fence == 4


@pytest.mark.parametrize(("found", "epoch"), [(None, None), (HEADER, "e0")])
def test_a_lease_of_nothing_is_not_found(found: Header | None, epoch: str | None) -> None:
    """Missing, or of an earlier incarnation."""
    with pytest.raises(NotFound):
        leased(found, msgspec.structs.replace(ACQUIRE, epoch=epoch))


def test_only_the_newest_lease_is_renewed() -> None:
    """Token and holder have to fit; a release lets go of both."""
    held = header(fence=4, holder="me", leased_until=50)
    renew = Renew(app="app", id="s1", token=4, holder="me", now=20, until=90)
    assert renewed(held, renew).leased_until == 90
    released = renewed(held, msgspec.structs.replace(renew, until=None))
    assert (released.fence, released.holder, released.leased_until) == (4, None, 0)
    for wrong in ({"token": 3}, {"holder": "you"}):
        with pytest.raises(LeaseLost):
            renewed(held, msgspec.structs.replace(renew, **wrong))
    with pytest.raises(LeaseLost):
        renewed(released, renew)
    with pytest.raises(NotFound):
        renewed(None, renew)


def test_a_claim_is_sorted_pairs() -> None:
    """Two sessions that name the same labels in another order claim the same."""
    labels = {"b": "2", "a": "1", "c": "3"}
    one = header(labels=labels, exclusive=("b", "a"))
    two = header(labels=labels, exclusive=("a", "b"))
    assert claim_of(one) == claim_of(two) == (("a", "1"), ("b", "2"))
    assert claim_of(header(labels=labels)) is None


def test_a_delete_holds_its_expectations() -> None:
    """Each of epoch, revision and fence has to fit if it is given."""
    held = header(fence=3, holder="worker")
    assert may_delete(held, None, None, None)
    assert may_delete(held, "e1", 5, 3)
    assert not may_delete(held, "e0", None, None)
    assert not may_delete(held, None, 4, None)
    assert not may_delete(held, None, None, 2)
    assert not may_delete(header(fence=3), None, None, 3), "a released lease"


# --- creating -----------------------------------------------------------------------------------


def test_a_created_session_remembers_its_operation() -> None:
    """A create that is tried again is recognised."""
    new = created(header(revision=1, seq=0), OP, 3)
    assert (new.seq, recall(new, OP)) == (3, (1, 0))


def test_exists_says_whether_it_expired() -> None:
    """At the deadline it has, before it has not."""
    assert exists(header(expires_at=10), 10).expired
    assert not exists(header(expires_at=10), 9).expired
    assert not exists(HEADER, 10).expired


def test_a_fork_takes_user_and_labels_and_starts_over() -> None:
    """Not the claim, not the parent, not the phase; the origin is noted, the log is cut."""
    source = header(
        user="u",
        labels={"r": "1"},
        exclusive=("r",),
        parent="p",
        lifecycle="agent",
        phase=Phase.ACTIVE,
    )
    target = Header(app="app", id="s2", epoch="e2", created_at=5, active_at=5)
    new = forked(target, source, OP, 4)
    assert (new.id, new.epoch, new.user, new.labels) == ("s2", "e2", "u", {"r": "1"})
    assert (new.exclusive, new.parent, new.forked_from) == ((), None, "s1")
    assert (new.lifecycle, new.phase, new.seq, new.revision) == ("agent", Phase.CREATED, 4, 1)
    assert forked(target, source, OP, 99).seq == 7
    assert new.labels is not source.labels


@pytest.mark.parametrize(
    ("parent", "kind"),
    [
        (None, NotFound),
        (header(expires_at=5), Ended),
        (header(phase=Phase.ENDING), Ended),
        (header(phase=Phase.ENDED), Ended),
    ],
)
def test_a_parent_is_there_and_live(parent: Header | None, kind: type[Exception]) -> None:
    """Missing, expired, ending and ended parents take no children."""
    child = Header(app="app", id="c", epoch="e", created_at=5, active_at=5, parent="s1")
    with pytest.raises(kind) as caught:
        check_parent(parent, child)
    assert caught.type is kind
    check_parent(header(expires_at=6), child)


# --- state and events ---------------------------------------------------------------------------


def test_a_delta_is_merged_into_the_text() -> None:
    """Keys are set and removed, others stay; removing a missing one is fine."""
    delta = TierDelta({"a": msgspec.Raw(b"2"), "c": msgspec.Raw(b"[]")}, ("b", "z"))
    text = '{"a":1,"b":1,"d":null}'
    assert merged_state(text, delta, clear=False, key="k") == b'{"a":2,"d":null,"c":[]}'
    assert merged_state(text, delta, clear=True, key="k") == b'{"a":2,"c":[]}'
    assert merged_state(text, None, clear=True, key="k") == b"{}"


def test_a_tier_has_a_largest_size() -> None:
    """`MAX_STATE` bytes fit exactly, one more is `TooLarge`."""
    fill = MAX_STATE - len('{"a":""}')
    fits = TierDelta({"a": msgspec.Raw(b'"' + b"x" * fill + b'"')})
    assert len(merged_state("{}", fits, clear=False, key="k")) == MAX_STATE
    over = TierDelta({"a": msgspec.Raw(b'"' + b"x" * (fill + 1) + b'"')})
    with pytest.raises(TooLarge) as caught:
        merged_state("{}", over, clear=False, key="k")
    assert (caught.value.size, caught.value.limit) == (MAX_STATE + 1, MAX_STATE)


ENTRY = Entry(3, "ev", "note", "me", 9, '{"a":1,"b":[]}')


@pytest.mark.parametrize(
    ("parts", "repeat"),
    [
        ({}, True),
        ({"body": '{ "b": [], "a": 1 }'}, True),
        ({"at": 10}, True),
        ({"at": 10, "stamped": True}, False),
        ({"at": 9, "stamped": True}, True),
        ({"id": "other"}, False),
        ({"kind": "other"}, False),
        ({"author": None}, False),
        ({"body": '{"a":1.0,"b":[]}'}, False),
        ({"body": '{"a":true,"b":[]}'}, False),
        ({"body": '{"a":1}'}, False),
        ({"changes": "{}"}, False),
        ({"deleted": "[]"}, False),
    ],
)
def test_a_repeat_has_equal_content(parts: dict[str, Any], repeat: bool) -> None:
    """Same id, kind, author, body and delta, by value; a time only if the caller gave it."""
    assert is_repeat(msgspec.structs.replace(DRAFT, **parts), ENTRY) is repeat


def test_a_repeat_compares_deltas_by_value() -> None:
    """The order of keys in a delta is no difference; the values are."""
    entry = Entry(3, "ev", "note", "me", 9, "1", '{"a":1,"b":2}', '["c"]')
    same = msgspec.structs.replace(DRAFT, body="1", changes='{"b":2,"a":1}', deleted='["c"]')
    assert is_repeat(same, entry)
    assert not is_repeat(msgspec.structs.replace(same, changes='{"a":1}'), entry)
    assert not is_repeat(msgspec.structs.replace(same, deleted=None), entry)


def test_a_draft_becomes_an_entry() -> None:
    """Field by field, at its number."""
    draft = msgspec.structs.replace(DRAFT, changes='{"a":1}', deleted='["b"]')
    assert numbered(draft, 3) == Entry(
        3, "ev", "note", "me", 9, '{"a":1,"b":[]}', '{"a":1}', '["b"]'
    )


def test_deltas_are_read_from_those_entries_that_have_one() -> None:
    """(seq, keys set, keys removed), ascending as given."""
    entries = [
        ENTRY,
        Entry(4, "x", "note", None, 9, "null", '{"a":1}'),
        Entry(5, "y", "note", None, 9, "null", None, '["a","b"]'),
    ]
    found = [(seq, dict(changed), list(removed)) for seq, changed, removed in deltas_of(entries)]
    assert found == [(4, {"a": msgspec.Raw(b"1")}, []), (5, {}, ["a", "b"])]
