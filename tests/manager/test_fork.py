"""Forks: a copy of a session as of an event, which then goes its own way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.manager.watched_store import watched

from sojourn import (
    DELETE,
    AlreadyExists,
    Event,
    Expiry,
    InvalidId,
    InvalidQuery,
    NotFound,
    Phase,
    RoleTaken,
    Session,
    SessionManager,
    Trigger,
)
from sojourn.testing.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.manager.watched_store import When

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


def delta(**changes: Any) -> Event:
    return Event(kind="step", delta=changes)


async def a_source(sessions: SessionManager) -> Session:
    """Create `s1` with six events and every kind of key; event 3 is where forks cut it.

    Each key says what an event did to it before the cut and after: `set_set`, `none_set`, ...
    """
    source = await sessions.create(
        id="s1",
        user="u1",
        labels={"room": "blue"},
        state={"none_none": "start", "none_set": "start", "none_drop": "start", "drop_set": 0},
    )
    everything = [
        delta(set_set="first", set_none="before", set_drop="before"),
        delta(set_set="before", drop_set=DELETE, drop_none="gone soon"),
        delta(drop_none=DELETE, **{"user:theme": "old", "app:motd": "old"}),
        delta(set_set="after", none_set="after", set_drop=DELETE),
        delta(drop_set="after", none_drop=DELETE, **{"user:theme": "new", "app:motd": "new"}),
        Event(kind="step", body="no delta"),
    ]
    await sessions.append(source, *everything)
    source.state["saved"] = {"nested": [1]}
    await sessions.save(source)
    return source


# ---------------------------------------------------------------------------------------- the whole


async def test_a_fork_without_a_point_is_the_whole_session(opened: Opener) -> None:
    """Events with their numbers, state, user, labels; a new identity and a revision of its own."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        source = await a_source(sessions)
        clock.advance(5)
        fork = await sessions.fork("s1")
        assert fork.id != source.id
        assert (fork.epoch == source.epoch, fork.revision) == (False, 1)
        assert (fork.user, dict(fork.labels)) == ("u1", {"room": "blue"})
        assert dict(fork.state) == dict(source.state)
        assert (fork.forked_from, source.forked_from) == ("s1", None)
        assert (fork.created_at - source.created_at).total_seconds() == 5
        assert await sessions.events(fork.id) == await sessions.events("s1")
        assert (await sessions.require(fork.id)).forked_from == "s1"
        assert await sessions.count(user="u1") == 2


async def test_a_fork_leaves_its_source_alone(opened: Opener) -> None:
    """Forking is a read of the source: header and log stay as they are."""
    async with opened() as sessions:
        await a_source(sessions)
        before, log = await sessions.require("s1"), await sessions.events("s1")
        await sessions.fork("s1", at=3)
        after = await sessions.require("s1")
        assert after.header == before.header
        assert dict(after.state) == dict(before.state)
        assert await sessions.events("s1") == log


# ----------------------------------------------------------------------------------- as of an event


@pytest.mark.parametrize("at", range(8))
async def test_events_up_to_the_point_come_along_with_their_numbers(
    opened: Opener, at: int
) -> None:
    """Those up to `at`, none behind it; the next event of the fork gets the number after them."""
    async with opened() as sessions:
        await a_source(sessions)
        fork = await sessions.fork("s1", at=at)
        taken = min(at, 6)
        assert await sessions.events(fork.id) == (await sessions.events("s1"))[:taken]
        added = await sessions.append(fork, Event(kind="new"))
        assert added.seq == taken + 1


async def test_state_goes_back_key_by_key(opened: Opener) -> None:
    """A key whose last delta lies behind the point gets its last one before it, or is removed."""
    async with opened() as sessions:
        await a_source(sessions)
        fork = await sessions.fork("s1", at=3)
        own = {k: v for k, v in fork.state.items() if ":" not in k}
        assert own == {
            "none_none": "start",  # no event touched it: as now
            "saved": {"nested": [1]},  # saved without an event, later: as now
            "set_none": "before",  # its last delta lies before the point: as now
            "set_set": "before",  # back to its last delta before the point
            "set_drop": "before",  # removed later: back
            # "none_set" and "none_drop": first touched later, nothing to go back to: removed
            # "drop_set": its last delta before the point removed it
            # "drop_none": removed before the point and not touched since
        }


async def test_shared_state_is_not_rewound(opened: Opener) -> None:
    """`user:` and `app:` keys are everybody's: a fork sees them as they are now."""
    async with opened() as sessions:
        await a_source(sessions)
        fork = await sessions.fork("s1", at=3)
        assert (fork.state["user:theme"], fork.state["app:motd"]) == ("new", "new")


async def test_documents_put_by_then_come_along(opened: Opener) -> None:
    """Each document notes the log's last number when it was put: up to `at` they are copied."""
    async with opened() as sessions:
        source = await sessions.create(id="s1")
        documents = sessions.documents("s1")
        for number in range(4):
            await documents.put("c", f"k{number}", b"%d" % number, content_type="text/plain")
            await sessions.append(source, Event(kind="step"))
        await documents.put("c", "k1", b"newer")
        for at, keys in ((0, ["k0"]), (2, ["k0", "k2"]), (None, ["k0", "k1", "k2", "k3"])):
            fork = await sessions.fork("s1", at=at)
            copied = sessions.documents(fork.id)
            assert [document.key for document in await copied.list("c")] == keys
            assert await copied.get("c", "k0") == await documents.get("c", "k0")


async def test_a_point_in_a_truncated_stretch(opened: Opener) -> None:
    """Numbers that were cut off are not there to copy, and the fork does not use them again."""
    async with opened() as sessions:
        source = await a_source(sessions)
        await sessions.truncate(source, after=2)
        await sessions.append(source, Event(kind="late"))
        fork = await sessions.fork("s1", at=5)
        assert [event.seq for event in await sessions.events(fork.id)] == [1, 2]
        assert (await sessions.append(fork, Event(kind="new"))).seq == 6


# -------------------------------------------------------------------------------- what stays behind


async def test_an_exclusive_claim_stays_with_the_source(opened: Opener) -> None:
    """The fork has the labels but not the role: it neither takes it, nor keeps it, nor frees it."""
    role: dict[str, Any] = {"labels": {"role": "coder"}, "exclusive": ("role",)}
    async with opened() as sessions:
        await sessions.create(id="s1", **role)
        fork = await sessions.fork("s1")
        assert dict(fork.labels) == {"role": "coder"}
        await sessions.delete(fork.id)
        with pytest.raises(RoleTaken) as refused:
            await sessions.create(**role)
        assert refused.value.holder == "s1"
        fork = await sessions.fork("s1")
        await sessions.delete("s1")
        await sessions.create(**role)
        await sessions.label(fork, {"role": "critic"})
        assert await sessions.count(labels={"role": "critic"}) == 1


async def test_the_parent_stays_behind(opened: Opener) -> None:
    """The fork of a child is nobody's child: it outlives the parent. Children are not copied."""
    async with opened() as sessions:
        await sessions.create(id="parent")
        await sessions.create(id="s1", parent="parent", state={"k": 1})
        await sessions.create(id="grandchild", parent="s1")
        fork = await sessions.fork("s1")
        assert fork.parent is None
        assert await sessions.count(parent=fork.id) == 0
        await sessions.delete("parent")
        assert (await sessions.require(fork.id)).state["k"] == 1
        assert await sessions.count() == 1


async def test_a_fork_starts_its_life_anew(opened: Opener) -> None:
    """The preset comes along, phase, reason and lease do not."""
    async with opened() as sessions:
        await sessions.create(id="s1", lifecycle="agent")
        await sessions.apply("s1", Trigger.SPAWN, reason="go")
        async with sessions.lease("s1"):
            fork = await sessions.fork("s1")
            assert (fork.lifecycle, fork.phase, fork.reason) == ("agent", Phase.CREATED, None)
            async with sessions.lease(fork.id):
                pass


async def test_a_fork_expires_by_its_own_policy(opened: Opener) -> None:
    """The manager's default, or the one that is given; not what was left of the source's."""
    clock = FakeClock()
    async with opened(clock=clock, expiry=Expiry(idle=1_000)) as sessions:
        await sessions.create(id="s1", expiry=Expiry(absolute=100))
        clock.advance(50)
        by_default = await sessions.fork("s1")
        given = await sessions.fork("s1", expiry=Expiry(idle=7))
        for fork, seconds in ((by_default, 1_000), (given, 7)):
            assert fork.expires_at is not None
            assert (fork.expires_at - fork.created_at).total_seconds() == seconds


# -------------------------------------------------------------------------------------- its own way


async def test_fork_and_source_diverge(opened: Opener) -> None:
    """State, events and documents written to one are not seen in the other, nor is a removal."""
    async with opened() as sessions:
        source = await a_source(sessions)
        await sessions.documents("s1").put("c", "k", b"both")
        fork = await sessions.fork("s1")
        for session, name in ((source, "source"), (fork, "fork")):
            session.state["saved"]["nested"].append(name)
            await sessions.save(session)
            event = await sessions.append(session, Event(kind="step", body=name))
            assert event.seq == 7
            await sessions.documents(session.id).put("c", "k", name.encode())
        for id, name in (("s1", "source"), (fork.id, "fork")):
            found = await sessions.require(id, events=1)
            assert found.state["saved"] == {"nested": [1, name]}
            assert found.events[-1].body == name
            document = await sessions.documents(id).get("c", "k")
            assert document is not None
            assert document.body == name.encode()
        await sessions.delete("s1")
        assert len(await sessions.events(fork.id)) == 7
        assert await sessions.documents(fork.id).get("c", "k") is not None


async def test_a_fork_can_be_forked(opened: Opener) -> None:
    """It is a session as any other: the same rules, and it is what its fork was forked from."""
    async with opened() as sessions:
        await a_source(sessions)
        fork = await sessions.fork("s1", at=4, new_id="f1")
        await sessions.append(fork, delta(set_set="fork"))
        second = await sessions.fork("f1", at=4)
        assert second.forked_from == "f1"
        assert [event.seq for event in await sessions.events(second.id)] == [1, 2, 3, 4]
        assert second.state["set_set"] == "after"
        third = await sessions.fork(second.id, at=2)
        assert third.state["set_set"] == "before"
        assert third.state["drop_none"] == "gone soon"


async def test_a_fork_amid_appends_is_a_whole_prefix(opened: Opener) -> None:
    """Whatever is committed meanwhile, the copy is the log as of one moment, without gaps."""
    async with opened() as sessions:
        await sessions.create(id="s1")

        async def write() -> None:
            for number in range(10):
                await sessions.append("s1", delta(n=number))

        async def fork() -> int:
            copy = await sessions.fork("s1")
            seqs = [event.seq for event in await sessions.events(copy.id)]
            assert seqs == list(range(1, len(seqs) + 1))
            last = await sessions.events(copy.id, last=1)
            assert [event.delta["n"] for event in last] == [copy.state["n"]][: len(last)]
            return len(seqs)

        await sessions.append("s1", delta(n=-1))
        await asyncio.gather(write(), write(), *(fork() for _ in range(8)))


# ---------------------------------------------------------------------------------- what is refused


async def test_a_fork_may_be_given_its_id(opened: Opener) -> None:
    """Verbatim; one that is taken, the source's own too, is `AlreadyExists` and stays as it is."""
    async with opened() as sessions:
        await a_source(sessions)
        await sessions.create(id="taken", state={"k": 1})
        assert (await sessions.fork("s1", new_id="mine")).id == "mine"
        for id in ("taken", "s1", "mine"):
            with pytest.raises(AlreadyExists):
                await sessions.fork("s1", new_id=id, at=1)
        assert dict((await sessions.require("taken")).state)["k"] == 1
        assert len(await sessions.events("mine")) == 6
        with pytest.raises(InvalidId):
            await sessions.fork("s1", new_id="")


async def test_a_fork_frees_an_expired_id_as_a_create_does(opened: Opener) -> None:
    """The expired session is finished first, hooks and all; if that fails, the refusal says so."""
    clock, broken = FakeClock(), True
    ended: list[tuple[str, str]] = []
    async with opened(clock=clock) as sessions:

        @sessions.on_end
        async def note(session: Session, reason: str) -> None:
            if broken:
                raise OSError("not now")
            ended.append((session.id, reason))

        await a_source(sessions)
        await sessions.create(id="old", expiry=Expiry(idle=10), state={"k": "old"})
        clock.advance(10)
        with pytest.raises(AlreadyExists, match="its end failed"):
            await sessions.fork("s1", new_id="old")
        broken = False
        fork = await sessions.fork("s1", new_id="old")
        assert ended == [("old", "expired")]
        assert "k" not in fork.state
        assert len(await sessions.events("old")) == 6


async def test_what_is_not_there_can_not_be_forked(opened: Opener) -> None:
    """Unknown, deleted and expired are `NotFound`, and nothing is created."""
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        await sessions.create(id="expired", expiry=Expiry(idle=10))
        await sessions.create(id="deleted")
        await sessions.delete("deleted")
        clock.advance(10)
        for id in ("unknown", "deleted", "expired"):
            with pytest.raises(NotFound):
                await sessions.fork(id, new_id="copy")
        assert await sessions.get("copy") is None


@pytest.mark.parametrize("at", [-1, True, 1.0, "1"])
async def test_the_point_is_the_number_of_an_event(opened: Opener, at: Any) -> None:
    """Anything but a whole number from 0 is `InvalidQuery`, and nothing is created."""
    async with opened() as sessions:
        await sessions.create(id="s1")
        with pytest.raises(InvalidQuery, match="at"):
            await sessions.fork("s1", at=at)
        assert await sessions.count() == 1


@pytest.mark.parametrize("at", [2**28, 2**63, 2**70])
async def test_a_point_beyond_any_log_is_the_whole_session(opened: Opener, at: int) -> None:
    """However large the number."""
    async with opened() as sessions:
        await a_source(sessions)
        await sessions.documents("s1").put("c", "k", b"x")
        fork = await sessions.fork("s1", at=at)
        assert len(await sessions.events(fork.id)) == 6
        assert len(await sessions.documents(fork.id).list("c")) == 1
        assert (await sessions.append(fork, Event(kind="new"))).seq == 7


async def test_a_generated_id_that_is_taken_is_replaced(opened: Opener) -> None:
    """The id source repeats itself: a fork gets the next free id and overwrites nothing."""

    class Repeating:
        def __init__(self) -> None:
            self.made = 0

        def session_id(self) -> str:
            self.made += 1
            return f"id{self.made // 3}"

        def event_id(self) -> str:
            return "e"

        def epoch(self) -> str:
            self.made += 1
            return f"epoch {self.made}"

        def operation(self) -> bytes:
            self.made += 1
            return self.made.to_bytes(8)

    async with opened(ids=Repeating()) as sessions:
        await sessions.create(id="s1", state={"k": "source"})
        for number in range(8):
            await sessions.create(id=f"id{number}", state={"k": "other"})
        fork = await sessions.fork("s1")
        assert fork.state["k"] == "source"
        for number in range(8):
            assert (await sessions.require(f"id{number}")).state["k"] == "other"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["fork", "get"])
async def test_a_fork_that_is_cancelled_leaves_no_copy(url: str, verb: str, when: When) -> None:
    """Nobody would know of it; what was there under that id is another, and stays."""
    async with watched(url) as (sessions, store):
        await a_source(sessions)
        await sessions.create(id="taken")
        for given in (None, "f", "taken"):
            gate = store.hold("fork" if given == "taken" else verb, when)
            forking = asyncio.create_task(sessions.fork("s1", new_id=given))
            if given == "taken" and when == "after":
                with pytest.raises(AlreadyExists):
                    await forking
            else:
                await gate.arrived.wait()
                forking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await forking
            there = {session.id for session in (await sessions.list()).items}
            assert there == {"s1", "taken"}
