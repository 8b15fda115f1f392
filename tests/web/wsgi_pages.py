"""Pages that a site has in each framework whose code blocks, given its session."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SECONDS = 30
"""A page that waits longer for the other one hangs."""


class Meeting:
    """Where slow pages stop in the middle, until they are told to go on."""

    def __init__(self) -> None:
        self.here = threading.Event()
        self.go = threading.Event()

    def wait(self) -> None:
        """Say that one is here, and go on when told."""
        self.here.set()
        assert self.go.wait(SECONDS)

    def begin(self) -> None:
        """Let the next pages stop."""
        self.here.clear()
        self.go.clear()


def _set(session: Any, query: Mapping[str, str], _meeting: Meeting) -> Any:
    for key, value in query.items():
        session[key] = value
    return None


def _slow(session: Any, query: Mapping[str, str], meeting: Meeting) -> Any:
    """Read, wait, write."""
    seen = dict(session)
    for key in query:
        session[key] = seen.get(key, 0) + 1
    meeting.wait()
    return seen


def _half(session: Any, _query: Mapping[str, str], meeting: Meeting) -> Any:
    """Store a new token, wait, write once more."""
    session.rotate()
    session.save()
    meeting.wait()
    session["half"] = True
    return None


def _count(session: Any, query: Mapping[str, str], _meeting: Meeting) -> Any:
    for key in query:
        session[key] = session.get(key, 0) + 1
    return None


def _push(session: Any, query: Mapping[str, str], _meeting: Meeting) -> Any:
    """Change a list inside, and say nothing to the session."""
    session.setdefault("cart", [])
    for value in query.values():
        session["cart"].append(value)
    return None


def _append(session: Any, query: Mapping[str, str], _meeting: Meeting) -> Any:
    """Change a list inside that is there, without setting any key."""
    session["cart"].append((query["item"], 1))
    return None


def _stream(session: Any, query: Mapping[str, str], _meeting: Meeting) -> Iterator[str]:
    session["begun"] = True
    keys = {key: query[key] for key in query}

    def parts() -> Iterator[str]:
        yield "one"
        session.update(keys)
        yield "two"

    return parts()


def _stream_first(session: Any, _query: Mapping[str, str], _meeting: Meeting) -> Iterator[str]:
    """Be the first that looks at the session, and change it."""

    def parts() -> Iterator[str]:
        yield "one"
        session["late"] = True
        yield "two"

    return parts()


def _devices(session: Any, _query: Mapping[str, str], _meeting: Meeting) -> Any:
    return [[device.id, device.agent, device.current] for device in session.devices()]


PAGES: dict[str, Callable[[Any, Mapping[str, str], Meeting], Any]] = {
    "untouched": lambda _session, _query, _meeting: "nothing",
    "read": lambda session, _query, _meeting: dict(session),
    "set": _set,
    "fail": _set,
    "slow": _slow,
    "half": _half,
    "count": _count,
    "push": _push,
    "append": _append,
    "incr": lambda session, _query, _meeting: session.incr("n"),
    "stream": _stream,
    "stream-first": _stream_first,
    "rotate": lambda session, _query, _meeting: session.rotate(),
    "fail-rotate": lambda session, _query, _meeting: session.rotate(),
    "clear": lambda session, _query, _meeting: session.clear(),
    "devices": _devices,
    "revoke": lambda session, query, _meeting: session.revoke(query["id"]),
    "revoke-others": lambda session, _query, _meeting: session.revoke_others(),
    "id": lambda session, _query, _meeting: session.id,
}
