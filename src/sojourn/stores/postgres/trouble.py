"""What the driver's errors mean: which pass by themselves, and what a caller is told of them."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from sojourn.errors import NewerSchema, ReadOnly, SojournError, StorageFull, Unavailable

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a call of the driver can raise."""

_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
)
"""Errors behind which the connection is of no more use."""

_PASSING = (
    *_BROKEN,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)
"""Errors that the same call need not meet again in a moment."""

_GONE = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)


_Made = Callable[[str], Unavailable]


def _made(kind: type[Unavailable], reason: str) -> _Made:
    return lambda name: kind(name, reason)


def breaks(error: BaseException) -> bool:
    """Return whether the connection that raised this must not be used again.

    So must one whose call was cancelled: its answer may still be on the way.
    """
    return not isinstance(error, asyncpg.PostgresError | SojournError) or isinstance(error, _BROKEN)


def forget_frames(error: BaseException | None) -> None:
    """Have an error not show where in the driver it came from: its frames hold the password."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def passes(error: BaseException) -> bool:
    """Return whether it makes sense to try again."""
    # A value that can not be sent is an `InterfaceError` too, and a `ValueError`.
    return isinstance(error, _PASSING) and not isinstance(error, ValueError)


_SAID: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], _Made], ...] = (
    (
        TimeoutError,
        _made(Unavailable, "it did not answer in time; it may have done what was asked"),
    ),
    (asyncpg.DiskFullError, _made(StorageFull, "no space left on the server")),
    (
        asyncpg.ReadOnlySQLTransactionError,
        _made(ReadOnly, "the server only reads: it is a replica, or was made read-only"),
    ),
    (
        asyncpg.TargetServerAttributeNotMatched,
        _made(ReadOnly, "it is a replica, which can not be written"),
    ),
    (
        _GONE,
        _made(
            NewerSchema,
            "its tables are not those of this Sojourn: removed, or upgraded by a newer one",
        ),
    ),
)
"""What a caller is told of each kind of trouble, the first that fits."""


def mapped(error: BaseException, name: str) -> SojournError:
    """Return what a caller is told; the cause is to be kept with it."""
    if isinstance(error, SojournError):
        return error
    for kinds, made in _SAID:
        if isinstance(error, kinds):
            return made(name)
    if isinstance(error, asyncpg.PostgresError):
        return Unavailable(name, f"{error.args[0] if error.args else 'refused'} ({error.sqlstate})")
    return Unavailable(name, str(error) or type(error).__name__)
