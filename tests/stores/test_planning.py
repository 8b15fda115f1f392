"""The planner decides as the memory store does, whatever the batch and whatever it remembers."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults.soak import count, scaled
from tests.stores.planned import PlannedStore, Process, told, without_place

from sojourn import Conflict, Phase, SojournError, TooLarge, Trigger
from sojourn.limits import MAX_STATE
from sojourn.model import Draft, Header
from sojourn.store import (
    Acquire,
    Change,
    Create,
    Delete,
    Drop,
    EventQuery,
    Fork,
    Get,
    Move,
    Put,
    Renew,
    TierDelta,
    Touch,
)
from sojourn.stores.planning import Known, Loaded, Operation, Recent, plan
from sojourn.stores.planning.unit import VERSION_BITS
from sojourn.stores.planning.unit import drawn as versions_drawn
from sojourn.stores.weighing import Weighing
from sojourn.vault.vault import Vault

APP = "app"
IDS = ("a", "b", "c", "d")

ids = st.sampled_from(IDS)
epochs = st.sampled_from([None, None, None, "e1", "e2"])
revisions = st.one_of(st.none(), st.none(), st.integers(1, 6))
values = st.integers(0, 9).map(lambda number: msgspec.Raw(str(number).encode()))
names = st.sampled_from(["x", "y", "z"])


@st.composite
def deltas(draw: Any) -> TierDelta | None:
    if draw(st.booleans()):
        return None
    return TierDelta(
        draw(st.dictionaries(names, values, max_size=2)),
        tuple(draw(st.sets(names, max_size=1))),
    )


@st.composite
def drafts(draw: Any) -> Draft:
    changes = draw(st.sampled_from([None, None, '{"x":1}', '{"y":2}']))
    return Draft(
        id=draw(st.sampled_from(["ev1", "ev2"])),
        kind="note",
        author=None,
        at=draw(st.integers(1, 9)),
        body=draw(st.sampled_from(["1", "2"])),
        changes=changes,
        deleted='["z"]' if draw(st.integers(0, 4)) == 0 else None,
        stamped=draw(st.booleans()),
    )


def delta_of(events: tuple[Draft, ...]) -> TierDelta | None:
    """Return the delta of a change that consists of events: all of theirs together."""
    found: dict[str, msgspec.Raw] = {}
    dropped: set[str] = set()
    for draft in events:
        if draft.changes is not None:
            new = msgspec.json.decode(draft.changes, type=dict[str, msgspec.Raw])
            found.update({name: msgspec.Raw(bytes(value)) for name, value in new.items()})
            dropped -= set(new)
        if draft.deleted is not None:
            gone = msgspec.json.decode(draft.deleted, type=list[str])
            dropped.update(gone)
            for name in gone:
                found.pop(name, None)
    return TierDelta(found, tuple(sorted(dropped))) if found or dropped else None


documents = st.lists(
    st.one_of(
        st.builds(
            Put,
            collection=st.just("files"),
            key=st.sampled_from(["k1", "k2"]),
            body=st.sampled_from([b"1", b"22"]),
            content_type=st.just("text/plain"),
            expires_at=st.sampled_from([None, None, 40]),
        ),
        st.builds(Drop, collection=st.just("files"), key=st.sampled_from([None, "k1", "k2"])),
    ),
    max_size=2,
).map(tuple)

moves = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.builds(
        Move,
        trigger=st.sampled_from([Trigger.END, Trigger.FINISH]),
        retain=st.sampled_from([None, 5]),
        due_at=st.just(99),
    ),
)


@st.composite
def changes(draw: Any) -> Change:
    events = tuple(draw(st.lists(drafts(), max_size=3)))
    fresh = len(events) == 1 and draw(st.booleans())
    if fresh:
        events = (msgspec.structs.replace(events[0], id="fresh", fresh=True),)
    tail = st.one_of(st.none(), st.none(), st.lists(st.integers(1, 6), max_size=2, unique=True))
    expected = draw(tail)
    return Change(
        app=APP,
        id=draw(st.one_of(ids, ids, ids, ids, st.none())),
        op=b"",
        now=0,
        epoch=draw(epochs),
        revision=draw(revisions),
        fence=draw(st.sampled_from([None, None, None, 1])),
        clear=draw(st.integers(0, 5)) == 0,
        session=delta_of(events) if events else draw(deltas()),
        user_tier=draw(deltas()) if not events else None,
        app_tier=draw(deltas()) if not events else None,
        events=events,
        documents=draw(documents),
        truncate_after=draw(st.one_of(st.none(), st.none(), st.integers(0, 5))),
        expect_tail=None if expected is None else tuple(sorted(expected)),
        user=draw(st.sampled_from([None, None, None, "u1", "u2"])),
        labels=draw(
            st.one_of(
                st.none(),
                st.none(),
                st.dictionaries(st.sampled_from(["l", "m"]), st.sampled_from([None, "1", "2"])),
            )
        ),
        move=draw(moves),
        expired=draw(st.sampled_from(["refuse", "refuse", "refuse", "allow", "require"])),
    )


@st.composite
def headers(draw: Any) -> Header:
    exclusive = draw(st.integers(0, 3)) == 0
    return Header(
        app=APP,
        id=draw(ids),
        epoch=draw(st.sampled_from(["e1", "e2"])),
        user=draw(st.sampled_from([None, "u1"])),
        created_at=0,
        active_at=0,
        idle=draw(st.sampled_from([None, None, None, 20])),
        parent=draw(st.one_of(st.none(), st.none(), ids)),
        labels={"role": "one"} if exclusive else draw(st.sampled_from([{}, {"l": "1"}])),
        exclusive=("role",) if exclusive else (),
    )


creates = st.builds(
    Create,
    header=headers(),
    op=st.just(b""),
    session=deltas(),
    user_tier=deltas(),
    events=st.lists(drafts(), max_size=2).map(tuple),
)
forks = st.builds(
    Fork,
    header=headers().map(lambda header: msgspec.structs.replace(header, exclusive=())),
    op=st.just(b""),
    source=ids,
    at=st.one_of(st.none(), st.integers(0, 5)),
)
touches = st.builds(Touch, app=st.just(APP), id=ids, now=st.just(0), epoch=epochs)
acquires = st.builds(
    Acquire,
    app=st.just(APP),
    id=ids,
    holder=st.sampled_from("hi"),
    now=st.just(0),
    until=st.just(0),
)
renews = st.builds(
    Renew,
    app=st.just(APP),
    id=ids,
    token=st.integers(1, 2),
    holder=st.sampled_from("hi"),
    now=st.just(0),
    until=st.sampled_from([None, 60]),
)
deletes = st.builds(
    Delete, app=st.just(APP), id=ids, now=st.just(0), epoch=epochs, revision=revisions
)
operations = st.one_of(
    creates, changes(), changes(), changes(), forks, touches, acquires, renews, deletes
)
steps = st.tuples(operations, st.integers(0, 3), st.one_of(st.none(), st.none(), st.integers(0, 9)))
"""An operation, how much later it comes, and which earlier one comes again behind it."""
batches = st.lists(
    st.tuples(st.integers(0, 1), st.lists(steps, min_size=1, max_size=6)), min_size=1, max_size=8
)
"""Who writes (one of two processes), and what."""


class Oracle:
    """The memory store, one operation after the other."""

    def __init__(self) -> None:
        self.vault = Vault()

    def outcome(self, operation: Any) -> Any:
        verbs: dict[type, Any] = {
            Create: self.vault.create,
            Change: self.vault.commit,
            Fork: self.vault.fork,
            Touch: self.vault.touch,
            Acquire: self.vault.acquire,
            Renew: self.vault.renew,
            Delete: lambda delete: bool(self.vault.delete(delete)),
        }
        try:
            return verbs[type(operation)](operation)
        except SojournError as error:
            return error


def timed(operation: Any, now: int, op: bytes) -> Any:
    """Return an operation at an instant, with an id of its own."""
    if isinstance(operation, Create | Fork):
        header = msgspec.structs.replace(
            operation.header,
            created_at=now,
            active_at=now,
            expires_at=None if operation.header.idle is None else now + operation.header.idle,
            due_at=None if operation.header.idle is None else now + operation.header.idle,
        )
        return msgspec.structs.replace(operation, header=header, op=op)
    if isinstance(operation, Change):
        return msgspec.structs.replace(operation, now=now, op=op)
    if isinstance(operation, Acquire):
        return msgspec.structs.replace(operation, now=now, until=now + 10)
    return msgspec.structs.replace(operation, now=now)


def same_outcome(found: Any, expected: Any) -> None:
    if isinstance(expected, SojournError):
        assert isinstance(found, SojournError), (found, expected)
        assert told(found) == told(expected)
    else:
        assert found == expected


def same_state(store: PlannedStore, vault: Vault) -> None:
    everything = EventQuery()
    for id in IDS:
        record = vault.get(Get(app=APP, id=id, now=0, window=everything, expired=True))
        kept = store.sessions.get((APP, id))
        assert (record is None) == (kept is None)
        if record is None or kept is None or kept.loaded is None:
            continue
        assert kept.loaded.header == record.header
        state = msgspec.json.decode(kept.loaded.state)
        assert state == {name: msgspec.json.decode(raw) for name, raw in record.state.items()}
        assert tuple(kept.log) == record.entries
        slot = vault._slots[APP, id]
        expected = list(slot.documents.everything()) if slot.documents else []
        found = [without_place(item) for item in kept.documents.values()]
        assert sorted(found, key=lambda item: item.key) == sorted(
            map(without_place, expected), key=lambda item: item.key
        )
    for user in (None, "u1", "u2"):
        shared = vault._tiers.get((APP, user))
        text = b"{}" if shared is None else shared.text
        tier = store.tiers.get((APP, user), {})
        assert msgspec.json.decode(text) == {
            name: msgspec.json.decode(value) for name, value in tier.items()
        }
    assert store.claims == vault._claims
    store.check_counts()


@scaled
# Without shrinking: it takes minutes, and the batches can be read as they are.
@settings(max_examples=count(40, 5_000), deadline=None, phases=[Stage.reuse, Stage.generate])
@given(batches)
def test_plans_lead_where_the_memory_store_goes(written: list[tuple[int, list[Any]]]) -> None:
    store, oracle = PlannedStore(), Oracle()
    processes = (Process(store), Process(store))
    earlier: list[Any] = []
    numbers = itertools.count(1)
    now = 10
    for who, drawn in written:
        batch = []
        for operation, later, again in drawn:
            now += later
            batch.append(timed(operation, now, next(numbers).to_bytes(8, "big")))
            if again is not None and again < len(earlier):
                batch.append(earlier[-1 - again])
        for operation, found in processes[who].run(batch):
            same_outcome(found, oracle.outcome(operation))
            if isinstance(operation, Change | Create):
                earlier.append(operation)
        same_state(store, oracle.vault)


# --- single decisions ---------------------------------------------------------------------------


def made(store: PlannedStore, id: str, **facts: Any) -> None:
    """Create a session straight away."""
    header = Header(app=APP, id=id, epoch="e1", created_at=0, active_at=0, **facts)
    (_, outcome), *rest = Process(store).run([Create(header=header, op=id.encode() * 8)])
    assert not rest
    assert not isinstance(outcome, SojournError), outcome


def change(id: str | None, **parts: Any) -> Change:
    op = parts.pop("op", b"operate!")
    return Change(app=APP, id=id, op=op, now=parts.pop("now", 1), **parts)


def fresh(body: str = "1") -> tuple[Draft, ...]:
    return (Draft(id="new", kind="note", author=None, at=1, body=body, fresh=True),)


def known_of(store: PlannedStore, *ids: str) -> Known:
    known = Known()
    for id in ids:
        kept = store.sessions.get((APP, id))
        known.read((APP, id), kept.loaded if kept else None)
    return known


def test_a_fresh_event_of_a_known_session_needs_no_read() -> None:
    store = PlannedStore()
    made(store, "a")
    known = Known()
    loaded = store.sessions[APP, "a"].loaded
    assert loaded is not None
    known.recall((APP, "a"), loaded)
    found = plan([change("a", events=fresh())], known, Weighing(), durability="durable")
    assert not found.reads
    assert [entry.seq for unit in found.units for entry in unit.entries] == [1]
    assert found.outcomes[0].durability == "durable"


def test_everything_a_change_needs_is_read_in_one_go() -> None:
    event = Draft(id="ev", kind="note", author=None, at=1, body="1")
    asked = change("a", events=(event,), expect_tail=(1, 2), truncate_after=1)
    reads = plan([asked], Known(), Weighing(), durability="memory").reads
    assert reads.sessions == {(APP, "a")}
    assert len(reads.events) == len(reads.tails) == len(reads.peaks) == 1


def test_nothing_is_refused_on_what_is_only_remembered() -> None:
    store = PlannedStore()
    made(store, "a")
    old = store.sessions[APP, "a"].loaded
    assert old is not None
    Process(store).run([change("a")])
    known = Known()
    known.recall((APP, "a"), old)
    asked = [change("a", revision=2, epoch="e1", op=b"12345678")]
    assert plan(asked, known, Weighing(), durability="memory").reads.sessions == {(APP, "a")}
    store.read(plan(asked, known, Weighing(), durability="memory").reads, known)
    found = plan(asked, known, Weighing(), durability="memory")
    assert not isinstance(found.outcomes[0], SojournError)


def test_what_is_remembered_wrongly_is_read_again_when_it_is_written() -> None:
    store = PlannedStore()
    made(store, "a")
    one, other = Process(store), Process(store)
    one.run([change("a", events=fresh())])
    other.run([change("a", events=fresh("2"), op=b"87654321")])
    one.run([change("a", events=fresh("3"), op=b"abcdefgh")])
    assert [entry.seq for entry in store.sessions[APP, "a"].log] == [1, 2, 3]


def test_operations_on_one_session_become_one_unit() -> None:
    store = PlannedStore()
    made(store, "a")
    asked = [change("a", events=fresh(str(n)), op=bytes([n]) * 8) for n in range(40)]
    found = plan(asked, known_of(store, "a"), Weighing(), durability="memory")
    (unit,) = found.units
    assert unit.operations == list(range(40))
    assert unit.header is not None
    assert unit.header.revision == 41


def test_what_is_planned_on_a_plan_that_failed_is_not_let_through() -> None:
    """Two are made on the same session. One is written; on the other one, a third was made."""
    store = PlannedStore()
    made(store, "a")
    one, other = Process(store), Process(store)
    known, refused = known_of(store, "a"), Known()
    (unit,) = plan([change("a", events=fresh())], known, Weighing(), durability="memory").units
    foreseen = unit.written(None)
    assert foreseen is not None
    refused.recall((APP, "a"), foreseen)
    other.run([change("a", events=fresh("2"), op=b"87654321")])
    again = [change("a", events=fresh("3"), op=b"abcdefgh")]
    (third,) = plan(again, refused, Weighing(), durability="memory").units
    assert third.old is foreseen
    assert not store.apply(third)
    one.run([change("a", events=fresh("3"), op=b"abcdefgh")])
    assert [entry.seq for entry in store.sessions[APP, "a"].log] == [1, 2]


def test_a_refused_operation_leaves_its_neighbours_alone() -> None:
    store = PlannedStore()
    made(store, "a")
    asked = [
        change("a"),
        change("a", revision=9, epoch="e1", op=b"x" * 8),
        change("a", op=b"y" * 8),
    ]
    found = plan(asked, known_of(store, "a"), Weighing(), durability="memory")
    assert [isinstance(one, Conflict) for one in found.outcomes] == [False, True, False]
    assert found.units[0].operations == [0, 1, 2], "it was refused on what is not written yet"


def test_what_needs_the_effects_of_others_comes_later() -> None:
    store = PlannedStore()
    made(store, "a")
    header = Header(app=APP, id="f", epoch="e1", created_at=1, active_at=1)
    asked: list[Operation] = [change("a"), Fork(header=header, op=b"forkfork", source="a")]
    known = known_of(store, "a", "f")
    known.deltas[APP, "a"] = ()
    assert plan(asked, known, Weighing(), durability="memory").later == [1]
    done = Process(store).run(asked)
    assert store.sessions[APP, "f"].loaded is not None
    assert [type(operation) for operation, _ in done] == [Change, Fork]


def test_a_child_is_guarded_by_its_parent_and_no_more() -> None:
    """A parent that is used meanwhile does not hold up its children; one that ends does."""
    store = PlannedStore()
    made(store, "a")
    header = Header(app=APP, id="b", epoch="e1", created_at=1, active_at=1, parent="a")
    create = Create(header=header, op=b"childish")
    (unit,) = plan([create], known_of(store, "a", "b"), Weighing(), durability="memory").units
    Process(store).run([change("a")])
    assert store._guards_hold(unit)
    Process(store).run([change("a", move=Move(trigger=Trigger.END), op=b"theendis")])
    kept = store.sessions[APP, "a"].loaded
    assert kept is not None
    assert kept.header.phase is Phase.ENDING
    assert not store._guards_hold(unit)


def test_a_shared_tier_stays_in_bounds_whatever_comes_together() -> None:
    store = PlannedStore()
    half = msgspec.Raw(b'"' + b"x" * (MAX_STATE // 2) + b'"')
    first = change(None, app_tier=TierDelta({"a": half}))
    again = change(None, app_tier=TierDelta({"a": half}), op=b"a" * 8)
    over = change(None, app_tier=TierDelta({"b": half}), op=b"b" * 8)
    outcomes = [outcome for _, outcome in Process(store).run([first, again, over])]
    assert [isinstance(one, TooLarge) for one in outcomes] == [False, False, True]
    ((_, outcome),) = Process(store).run([over])
    assert isinstance(outcome, TooLarge)


def test_recent_keeps_to_its_bounds() -> None:
    recent = Recent(sessions=3, size=100)
    header = Header(app=APP, id="a", epoch="e1", created_at=0, active_at=0)
    for number in range(5):
        recent.keep((APP, str(number)), Loaded(header, b"x" * 30, 1))
    assert len(recent) == 3
    assert recent.get((APP, "1")) is None
    recent.keep((APP, "4"), Loaded(header, b"y" * 90, 2))
    assert recent.get((APP, "4")) == Loaded(header, b"y" * 90, 2)
    assert len(recent) == 1
    recent.drop((APP, "4"))
    recent.keep((APP, "5"), Loaded(header, b"x" * 100, 1))
    assert len(recent) == 1
    recent.keep((APP, "6"), Loaded(header, b"x" * 100_000, 1))
    assert recent.get((APP, "6")) is None
    recent.clear()
    assert len(recent) == 0


def test_versions_are_drawn_each_for_itself() -> None:
    versions = [*versions_drawn(500), *versions_drawn(500)]
    assert len(set(versions)) == 1_000
    assert all(0 <= version < 2**VERSION_BITS for version in versions)
    assert max(versions).bit_length() == VERSION_BITS
    assert versions_drawn(0) == []
