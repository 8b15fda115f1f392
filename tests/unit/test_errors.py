"""The error tree: one root, facts as attributes, a message that says them, and pickling."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import sojourn
from sojourn import errors
from sojourn.errors import (
    AlreadyBound,
    AlreadyExists,
    AuthNeeded,
    CheckpointInUse,
    CheckpointMissing,
    Closed,
    Conflict,
    Corrupt,
    Ended,
    EndFailed,
    ForeignFile,
    InvalidCursor,
    InvalidId,
    InvalidQuery,
    InvalidSetting,
    InvalidTransition,
    LeaseHeld,
    LeaseLost,
    LogFull,
    MissingExtra,
    NewerSchema,
    NotFound,
    NotOwner,
    OutOfScope,
    PathTaken,
    QueueFull,
    ReadOnly,
    RoleTaken,
    SojournError,
    StorageFull,
    SummaryFailed,
    TailMismatch,
    TooLarge,
    TooManySessions,
    Unavailable,
    Unbound,
    Unserializable,
    UnsupportedFilesystem,
    WouldBlock,
)

Example = tuple[SojournError, dict[str, Any], str, tuple[type, ...]]

EXAMPLES: list[Example] = [
    (SojournError("anything"), {}, "anything", (Exception,)),
    (
        NotFound("s1"),
        {"id": "s1", "reason": "no such session"},
        "session 's1': no such session",
        (SojournError,),
    ),
    (NotFound("s1", "gone"), {"id": "s1", "reason": "gone"}, "session 's1': gone", ()),
    (
        NotOwner("s1"),
        {"id": "s1", "reason": "not a session of this user"},
        "session 's1': not a session of this user",
        (NotFound,),
    ),
    (
        Ended("s1", "ENDING", "logout"),
        {"id": "s1", "phase": "ENDING", "reason": "logout"},
        "session 's1' is over (ENDING): logout",
        (NotFound,),
    ),
    (
        AlreadyExists("s1"),
        {"id": "s1", "reason": "a session with this id exists", "expired": False},
        "session 's1': a session with this id exists",
        (SojournError,),
    ),
    (
        AlreadyExists("s1", "expired", expired=True),
        {"id": "s1", "reason": "expired", "expired": True},
        "session 's1': expired",
        (),
    ),
    (
        PathTaken("copy.db", "there is a file already"),
        {"id": "copy.db", "reason": "there is a file already", "expired": False},
        "copy.db: there is a file already",
        (AlreadyExists,),
    ),
    (
        Conflict("s1", ("e1", 2), ("e1", 3)),
        {"id": "s1", "expected": ("e1", 2), "actual": ("e1", 3)},
        (
            "session 's1' moved on: expected (epoch, revision) ('e1', 2), found ('e1', 3); "
            "refresh it and try again"
        ),
        (SojournError,),
    ),
    (
        TailMismatch("s1", ("e1", None), ("e1", 3), (4, 5), (5, 6)),
        {
            "id": "s1",
            "expected": ("e1", None),
            "actual": ("e1", 3),
            "expected_tail": (4, 5),
            "actual_tail": (5, 6),
        },
        "session 's1': the log ends with [5, 6], not with [4, 5]",
        (Conflict,),
    ),
    (
        InvalidId("user", "it is empty"),
        {"what": "user", "reason": "it is empty"},
        "invalid user: it is empty",
        (SojournError, ValueError),
    ),
    (
        InvalidQuery("limit", "too many"),
        {"field": "limit", "reason": "too many"},
        "invalid limit: too many",
        (SojournError, ValueError),
    ),
    (
        InvalidCursor("it is malformed"),
        {"field": "cursor", "reason": "it is malformed"},
        "invalid cursor: it is malformed",
        (InvalidQuery,),
    ),
    (
        InvalidSetting("idle", "SOJOURN_IDLE", "give a duration"),
        {"name": "idle", "source": "SOJOURN_IDLE", "reason": "give a duration"},
        "setting 'idle' (SOJOURN_IDLE): give a duration",
        (SojournError, ValueError),
    ),
    (
        InvalidTransition("ACTIVE", "SPAWN", "allowed here: TERMINATE"),
        {"phase": "ACTIVE", "trigger": "SPAWN", "reason": "allowed here: TERMINATE"},
        "invalid transition: phase=ACTIVE trigger=SPAWN reason=allowed here: TERMINATE",
        (SojournError,),
    ),
    (
        Unserializable("state.cart[2].price", "decimal.Decimal is not a JSON value"),
        {"path": "state.cart[2].price", "reason": "decimal.Decimal is not a JSON value"},
        "state.cart[2].price: decimal.Decimal is not a JSON value",
        (SojournError, TypeError),
    ),
    (
        TooLarge("labels", 17, 16),
        {"what": "labels", "size": 17, "limit": 16},
        "labels is 17, the limit is 16",
        (SojournError, ValueError),
    ),
    (
        LogFull("events in a log", 9, 8),
        {"what": "events in a log", "size": 9, "limit": 8},
        "events in a log is 9, the limit is 8",
        (TooLarge,),
    ),
    (
        Unbound("s1", "user:theme"),
        {"id": "s1", "key": "user:theme"},
        "session 's1' has no user to own 'user:theme'; bind it to one first",
        (SojournError,),
    ),
    (
        AlreadyBound("s1"),
        {"id": "s1"},
        "session 's1' is bound to another user and is never rebound",
        (SojournError,),
    ),
    (
        RoleTaken({"role": "writer"}, "s1"),
        {"claim": {"role": "writer"}, "holder": "s1"},
        "{'role': 'writer'} is taken by live session 's1'",
        (SojournError,),
    ),
    (
        LeaseHeld("s1", 5),
        {"id": "s1", "until": 5},
        "session 's1' is leased by another worker",
        (SojournError,),
    ),
    (
        LeaseLost("s1", 3),
        {"id": "s1", "token": 3},
        "lease 3 of session 's1' is over",
        (SojournError,),
    ),
    (
        EndFailed("s1", (OSError("disk"),)),
        {"id": "s1"},
        "session 's1' could not be ended yet, it will be retried: OSError('disk')",
        (SojournError,),
    ),
    (
        OutOfScope("carry()"),
        {"what": "carry()"},
        "carry() needs a session, and none is ambient here: use it inside a scope",
        (SojournError,),
    ),
    (
        AuthNeeded("nobody is logged in"),
        {"reason": "nobody is logged in"},
        "a login is needed: nobody is logged in",
        (SojournError,),
    ),
    (
        TooManySessions(5),
        {"limit": 5},
        "the user has 5 sessions, which is the most there may be",
        (SojournError,),
    ),
    (
        QueueFull(100),
        {"limit": 100},
        "100 jobs wait already, which is the limit of this background runner",
        (SojournError,),
    ),
    (
        Corrupt("session 's1'", "truncated"),
        {"key": "session 's1'", "reason": "truncated"},
        "session 's1' is corrupt: truncated",
        (SojournError,),
    ),
    (
        Closed("memory://"),
        {"what": "memory://", "reason": "closed"},
        "memory:// is closed",
        (SojournError,),
    ),
    (
        Closed("memory://", "not open yet"),
        {"what": "memory://", "reason": "not open yet"},
        "memory:// is not open yet",
        (),
    ),
    (
        SummaryFailed("s1", "the summariser raised OSError"),
        {"id": "s1", "reason": "the summariser raised OSError"},
        "the history of session 's1' was not summarised: the summariser raised OSError",
        (SojournError,),
    ),
    (
        CheckpointMissing("s1", "c1"),
        {"id": "s1", "checkpoint": "c1", "reason": "no such checkpoint"},
        "checkpoint 'c1' of session 's1': no such checkpoint",
        (NotFound,),
    ),
    (
        CheckpointInUse("s1", "c1", "c2"),
        {"id": "s1", "checkpoint": "c1", "child": "c2"},
        (
            "checkpoint 'c1' of session 's1' is what 'c2' came from; delete that too, "
            "or say cut=True to let its line end there"
        ),
        (SojournError,),
    ),
    (
        WouldBlock("a call"),
        {"what": "a call"},
        (
            "a call would block the event loop that runs in this thread: "
            "await sojourn.SessionManager here, or call it in another thread (asyncio.to_thread)"
        ),
        (SojournError, RuntimeError),
    ),
    (
        MissingExtra("the observer", "otel"),
        {"what": "the observer", "extra": "otel"},
        'the observer needs more packages: pip install "sojourn[otel]"',
        (SojournError, ImportError),
    ),
    *(
        (kind("a.db", "why"), {"store": "a.db", "reason": "why"}, "a.db: why", (above,))
        for kind, above in (
            (Unavailable, SojournError),
            (StorageFull, Unavailable),
            (ReadOnly, Unavailable),
            (ForeignFile, Unavailable),
            (NewerSchema, Unavailable),
            (UnsupportedFilesystem, Unavailable),
        )
    ),
]

every_example = pytest.mark.parametrize(
    ("error", "facts", "text", "above"), EXAMPLES, ids=[type(each[0]).__name__ for each in EXAMPLES]
)


def all_errors() -> set[type[SojournError]]:
    """Return every class of the tree."""
    return {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, SojournError)
    }


@every_example
def test_an_error_says_its_facts(
    error: SojournError, facts: dict[str, Any], text: str, above: tuple[type, ...]
) -> None:
    """The facts are attributes, the message holds them, and the tree is as documented."""
    assert {name: getattr(error, name) for name in facts} == facts
    assert str(error) == text
    assert all(isinstance(error, kind) for kind in (SojournError, *above))


@every_example
def test_an_error_survives_pickling(
    error: SojournError, facts: dict[str, Any], text: str, above: tuple[type, ...]
) -> None:
    """Errors cross process borders whole: same type, same facts, same message."""
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - a pickle that was just made here
    assert type(back) is type(error)
    assert {name: getattr(back, name) for name in facts} == facts
    assert str(back) == text


def test_the_causes_of_a_failed_end_survive_pickling() -> None:
    """They are exceptions themselves, in the order of the hooks."""
    error = EndFailed("s1", (OSError("a"), ValueError("b")))
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - a pickle that was just made here
    assert [repr(cause) for cause in back.causes] == ["OSError('a')", "ValueError('b')"]


def test_every_error_has_an_example_here() -> None:
    """A new error is not forgotten by these tests."""
    assert {type(error) for error, *_ in EXAMPLES} == all_errors()


def test_every_error_is_public() -> None:
    """Whoever uses the package can catch each error by name."""
    assert {getattr(sojourn, kind.__name__, None) for kind in all_errors()} == all_errors()
    assert {kind.__name__ for kind in all_errors()} <= set(sojourn.__all__)


@pytest.mark.behaviour(31)
def test_missing_trouble_and_not_yours_are_told_apart_by_type() -> None:
    """Not found, corrupt, unavailable and closed are four branches; not yours is its own leaf."""
    branches = (NotFound, Corrupt, Unavailable, Closed)
    for kind in branches:
        assert not any(issubclass(kind, other) for other in branches if other is not kind)
    assert issubclass(NotOwner, NotFound)
    assert NotOwner is not NotFound


@pytest.mark.behaviour(16)
def test_not_owner_does_not_name_the_owner() -> None:
    """The error knows nothing but the id that the caller gave."""
    assert vars(NotOwner("s1")) == {"id": "s1", "reason": "not a session of this user"}
