"""What goes wrong on the way to Redis: which of it passes, and what the rest means."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from redis.exceptions import (
    AskError,
    AuthenticationError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
)

from sojourn.errors import ReadOnly, StorageFull, Unavailable

if TYPE_CHECKING:
    from sojourn.stores.redis.wire import Address


class Kind(Enum):
    """What to do about an error that a server answered with."""

    MOVED = "ask the server that it names, from now on"
    ASK = "ask the server that it names, this once"
    UNKNOWN_SCRIPT = "tell it the scripts, then ask again"
    PASSES = "wait a little and ask whoever is in charge then"
    FINAL = "asking again does not help"


_PASSING = (
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "READONLY",
    "LOADING",
    "NOREPLICAS",
    "BUSY",
    "non local key",
)
"""Words of errors that come while a cluster changes, and go when it has."""


def kind_of(error: ResponseError) -> Kind:
    """Return what to do about an error."""
    if isinstance(error, AskError):
        return Kind.MOVED if isinstance(error, MovedError) else Kind.ASK
    if isinstance(error, NoScriptError):
        return Kind.UNKNOWN_SCRIPT
    text = _text(error)
    return Kind.PASSES if any(word in text for word in _PASSING) else Kind.FINAL


def address_in(error: ResponseError, asked: Address) -> Address:
    """Return the server that a redirection names; without a host it is where `asked` is."""
    assert isinstance(error, AskError)  # the other kind of redirection is a subclass of it
    return (error.host or asked[0], error.port)


def is_hopeless(error: BaseException | None) -> bool:
    """Return whether a connection could not be made for a reason that trying again won't change."""
    return isinstance(error, AuthenticationError | NoPermissionError)


def mapped(error: BaseException, store: str) -> Unavailable:
    """Return what an error means to a caller."""
    text = _text(error)
    if "OOM" in text:
        return StorageFull(store, "the server's memory is full (maxmemory); nothing was written")
    if "READONLY" in text:
        return ReadOnly(store, "the server is a replica, which takes no writes")
    if any(word in text for word in ("NOAUTH", "WRONGPASS", "invalid username-password")):
        return Unavailable(store, "the server does not accept the user and password")
    if "NOPERM" in text or "can't run this command" in text:
        return Unavailable(store, "the user has not the rights that are needed")
    if "NOREPLICAS" in text:
        return Unavailable(store, "the server has fewer good replicas than it is told to write to")
    return Unavailable(store, text or type(error).__name__)


_CODES = {
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "AuthenticationError": "NOAUTH",
}
"""The codes of errors that the driver has a type for: it takes them off the words."""


def _text(error: BaseException) -> str:
    """Return an error's words, with the server's code in front."""
    words = str(error)
    code = _CODES.get(type(error).__name__, "")
    return words if code in words else f"{code} {words}"
