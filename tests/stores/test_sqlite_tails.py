"""Tails of logs that a process keeps: always what the file has, for less, and not too many."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn import Event, Expiry, SessionManager
from sojourn.store import Due, Ends, EventQuery
from sojourn.stores.sqlite import connection, tails
from sojourn.stores.sqlite.reader import SHORT_BYTES, Reader
from sojourn.stores.sqlite.windows import TooLong
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Entry

APP, ID, NOW = "default", "s", 0

WINDOWS = (
    EventQuery(last=1),
    EventQuery(last=4),
    EventQuery(last=40, kinds=("message",)),
    EventQuery(last=4, kinds=("message",), after_seq=2),
    Ends(last=4, opening=3, kinds=("message",)),
    Ends(last=4, opening=2),
)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 20), st.sampled_from(["message", "note"])),
        st.tuples(st.just("cut"), st.integers(1, 8), st.none()),
        st.tuples(st.just("state"), st.integers(0, 9), st.none()),
        st.tuples(st.just("anew"), st.integers(0, 5), st.none()),
        st.tuples(st.just("read"), st.integers(0, len(WINDOWS) - 1), st.none()),
    ),
    min_size=4,
    max_size=30,
)


def shown(log: Sequence[Entry], window: EventQuery) -> list[Entry]:
    """Return what a window shows of a whole log."""
    kinds, after, last = window.kinds, window.after_seq or 0, window.last or 0
    fitting = [e for e in log if e.seq > after and (kinds is None or e.kind in kinds)]
    opening = window.opening if isinstance(window, Ends) else 0
    return [*fitting[:-last][:opening], *fitting[-last:]]


async def play(path: Path, program: list[tuple[str, int, Any]]) -> None:
    """Change a log through one of two stores in turn, and read it through both."""
    url = f"sqlite:///{path}"
    async with SessionManager.open(url) as one, SessionManager.open(url) as other:
        await one.create(id=ID)
        for number, (what, count, kind) in enumerate(program):
            acting = (one, other)[number % 2]
            if what == "append":
                await acting.append(ID, *(Event(kind=kind, body=n) for n in range(count)))
            elif what == "cut":
                session = await acting.require(ID)
                await acting.truncate(session, after=max(0, session.header.seq - count))
            elif what == "state":
                session = await acting.require(ID)
                session.state["n"] = count
                await acting.save(session)
            elif what == "anew":
                await acting.delete(ID)
                await acting.create(id=ID, events=[Event(kind="message", id=str(count))])
            log = await one.store.events(APP, ID, NOW, EventQuery())
            assert log is not None
            window = WINDOWS[count % len(WINDOWS)]
            for store in (one.store, other.store):
                found = await store.events(APP, ID, NOW, window)
                assert list(found or ()) == shown(log, window)


@settings(max_examples=30, deadline=None)
@given(steps)
def test_a_tail_is_what_the_file_has(program: list[tuple[str, int, Any]]) -> None:
    """Whoever writes, cuts, or deletes and creates, in this process or beside it."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "s.db", program))


async def filled(path: Path, events: int, size: int = 10) -> None:
    """Make a file with one log."""
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.create(id=ID)
        await sessions.append(ID, *(Event(kind="note", body="x" * size) for _ in range(events)))


class Counted:
    """A reader of a file that counts the steps of SQLite's machine."""

    def __init__(self, path: Path) -> None:
        self._db = connection.connect(str(path), vfs=None, writer=False)
        self._db.set_progress_handler(self._step, 1)
        self._steps = 0
        self.reader = Reader(self._db, short=True)

    def _step(self) -> bool:
        self._steps += 1
        return False

    def steps(self, window: EventQuery) -> int:
        """Return how many steps it takes to read a window."""
        before = self._steps
        found = self.reader.events(APP, ID, NOW, window)
        assert found
        return self._steps - before


async def test_reading_a_tail_again_reads_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await filled(path, 200)
    counted = Counted(path)
    window = EventQuery(last=50)
    first = counted.steps(window)
    assert counted.steps(window) < first / 10
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.append(ID, Event(kind="note"))
    assert counted.steps(window) < first / 4
    counted.reader.close()


async def test_tails_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones used last are kept, and none that is too large."""
    monkeypatch.setattr(tails, "TAILS", 2)
    path = tmp_path / "s.db"
    await filled(path, 200)
    counted = Counted(path)
    first, second, third = (EventQuery(last=last) for last in (40, 41, 42))
    anew = {window: counted.steps(window) for window in (first, second)}
    counted.steps(first)
    counted.steps(third)  # in place of the second
    assert counted.steps(first) < anew[first] / 10
    assert counted.steps(second) == anew[second]
    counted.reader.close()


@pytest.mark.parametrize("how", ["delete", "forget", "reap"])
async def test_of_a_session_that_was_removed_nothing_is_kept(tmp_path: Path, how: str) -> None:
    clock = FakeClock()
    url = f"sqlite:///{tmp_path / 's.db'}"
    async with SessionManager.open(url, clock=clock) as sessions:
        await sessions.create(id=ID, user="ann", expiry=Expiry(absolute=60))
        await sessions.append(ID, Event(kind="note", body="private"))
        await sessions.events(ID, last=5)
        held: Any = sessions.store
        assert held._reader._tails._kept
        if how == "delete":
            await sessions.delete(ID)
        elif how == "forget":
            await sessions.forget("ann")
        else:
            clock.advance(61)
            assert await held.reap(Due(app=APP, now=sessions.now(), limit=10)) == [ID]
        assert not held._reader._tails._kept


async def test_a_tail_that_grew_too_large_is_not_kept(tmp_path: Path) -> None:
    """It is shown all the same; the next time it is read anew, and refused like any long one."""
    path = tmp_path / "s.db"
    size = SHORT_BYTES // 5
    await filled(path, 4, size)
    counted = Counted(path)
    window = EventQuery(last=50)
    counted.steps(window)
    async with SessionManager.open(f"sqlite:///{path}") as sessions:
        await sessions.append(ID, *(Event(kind="note", body="x" * size) for _ in range(2)))
        assert len(await sessions.events(ID, last=50)) == 6
    found = counted.reader.events(APP, ID, NOW, window)
    assert found is not None
    assert len(found) == 6
    with pytest.raises(TooLong):
        counted.reader.events(APP, ID, NOW, window)
    counted.reader.close()
