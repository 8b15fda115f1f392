"""After a fork the child has a loop and a store of its own, or is told to open one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.blocking.processes import printed_by, url_of

from sojourn.blocking import SessionManager

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 3


def kinds_in(url: str, id: str) -> Counter[str]:
    """Return how many events of each kind a log has, read by a manager of this process."""
    with SessionManager.open(url) as sessions:
        assert list(sessions.store.check()) == []
        return Counter(event.kind for event in sessions.events(id))


@pytest.mark.parametrize("used", [False, True], ids=["before-its-first-call", "after-some-calls"])
def test_workers_of_a_preforking_server_share_a_manager_of_a_module(
    tmp_path: Path, used: bool
) -> None:
    """Made once, at import, in the process that forks the workers; it goes on meanwhile."""
    program = f"""
    sessions = SessionManager.open(url)
    if {used}:
        sessions.create(id="s")
        sessions.append("s", Event(kind="before"))
    else:
        with SessionManager.open(url) as first:
            first.create(id="s")

    def work():
        for _ in range(20):
            sessions.append("s", Event(kind="worker"))
        assert len([t for t in threading.enumerate() if t.name == "sojourn blocking"]) == 1
        sessions.close()

    pids = [child(work) for _ in range({WORKERS})]
    for _ in range(20):
        sessions.append("s", Event(kind="parent"))
    done(*pids)
    print(sessions.count())
    sessions.close()
    """
    assert printed_by(program, url_of(tmp_path)) == "1\n"
    found = kinds_in(url_of(tmp_path), "s")
    assert (found["worker"], found["parent"]) == (20 * WORKERS, 20)


def test_a_child_loses_nothing_when_its_parent_closes(tmp_path: Path) -> None:
    """SQLite must not believe in the child that it has the locks of the parent."""
    program = """
    sessions = SessionManager.open(url)
    sessions.create(id="s")
    told, closed = os.pipe(), os.pipe()

    def work():
        sessions.append("s", Event(kind="early"))
        os.write(told[1], b"x")
        os.read(closed[0], 1)
        for _ in range(30):
            sessions.append("s", Event(kind="late"))

    pid = child(work)
    os.read(told[0], 1)
    sessions.close()
    os.write(closed[1], b"x")
    done(pid)
    """
    printed_by(program, url_of(tmp_path))
    assert kinds_in(url_of(tmp_path), "s") == {"early": 1, "late": 30}


def test_what_was_handed_out_before_works_in_the_child(tmp_path: Path) -> None:
    """Documents, hooks and the reaper; a lease, a scope and a watch stay with the parent."""
    program = """
    sessions = SessionManager.open(url)
    sessions.on_end(lambda session, reason: print("hook", reason, os.getpid() == me[0]))
    me = [os.getpid()]
    s = sessions.create(id="s", events=[Event(kind="k"), Event(kind="k")])
    documents, reaper, watch = sessions.documents("s"), Reaper(sessions), sessions.watch("s")
    next(watch)

    def refused(work):
        try:
            work()
        except Closed as error:
            return "forked" in str(error)

    def work():
        me[0] = os.getpid()
        documents.put("a", "b", b"c")
        print(reaper.sweep(), refused(lease.renew), refused(lambda: next(watch)))
        scope.__exit__(ValueError, ValueError(), None)
        print(current_session(), sessions.app)
        sessions.end("s", reason="child")

    scope = sessions.scope(s)
    with sessions.lease("s") as lease:
        scope.__enter__()
        done(child(work))
    """
    said = printed_by(program, url_of(tmp_path)).splitlines()
    assert said == ["0 True True", "None default", "hook child True"]


def test_a_watch_that_outlives_its_manager_stays_with_the_parent() -> None:
    program = """
    sessions = SessionManager.open(url)
    sessions.create(id="s", events=[Event(kind="k"), Event(kind="k")])
    watch = sessions.watch("s")
    del sessions

    def work():
        try:
            next(watch)
        except Closed as error:
            print("forked" in str(error))

    next(watch)
    done(child(work))
    print(next(watch).seq)
    """
    assert printed_by(program, "memory://").splitlines() == ["True", "2"]


def test_a_child_of_a_manager_with_a_given_store_is_told_to_open_anew() -> None:
    program = """
    from sojourn.stores.memory import MemoryStore
    sessions = SessionManager(MemoryStore())
    sessions.count()

    def work():
        try:
            sessions.count()
        except Closed as error:
            print(error)
        sessions.close()
        sessions.close()

    done(child(work))
    print(sessions.count())
    """
    assert printed_by(program, "memory://").splitlines() == [
        "session manager is of the process that this one was forked from; open it anew",
        "0",
    ]


@pytest.mark.parametrize("url", ["memory://", "memory://name"])
def test_a_memory_is_a_process_s_own(url: str) -> None:
    program = """
    sessions = SessionManager.open(url)
    sessions.create()
    done(child(lambda: print(sessions.count())))
    print(sessions.count())
    """
    assert printed_by(program, url).splitlines() == ["0", "1"]


def test_closed_in_the_parent_is_closed_in_the_child(tmp_path: Path) -> None:
    program = """
    sessions = SessionManager.open(url)
    sessions.create()
    sessions.close()

    def work():
        try:
            sessions.count()
        except Closed:
            print("closed")

    done(child(work))
    """
    assert printed_by(program, url_of(tmp_path)) == "closed\n"


def test_forks_in_the_middle_of_many_threads_calls(tmp_path: Path) -> None:
    """Whatever the threads are at: the child does not hang, and the parent goes on."""
    program = """
    sessions = SessionManager.open(url)
    sessions.create(id="s")
    over = threading.Event()

    def hammer():
        while not over.is_set():
            sessions.append("s", Event(kind="parent"))
            sessions.get("s", events=5)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()

    def work():
        try:
            sessions.append("s", Event(kind="child"))
            print("stored")
        except Unavailable as error:
            assert "forked" in str(error)
            print("refused")

    for _ in range(6):
        done(child(work))
    over.set()
    for thread in threads:
        thread.join()
    done(child(work))  # now nothing is in its way
    sessions.close()
    """
    said = Counter(printed_by(program, url_of(tmp_path)).split())
    assert said["stored"] + said["refused"] == 7
    assert said["stored"] == kinds_in(url_of(tmp_path), "s")["child"]
    assert said["stored"] > 0


def test_a_child_that_forks_again(tmp_path: Path) -> None:
    program = """
    sessions = SessionManager.open(url)
    sessions.create(id="s")

    def grandchild():
        sessions.append("s", Event(kind="grandchild"))

    def work():
        sessions.append("s", Event(kind="child"))
        done(child(grandchild))
        sessions.append("s", Event(kind="child"))

    done(child(work))
    """
    printed_by(program, url_of(tmp_path))
    assert kinds_in(url_of(tmp_path), "s") == {"child": 2, "grandchild": 1}


def test_multiprocessing_with_fork_and_a_plain_exit(tmp_path: Path) -> None:
    """A child that ends like a program, not like a worker: what runs at exit runs there too."""
    program = """
    sessions = SessionManager.open(url)
    sessions.create(id="s")
    pid = os.fork()
    if pid == 0:
        sessions.append("s", Event(kind="child"))
        sys.exit(0)
    done(pid)
    sessions.append("s", Event(kind="parent"))
    from sojourn.blocking.loop import _threads
    (loop,) = _threads
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with loop._lock:  # as a thread does that makes a call just then
            held.set()
            go_on.wait()

    threading.Thread(target=hold).start()
    held.wait()
    unused = os.fork()
    if unused == 0:
        sys.exit(0)
    done(unused)
    go_on.set()
    sessions.append("s", Event(kind="parent"))
    """
    printed_by(program, url_of(tmp_path))
    assert kinds_in(url_of(tmp_path), "s") == {"child": 1, "parent": 2}
