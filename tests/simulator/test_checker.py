"""The checker on histories made by hand: what could have happened passes, the rest is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sojourn.testing.simulator import History, check
from sojourn.testing.simulator.checker import MAX_VIOLATIONS, RULES
from sojourn.testing.simulator.ledger import NEVER, Entry, Operation, Seen

S1 = Seen("s1", "e1", 1, "OPEN", None, None, None, {"born": 1, "count": 0}, ())


def seen(**facts: Any) -> Seen:
    """Return session s1 as it was read, with some facts changed."""
    return replace(S1, **facts)


class Story:
    """A history in the making: operations one after the other, unless told otherwise."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.final: list[Seen] = []
        self.left: list[Seen] = []
        self.hooks: set[str] | None = None

    def did(self, verb: str, id: str = "s1", **facts: Any) -> Operation:
        """Add an operation that was acknowledged, ten ticks long, unless `facts` say otherwise."""
        number = len(self.operations) + 1
        ticks = {"began": number * 10, "ended": number * 10 + 9, "before": 0}
        operation = Operation(number, "n1", verb, id, **{**ticks, "outcome": "done", **facts})
        self.operations.append(operation)
        return operation

    def made(self, id: str = "s1", epoch: str | None = "e1", **facts: Any) -> Operation:
        """Add the making of a session."""
        return self.did("create", id, epoch=epoch, makes=True, **facts)

    def looked(self, *found: Seen, **facts: Any) -> Operation:
        """Add a read that found something."""
        look = self.did("look", found[0].id, **facts)
        look.seen = [(look.began, look.ended, one) for one in found]
        return look

    def appended(self, *seqs: int, **facts: Any) -> Operation:
        """Add an append of as many events as there are numbers."""
        append = self.did("append", epoch="e1", commits=True, **facts)
        append.seqs = seqs
        append.markers = tuple(f"{append.number}.{part}" for part in range(len(seqs)))
        return append

    def broken(self) -> set[str]:
        """Return the rules that are broken."""
        history = History(self.operations, self.final, self.hooks, self.left)
        return {violation.rule for violation in check(history)}


def logged(*appends: Operation, **facts: Any) -> Seen:
    """Return s1 with the events of these appends, as they were told."""
    log = tuple(
        Entry(seq, marker, op.token)
        for op in appends
        for seq, marker in zip(op.seqs, op.markers, strict=True)
    )
    turn = {"turn": log[-1].marker} if log else {}
    revision = 1 + len(appends)
    return seen(**{"log": log, "state": {**S1.state, **turn}, "revision": revision, **facts})


def test_every_rule_is_tested_here() -> None:
    """By name, in the text of this file."""
    text = Path(__file__).read_text(encoding="utf-8")
    for rule in RULES:
        assert f'"{rule.__name__}"' in text, rule.__name__


def test_what_could_have_happened_is_no_violation() -> None:
    """A life from making to deletion, read all the while."""
    story = Story()
    story.hooks = set()
    story.made()
    story.looked(S1)
    first, second = story.appended(1), story.appended(2, 3)
    story.looked(logged(first, second))
    count = story.did("strict save", epoch="e1", strict=True, commits=True, writes={"count": 1})
    state = {**logged(first, second).state, "count": count.writes["count"]}
    story.looked(logged(first, second, state=state, revision=4))
    story.did("watch", watched=[(1, first.markers[0]), (2, second.markers[0])])
    story.did("delete", removes=True)
    story.did("look", missing=True)
    assert story.broken() == set()


# -------------------------------------------------------------------------------- coming and going


def test_a_session_needs_a_maker() -> None:
    story = Story()
    story.looked(seen(state={}))
    assert "made_by_somebody" in story.broken()


def test_a_refused_create_makes_nothing() -> None:
    story = Story()
    story.made(epoch=None, outcome="refused")
    story.looked(S1)
    assert "made_by_somebody" in story.broken()


def test_a_create_that_nobody_knows_of_may_have_made_it() -> None:
    story = Story()
    story.made(epoch=None, outcome="unknown")
    story.looked(S1)
    story.final = [S1]
    assert story.broken() == set()


def test_one_create_makes_one_session() -> None:
    story = Story()
    story.made(epoch=None, outcome="unknown")
    story.looked(S1, seen(epoch="e2"))
    assert "made_by_somebody" in story.broken()


def test_a_session_of_which_only_the_epoch_is_known_is_no_violation() -> None:
    story = Story()
    story.did("lease", epoch="e1", granted=15, token=1, outcome="unknown")
    assert story.broken() == set()


def test_what_was_removed_is_not_seen_again() -> None:
    story = Story()
    story.made()
    story.did("delete", removes=True)
    story.looked(S1)
    assert "not_resurrected" in story.broken()


def test_what_was_removed_takes_no_writes() -> None:
    story = Story()
    story.made()
    story.did("end", removes=True)
    story.did("save", epoch="e1", commits=True, writes={"k0": 3})
    assert "not_resurrected" in story.broken()


def test_a_child_goes_with_its_parent() -> None:
    story = Story()
    story.made()
    story.made("c1", "e2", parent="s1")
    story.did("delete", removes=True)
    story.final = [seen(id="c1", epoch="e2", state={"born": 2, "count": 0})]
    assert "not_resurrected" in story.broken()


def test_a_new_session_of_the_id_is_another_one() -> None:
    """Neither what came after nor another epoch that was cleared is meant."""
    story = Story()
    story.made()
    story.did("clear", epoch="e1", removes=True)
    story.made(epoch="e2")
    story.did("clear", epoch="e1", removes=True)
    new = seen(epoch="e2", state={"born": 3, "count": 0})
    story.looked(new)
    story.final = [new]
    assert story.broken() == set()


def test_who_removes_at_the_same_time_removes_nothing_for_sure() -> None:
    story = Story()
    story.made(began=1, ended=50)
    story.did("delete", began=2, ended=40, removes=True)
    story.looked(S1, began=60, ended=70)
    story.final = [S1]
    assert story.broken() == set()


@pytest.mark.parametrize("how", ["final", "look"])
def test_a_session_does_not_vanish(how: str) -> None:
    story = Story()
    story.made()
    if how == "look":
        story.did("look", missing=True)
        story.final = [S1]
    assert story.broken() == {"not_vanished"}


@pytest.mark.parametrize(
    ("facts", "used", "clock", "gone"),
    [
        ({"idle": 5}, 0, 4, False),
        ({"idle": 5}, 0, 5, True),
        ({"idle": 5}, 3, 7, False),
        ({"idle": 5}, 3, 8, True),
        ({"absolute": 6}, 3, 6, True),
        ({"absolute": 6, "idle": 9}, 3, 5, False),
    ],
)
def test_a_session_may_expire(facts: dict[str, Any], used: int, clock: int, gone: bool) -> None:
    """By anybody's clock, at the earliest deadline that its use allows."""
    story = Story()
    story.made(**facts)
    if used:
        story.did("save", epoch="e1", commits=True, before=used)
    story.did("sweep", "*", after=clock)
    assert ("not_vanished" not in story.broken()) is gone


def test_a_child_may_go_with_a_parent_that_expired() -> None:
    story = Story()
    story.made(idle=5)
    story.made("c1", "e2", parent="s1")
    story.did("sweep", "*", after=9)
    assert story.broken() == set()


def test_a_hook_runs_before_an_end() -> None:
    story = Story()
    story.made()
    story.did("end", removes=True)
    story.hooks = set()
    assert story.broken() == {"hooks_run"}
    story.hooks = {"e1"}
    assert story.broken() == set()


@pytest.mark.parametrize(
    "left", [seen(phase="ENDING"), seen(), seen(epoch="e9")], ids=["ending", "expired", "new"]
)
def test_in_the_end_all_that_was_begun_is_finished(left: Seen) -> None:
    story = Story()
    story.made(idle=5)
    story.final = [S1]
    story.left = [left]
    assert "finished" in story.broken()


# -------------------------------------------------------------------------------------------- logs


def test_an_append_is_kept_under_its_number() -> None:
    story = Story()
    story.made()
    first, second = story.appended(1), story.appended(2)
    story.final = [logged(first, revision=3)]
    assert "appends_are_kept" in story.broken()
    swapped = [replace_seqs(second, 1), replace_seqs(first, 2)]
    story.final = [logged(*swapped)]
    assert "appends_are_kept" in story.broken()


def replace_seqs(operation: Operation, *seqs: int) -> Operation:
    """Return an operation with other numbers."""
    return replace(operation, seqs=seqs)


def test_an_append_by_id_has_to_be_somewhere() -> None:
    story = Story()
    story.made()
    append = story.appended(1)
    append.verb, append.epoch = "append by id", None
    story.final = [S1]
    assert "appends_are_kept" in story.broken()
    story.final = [logged(append)]
    assert story.broken() == set()
    story.final = []
    story.did("delete", removes=True)
    assert story.broken() == set()


def test_an_append_by_id_may_have_gone_with_a_session_that_nobody_saw() -> None:
    story = Story()
    story.made(outcome="unknown", epoch=None)
    append = story.appended(1)
    append.verb, append.epoch = "append by id", None
    story.made(epoch="e3")
    story.final = [seen(epoch="e3", state={"born": 3, "count": 0})]
    assert story.broken() == set()


@pytest.mark.parametrize(
    "log",
    [
        ((1, "2.0", 0), (3, "3.0", 0)),
        ((1, "2.0", 0), (2, "2.0", 0)),
        ((1, "2.0", 0), (2, "9.0", 0)),
        ((1, "2.0", 0), (2, "4.0", 0)),
        ((1, "2.0", 0), (2, "5.0", 0)),
    ],
    ids=["gap", "twice", "from nowhere", "refused", "before it began"],
)
def test_a_log_is_what_can_be(log: tuple[tuple[int, str, int], ...]) -> None:
    story = Story()
    story.made()
    story.appended(1)
    story.appended(2)
    story.appended(3, outcome="refused")
    read = tuple(Entry(*entry) for entry in log)
    state = {**S1.state, "turn": read[-1].marker}
    story.looked(seen(log=read, state=state, revision=3), began=45, ended=49)
    story.operations.insert(4, story.operations.pop())
    story.appended(3, began=50, ended=59)
    story.operations[-1].markers = ("5.0",)
    assert "logs_are_whole" in story.broken()


def test_events_of_one_append_come_together() -> None:
    story = Story()
    story.made()
    both = story.appended(1, 2)
    read = logged(both)
    story.looked(replace(read, log=(read.log or ())[:1], state=S1.state))
    assert "logs_are_whole" in story.broken()
    story.operations.pop()
    story.looked(replace(read, log=(Entry(1, both.markers[1], 0),)))
    assert "logs_are_whole" in story.broken()


def test_a_log_only_grows() -> None:
    story = Story()
    story.made()
    first = story.appended(1, outcome="unknown")
    second = story.appended(1, outcome="unknown")
    story.looked(logged(first), logged(second))
    assert "logs_are_whole" in story.broken()


def test_state_and_log_are_of_one_moment() -> None:
    story = Story()
    story.made()
    append = story.appended(1)
    story.looked(logged(append, state=S1.state))
    assert "logs_are_whole" in story.broken()


def test_a_worker_that_lost_its_lease_writes_no_more() -> None:
    story = Story()
    story.made()
    newer, older = story.appended(1, token=2), story.appended(2, token=1)
    story.looked(logged(newer, older))
    assert "logs_are_whole" in story.broken()


def test_a_fork_has_the_events_of_its_source() -> None:
    """As many as it was asked for, even of one append, and its tokens begin anew."""
    story = Story()
    story.made()
    append = story.appended(1, 2, token=7)
    whole = logged(append)
    story.looked(whole)
    fork = story.did("fork", "f1", epoch="e2", makes=True)
    read = seen(id="f1", epoch="e2", forked_from="s1", log=(Entry(1, append.markers[0], 7),))
    fork.seen = [(fork.began, fork.ended, read)]
    own = story.did("append", "f1", epoch="e2", commits=True, token=1, seqs=(2,), markers=("4.0",))
    grown = (*(read.log or ()), Entry(2, "4.0", 1))
    after = replace(read, log=grown, state={**S1.state, "turn": "4.0"}, revision=2)
    story.looked(after)
    story.final = [whole, after]
    assert own.done
    assert story.broken() == set()


def test_appends_keep_their_order() -> None:
    story = Story()
    story.made()
    story.appended(2)
    story.appended(1)
    assert "appends_keep_their_order" in story.broken()


def test_no_number_is_given_twice() -> None:
    story = Story()
    story.made()
    story.appended(1, began=20, ended=50)
    story.appended(1, began=21, ended=51)
    assert "appends_keep_their_order" in story.broken()


@pytest.mark.parametrize("watched", [[(2, "2.0")], [(1, "2.0"), (1, "2.0")], [(1, "9.0")]])
def test_a_watcher_misses_nothing(watched: list[tuple[int, str]]) -> None:
    story = Story()
    story.made()
    append = story.appended(1)
    story.did("watch", watched=watched)
    story.final = [logged(append)]
    assert story.broken() == {"watchers_miss_nothing"}


# ---------------------------------------------------------------------------- revisions and values


def test_a_revision_has_one_content() -> None:
    story = Story()
    story.made()
    story.looked(S1, seen(state={"born": 1, "count": 5}))
    assert "revisions_tell_contents_apart" in story.broken()


def test_a_revision_never_goes_back() -> None:
    story = Story()
    story.made()
    story.did("save", epoch="e1", commits=True)
    story.looked(seen(revision=2))
    story.looked(S1)
    assert "revisions_tell_contents_apart" in story.broken()


@pytest.mark.parametrize(
    ("outcome", "revision", "fine"),
    [
        ("done", 1, False),
        ("done", 2, True),
        ("done", 3, False),
        ("unknown", 1, True),
        ("unknown", 2, True),
        ("unknown", 3, False),
        ("refused", 2, False),
    ],
)
def test_a_commit_counts_once(outcome: str, revision: int, fine: bool) -> None:
    story = Story()
    story.made()
    story.did("save", epoch="e1", commits=True, outcome=outcome)
    story.final = [seen(revision=revision)]
    assert (story.broken() == set()) is fine
    if not fine:
        assert story.broken() == {"commits_count_once"}


def strict(story: Story, count: int, outcome: str = "done") -> None:
    """Add a strict save that counts to a number."""
    story.did(
        "strict save",
        epoch="e1",
        strict=True,
        commits=True,
        writes={"count": count},
        outcome=outcome,
        began=20,
        ended=60,
    )


def test_of_two_strict_saves_that_began_alike_one_wins() -> None:
    story = Story()
    story.made()
    strict(story, 1)
    strict(story, 1)
    assert "strict_saves_exclude_each_other" in story.broken()


@pytest.mark.parametrize(("count", "fine"), [(0, False), (1, True), (2, True), (3, False)])
def test_strict_saves_are_all_counted(count: int, fine: bool) -> None:
    story = Story()
    story.made()
    strict(story, 1)
    strict(story, 2, "unknown")
    story.final = [seen(state={"born": 1, "count": count}, revision=1 + max(1, min(count, 2)))]
    assert (story.broken() == set()) is fine


def test_a_fork_counts_on_from_where_it_began() -> None:
    story = Story()
    story.made()
    fork = story.did("fork", "f1", epoch="e2", makes=True, outcome="unknown")
    read = seen(id="f1", epoch="e2", forked_from="s1", state={"born": 1, "count": 7})
    story.final = [S1, read]
    assert story.broken() == set()
    fork.outcome, fork.seen = "done", [(fork.began, fork.ended, read)]
    assert story.broken() == set()
    fork.seen = [(fork.began, fork.ended, replace(read, state={"born": 1, "count": 6}))]
    assert "strict_saves_exclude_each_other" in story.broken()


@pytest.mark.parametrize("key", ["k0", "app:a", "user:u"])
def test_a_key_has_what_was_written_last(key: str) -> None:
    user = "u" if key.startswith("user:") else None
    story = Story()
    story.made()
    for number in (2, 3):
        story.did("save", epoch="e1", commits=True, writes={key: number}, user=user)
    for value, fine in ((3, True), (2, False), (None, False), (99, False)):
        state = {**S1.state, key: value}
        story.final = [seen(state=state, user=user, revision=3)]
        assert ("values_are_the_last_ones" not in story.broken()) is fine, value


def test_a_key_of_the_user_says_nothing_to_the_anonymous() -> None:
    story = Story()
    story.made()
    story.made("s2", "e2", user="u")
    story.did("save", "s2", epoch="e2", commits=True, writes={"user:u": 3}, user="u")
    state = {"born": 2, "count": 0, "user:u": 3}
    story.final = [S1, seen(id="s2", epoch="e2", user="u", revision=2, state=state)]
    assert story.broken() == set()


def test_a_value_is_not_seen_before_it_was_written() -> None:
    story = Story()
    story.made()
    story.looked(seen(state={**S1.state, "k0": 3}, revision=2))
    story.did("save", epoch="e1", commits=True, writes={"k0": 3})
    assert "values_are_the_last_ones" in story.broken()


def test_a_refused_value_is_never_seen() -> None:
    story = Story()
    story.made()
    story.did("save", epoch="e1", commits=True, writes={"k0": 2}, outcome="refused")
    story.looked(seen(state={**S1.state, "k0": 2}))
    assert "values_are_the_last_ones" in story.broken()


def test_what_a_save_sends_again_may_have_been_written_when_it_was_first_sent() -> None:
    story = Story()
    story.made()
    story.did("save", epoch="e1", commits=True, writes={"k0": 2}, outcome="unknown")
    story.did("save", epoch="e1", commits=True, writes={"k0": 3})
    story.did("save", epoch="e1", commits=True, writes={"k0": 2, "k1": 4})
    for value in (2, 3):
        story.final = [seen(state={**S1.state, "k0": value, "k1": 4}, revision=4)]
        assert story.broken() == set(), value
    story.final = [seen(state={**S1.state, "k1": 4}, revision=4)]
    assert "values_are_the_last_ones" in story.broken()


def test_of_writes_at_the_same_time_either_may_be_last() -> None:
    story = Story()
    story.made()
    for number in (2, 3):
        facts: dict[str, Any] = {"began": 20 + number, "ended": 50, "writes": {"k0": number}}
        story.did("save", epoch="e1", commits=True, **facts)
    for value in (2, 3):
        story.final = [seen(state={**S1.state, "k0": value}, revision=3)]
        assert story.broken() == set()


def test_a_value_may_be_written_again() -> None:
    """A save that nobody knows of is tried again: its value comes late and is no old one."""
    story = Story()
    story.made()
    story.did("save", epoch="e1", commits=True, writes={"k0": 2}, outcome="unknown")
    story.did("save", epoch="e1", commits=True, writes={"k0": 3})
    story.did("save", epoch="e1", commits=True, writes={"k0": 2})
    story.final = [seen(state={**S1.state, "k0": 2}, revision=4)]
    assert story.broken() == set()


@pytest.mark.parametrize("tokens", [(1, 1), (2, 1)])
def test_each_lease_has_a_higher_number(tokens: tuple[int, int]) -> None:
    story = Story()
    story.made()
    for token in tokens:
        number = len(story.operations) + 1
        story.did("lease", epoch="e1", token=token, granted=number * 10 + 5)
    story.final = [S1]
    assert story.broken() == {"leases_are_numbered"}


# ---------------------------------------------------------------------------------------- the rest


def test_what_never_ended_is_after_nothing() -> None:
    story = Story()
    story.made()
    story.did("delete", removes=True, ended=NEVER, outcome="unknown")
    story.looked(S1)
    story.final = [S1]
    assert story.broken() == set()


def test_not_more_is_told_than_anybody_reads() -> None:
    story = Story()
    for number in range(MAX_VIOLATIONS + 10):
        story.looked(seen(epoch=f"e{number}", state={}))
    assert len(check(History(story.operations, [], None))) == MAX_VIOLATIONS
