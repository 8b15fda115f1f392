"""What a type checker sees: these lines are checked by mypy, and run as they are."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_type

from sojourn import Document, Event, Page, Session
from sojourn.blocking import (
    Background,
    Checkpoints,
    Documents,
    History,
    Iteration,
    Lease,
    Reaper,
    SessionManager,
    Store,
    parallel_map,
)
from sojourn.blocking.background import Job

if TYPE_CHECKING:
    from sojourn.checkpoints import Checkpoint


def test_types_are_real(sessions: SessionManager) -> None:
    """Nothing is `Any` but what is JSON."""
    s = assert_type(sessions.create(state={"n": 1}), Session)
    assert_type(sessions.get(s.id), Session | None)
    assert_type(sessions.list(), Page[Session])
    assert_type(sessions.count(), int)
    assert_type(sessions.events(s.id), list[Event])
    assert_type(sessions.append(s, Event(kind="k")), Event)
    assert_type(sessions.heartbeat(s.id), datetime)
    assert_type(sessions.app_state(), dict[str, Any])
    watched = assert_type(sessions.watch(s.id), Iteration[Event])
    assert_type(next(watched), Event)
    watched.close()
    assert_type(sessions.lease(s.id), AbstractContextManager[Lease])
    with sessions.lease(s.id) as lease:
        assert_type(lease, Lease)
        assert_type(lease.token, int)
        assert_type(sessions.save(s, lease=lease), Session)
    assert_type(sessions.scope(s), AbstractContextManager[Session])
    assert_type(sessions.store, Store)
    assert_type(sessions.history(s), History)
    documents = assert_type(sessions.documents(s.id), Documents)
    assert_type(documents.get("a", "b"), Document | None)
    assert_type(documents.list("a"), list[Document])


def test_the_types_of_what_is_handed_out_are_real(sessions: SessionManager) -> None:
    s = sessions.create()
    history = sessions.history(s)
    assert_type(history.append({"role": "user", "content": "hi"}), Event)
    assert_type(history.load(last=1), list[dict[str, Any]])
    checkpoints = assert_type(sessions.checkpoints(s), Checkpoints)
    saved: Checkpoint = checkpoints.save(b"1")
    assert_type(checkpoints.stream(saved), Iteration[bytes])
    assert_type(Reaper(sessions).sweep(), int)
    with Background(sessions) as jobs:
        job = assert_type(jobs.submit(divmod, 7, 2, session=s), Job[tuple[int, int]])
        assert_type(job.result(), tuple[int, int])
        assert_type(jobs.stop(), list[Job[Any]])
    assert_type(parallel_map(str, [1, 2]), list[str])
