"""What goes wrong on the way to Redis: which of it passes, and what the rest means."""

from __future__ import annotations

from enum import Enum
from ssl import SSLError
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
    from collections.abc import Iterator

    from sojourn.stores.redis.wire import Address


class Kind(Enum):
    """What to do about an error that a server answered with."""

    MOVED = "ask the server that it names, from now on"
    ASK = "ask the server that it names, this once"
    UNKNOWN_SCRIPT = "tell it the scripts, then ask again"
    DEMOTED = "leave it: who is in charge may be found under the same name by now"
    PASSES = "wait a little and ask whoever is in charge then"
    FINAL = "asking again does not help"


_PASSING = (
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
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
    if "READONLY" in text:
        return Kind.DEMOTED
    return Kind.PASSES if any(word in text for word in _PASSING) else Kind.FINAL


def address_in(error: ResponseError, asked: Address) -> Address:
    """Return the server that a redirection names; without a host it is where `asked` is."""
    assert isinstance(error, AskError)  # the other kind of redirection is a subclass of it
    return (error.host or asked[0], error.port)


def is_hopeless(error: BaseException | None) -> bool:
    """Return whether a connection could not be made for a reason that trying again won't change."""
    return any(
        isinstance(each, AuthenticationError | NoPermissionError | FileNotFoundError)
        or (isinstance(each, SSLError) and any(word in str(each) for word in _UNTRUSTED))
        or (isinstance(each, ResponseError) and any(word in str(each) for word in _LASTING))
        for each in _causes(error)
    )


def says_more(error: Exception | None, than: Exception | None) -> Exception | None:
    """Return the newer of two errors, unless it only says that something took too long."""
    if than is not None and isinstance(error and error.__cause__, TimeoutError):
        return than
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def mapped(error: BaseException, store: str) -> Unavailable:
    """Return what an error means to a caller."""
    text = _text(error)
    if any(isinstance(each, FileNotFoundError) for each in _causes(error)):
        return Unavailable(store, "a file for TLS is not there: see ca, certificate and key")
    if "MISCONF" in text and any(word in text for word in _FULL):
        return StorageFull(store, "the server's disk is full; nothing was written")
    for words, kind, meaning in _MEANINGS:
        if any(word in text for word in words):
            found = kind(store, meaning)
            found.denied = words is _DENIED
            return found
    return Unavailable(store, text or type(error).__name__)


NO_CLUSTER = "it is not part of a cluster: write redis:// instead of redis+cluster://"
"""What is said of a server that is alone."""

_DENIED = ("NOPERM", "can't run this command")
"""Words of errors that say that the user lacks a right; a script says so in its own way."""

_MEANINGS: tuple[tuple[tuple[str, ...], type[Unavailable], str], ...] = (
    (("OOM",), StorageFull, "the server's memory is full (maxmemory); nothing was written"),
    (("READONLY",), ReadOnly, "the server is a replica, which takes no writes"),
    (
        ("NOAUTH", "WRONGPASS", "invalid username-password"),
        Unavailable,
        "the server does not accept the user and password",
    ),
    (
        _DENIED,
        Unavailable,
        "the user has not the rights that are needed",
    ),
    (
        ("unknown command 'AUTH'", "unknown command `AUTH`"),
        Unavailable,
        "the server has no AUTH: leave the user and password out",
    ),
    (("cluster support disabled",), Unavailable, NO_CLUSTER),
    (
        ("DB index",),
        Unavailable,
        "the server has no database of this number: see what follows it in the URL",
    ),
    (
        ("NOREPLICAS",),
        Unavailable,
        "the server has fewer good replicas than it is told to write to",
    ),
)
"""Words of errors, and what they mean."""

_UNTRUSTED = ("CERTIFICATE", "UNKNOWN_CA", "X509", "ALERT")
"""Words of errors of TLS that say that one side does not accept the other's certificate."""

_LASTING = ("DB index", "SELECT is not allowed", "unknown command", "cluster support disabled")
"""Words of errors that say that there is no such database, no such command or no cluster."""

_FULL = ("No space left", "File too large", "Disk quota")
"""What a disk says that takes no more: it is full, or a limit is reached."""

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
