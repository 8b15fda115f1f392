"""The verbs do what the async ones do, with the same errors, on both stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sojourn import (
    AlreadyExists,
    Closed,
    Conflict,
    Event,
    Expiry,
    InvalidQuery,
    LeaseHeld,
    LeaseLost,
    NotFound,
    Phase,
    Trigger,
    Unavailable,
    Unserializable,
    current_session,
)
from sojourn import lease as async_lease
from sojourn.blocking import Reaper, SessionManager
from sojourn.history import LastMessages, RollingSummary
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SqliteStore
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_session_lives_its_life(sessions: SessionManager) -> None:
    s = sessions.create(user="u-1", state={"cart": [], "app:motd": "hi"})
    s.state["cart"] = ["tea"]
    s.state["user:theme"] = "dark"
    sessions.save(s)
    sessions.append(s, Event(kind="message", body={"text": "hi"}), state={"turn": 1})
    again = sessions.require(s.id, user="u-1", events=5)
    assert dict(again.state) == {
        "cart": ["tea"], "turn": 1, "user:theme": "dark", "app:motd": "hi",
    }  # fmt: skip
    assert [event.seq for event in again.events] == [1]
    assert sessions.user_state("u-1") == {"theme": "dark"}
    sessions.share({"app:motd": "bye"})
    assert sessions.app_state() == {"motd": "bye"}
    assert sessions.count(user="u-1") == 1
    assert [found.id for found in sessions.list(user="u-1").items] == [s.id]
    sessions.replace_suffix(s, expected=[1], events=[Event(kind="message"), Event(kind="note")])
    assert [event.kind for event in sessions.events(s.id, kind="note")] == ["note"]
    copy = sessions.fork(s.id, at=2)
    assert copy.forked_from == s.id
    sessions.truncate(copy, after=0)
    assert sessions.events(copy.id) == []
    assert sessions.end(s.id, reason="done")
    assert sessions.get(s.id) is None
    assert sessions.forget("u-1") == 1
    assert not sessions.delete(s.id)


def test_a_new_session_is_stored_when_it_is_saved(sessions: SessionManager) -> None:
    s = sessions.new(state={"a": 1})
    assert sessions.get(s.id) is None
    sessions.save(s)
    assert sessions.refresh(s).state["a"] == 1
    assert sessions.get_or_create(s.id).epoch == s.epoch
    sessions.bind(s, "u-1")
    sessions.label(s, {"channel": "web"})
    assert sessions.touch(s).user == "u-1"
    assert sessions.heartbeat(s.id) == sessions.require(s.id).active_at
    assert sessions.now() > 0
    mine = sessions.get_or_create(key="desk")
    found = sessions.find(key="desk")
    assert found is not None
    assert found.id == mine.id


def test_phases_move(sessions: SessionManager) -> None:
    s = sessions.create(lifecycle="agent")
    assert sessions.apply(s.id, Trigger.SPAWN) is Phase.SPAWNING
    assert sessions.apply(s.id, Trigger.TERMINATE, reason="enough") is Phase.TERMINATING
    assert sessions.finish(s.id)


def test_errors_are_the_same(sessions: SessionManager) -> None:
    s = sessions.create(id="s-1", state={"n": 1})
    with pytest.raises(AlreadyExists):
        sessions.create(id="s-1")
    other = sessions.require("s-1")
    sessions.append(other, Event(kind="k"))
    s.state["n"] = 2
    with pytest.raises(Conflict):
        sessions.save(s, conflict="fail")
    s.state["n"] = object()
    with pytest.raises(Unserializable, match=r"state\.n"):
        sessions.save(s)
    with pytest.raises(NotFound):
        sessions.require("nobody")
    with pytest.raises(InvalidQuery):
        sessions.events("s-1", last=-1)
    with pytest.raises(InvalidQuery):
        sessions.watch("s-1", after=-1)
    with pytest.raises(InvalidQuery):
        sessions.history(7)  # type: ignore[arg-type]  # what a caller without types gives


def test_collaborators_are_checked_at_once() -> None:
    with pytest.raises(InvalidQuery, match="store"):
        SessionManager(None)  # type: ignore[arg-type]  # what a caller without types gives
    with pytest.raises(InvalidQuery, match="clock"):
        SessionManager.open("memory://", clock=7)
    with pytest.raises(InvalidQuery, match="cleaners"):
        SessionManager.open("memory://", cleaners=[7])
    with pytest.raises(InvalidQuery, match="scheme"):
        SessionManager.open("nosuch://")
    with pytest.raises(TypeError, match="colour"):
        SessionManager.open("memory://", colour="red")
    with pytest.raises(InvalidQuery, match=r"sojourn\.blocking\.SessionManager"):
        Reaper(object())  # type: ignore[arg-type]  # what a caller without types gives
    with SessionManager.open("memory://", app="shop") as sessions:
        assert sessions.app == "shop"
        with pytest.raises(InvalidQuery, match="batch"):
            Reaper(sessions, batch=0)


def test_the_first_call_opens_the_store(url: str) -> None:
    """For a program that keeps its manager in a module and has no body to put a `with` around."""
    sessions = SessionManager.open(url)
    s = sessions.create()
    assert sessions.get(s.id) is not None
    sessions.close()
    sessions.close()
    with pytest.raises(Closed):
        sessions.get(s.id)
    with pytest.raises(Closed), sessions:
        pass


def test_a_store_that_cannot_be_opened_says_why_each_time(tmp_path: Path) -> None:
    sessions = SessionManager.open(f"sqlite:///{tmp_path}/missing/s.db")
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not exist"):
            sessions.count()
    (tmp_path / "missing").mkdir()
    assert sessions.count() == 0
    sessions.close()


def test_closed_before_the_first_call_is_closed() -> None:
    sessions = SessionManager.open("memory://")
    sessions.close()
    with pytest.raises(Closed):
        sessions.count()


def test_a_given_store_is_left_open() -> None:
    store = MemoryStore()
    with SessionManager(store, app="a") as first:
        s = first.create()
    with SessionManager(store, app="a") as second:
        assert second.get(s.id) is not None


def test_a_given_store_is_opened_and_closed_through_the_manager(tmp_path: Path) -> None:
    with SessionManager(SqliteStore(tmp_path / "s.db")) as sessions:
        with pytest.raises(Closed, match="not open yet"):
            sessions.count()
        sessions.store.open()
        assert sessions.count() == 0
        sessions.store.close()
        with pytest.raises(Closed):
            sessions.count()


def test_a_file_is_copied_and_checked(tmp_path: Path) -> None:
    with SessionManager.open(f"sqlite:///{tmp_path}/s.db") as sessions:
        s = sessions.create()
        assert sessions.store.name.endswith("s.db")
        sessions.store.backup(str(tmp_path / "copy.db"))
        assert list(sessions.store.check()) == []
    with SessionManager.open(f"sqlite:///{tmp_path}/copy.db") as sessions:
        assert sessions.get(s.id) is not None


def test_a_store_that_cannot_be_copied_says_so() -> None:
    with (
        SessionManager.open("memory://") as sessions,
        pytest.raises(Unavailable, match="neither"),
    ):
        sessions.store.backup("copy.db")


# ------------------------------------------------------------------------------- what is handed out


def test_documents(sessions: SessionManager) -> None:
    s = sessions.create()
    documents = sessions.documents(s.id)
    documents.put("notes", "one", b"text", content_type="text/plain")
    found = documents.get("notes", "one")
    assert found is not None
    assert found.body == b"text"
    assert [document.key for document in documents.list("notes")] == ["one"]
    documents.drop("notes")
    assert documents.get("notes", "one") is None
    sessions.documents().put("app", "one", b"")
    assert len(sessions.documents().list("app")) == 1


def test_history(sessions: SessionManager) -> None:
    history = sessions.history(sessions.create().id)
    for number in range(3):
        history.append({"role": "user", "content": str(number)})
    assert [message["content"] for message in history.load(last=2)] == ["1", "2"]
    assert len(history.load(LastMessages(1))) == 1
    assert history.summary() is None
    made = history.compact(RollingSummary(lambda _before, some: f"{len(some)}", keep=1))
    assert made is not None
    assert history.summary() == made
    history.clear()
    assert history.load() == []


def test_checkpoints(sessions: SessionManager) -> None:
    checkpoints = sessions.checkpoints(sessions.create().id)
    first = checkpoints.save(b"one")
    second = checkpoints.save(b"two", parent=first)
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.id, latest.body) == (second.id, b"two")
    assert [found.id for found in checkpoints.list()] == [second.id, first.id]
    assert [found.id for found in checkpoints.lineage(second)] == [second.id, first.id]
    assert b"".join(checkpoints.stream(first)) == b"one"
    found = checkpoints.get(first.id)
    assert found is not None
    assert found.body == b"one"
    forked = sessions.checkpoints(checkpoints.fork(first)).latest()
    assert forked is not None
    assert forked.body == b"one"
    assert checkpoints.delete(second) == 1
    assert checkpoints.prune(keep=0).removed == 1


def test_a_checkpoint_is_saved_piece_by_piece(sessions: SessionManager, tmp_path: Path) -> None:
    """The pieces come from an iterator that blocks: it is not asked in the loop."""
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 4096)
    checkpoints = sessions.checkpoints(sessions.create().id)
    with path.open("rb") as file:
        saved = checkpoints.save(iter(lambda: file.read(100_000), b""))
    assert saved.size == 256 * 4096
    assert b"".join(checkpoints.stream(saved)) == path.read_bytes()
    for wrong in ("text", 7):
        with pytest.raises(Unserializable):
            checkpoints.save(wrong)  # type: ignore[arg-type]  # what a caller without types gives


def test_a_failing_source_fails_the_checkpoint(sessions: SessionManager) -> None:
    checkpoints = sessions.checkpoints(sessions.create().id)

    def pieces() -> object:
        yield b"1"
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        checkpoints.save(pieces())  # type: ignore[arg-type]  # a generator of no known type
    assert checkpoints.latest() is None


# ---------------------------------------------------------------------------------- leases, reaping


def test_a_lease_is_held_and_fences(sessions: SessionManager) -> None:
    s = sessions.create()
    with sessions.lease(s.id) as lease:
        assert (lease.id, lease.epoch, lease.lost) == (s.id, s.epoch, False)
        lease.renew()
        sessions.append(s, Event(kind="work"), lease=lease)
        with pytest.raises(LeaseHeld), sessions.lease(s.id):
            pass
        lease.release()
        with pytest.raises(LeaseLost):
            sessions.append(s, Event(kind="work"), lease=lease)
    assert repr(lease).startswith("<Lease of")
    with sessions.lease(s.id) as second:
        assert second.token > lease.token


def test_a_lease_of_the_async_face_is_refused(sessions: SessionManager) -> None:
    s = sessions.create()
    stray = async_lease.Lease.__new__(async_lease.Lease)
    with pytest.raises(InvalidQuery, match="lease"):
        sessions.append(s, Event(kind="k"), lease=stray)  # type: ignore[arg-type]  # the mistake


def test_the_reaper_sweeps(url: str) -> None:
    clock = FakeClock()
    with SessionManager.open(url, clock=clock) as sessions:
        for _ in range(5):
            sessions.create(expiry=Expiry(idle=10))
        clock.advance(10)
        seen: list[int] = []
        reaper = Reaper(sessions, batch=2)
        assert reaper.sweep(progress=seen.append) == 5
        assert sum(seen) == 5
        assert reaper.sweep() == 0


def test_the_reaper_sweeps_by_itself(sessions: SessionManager) -> None:
    s = sessions.create()
    s.state["x"] = 1
    with Reaper(sessions, interval=3600) as reaper:
        sessions.save(s)
        reaper.stop()
        reaper.stop()
    assert current_session() is None


def test_documents_are_those_of_a_copy_too(sessions: SessionManager) -> None:
    s = sessions.create()
    sessions.documents(s).put("notes", "one", b"text")
    assert [found.key for found in sessions.documents(s.id).list("notes")] == ["one"]
    s.state["n"] = 1
    sessions.save(s, conflict="fail")
    with pytest.raises(InvalidQuery, match="session: give a Session, an id, or None"):
        sessions.documents(7)  # type: ignore[arg-type]  # the mistake under test
