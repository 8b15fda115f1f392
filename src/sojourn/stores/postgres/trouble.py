"""What the driver's errors mean: which pass by themselves, and what a caller is told of the rest."""

from __future__ import annotations

import asyncpg

from sojourn.errors import NewerSchema, ReadOnly, SojournError, StorageFull, Unavailable

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
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


def breaks(error: BaseException) -> bool:
    """Return whether the connection that raised this must not be used again.

    So must one whose call was cancelled: its answer may still be on the way.
    """
    return not isinstance(error, asyncpg.PostgresError | SojournError) or isinstance(error, _BROKEN)


def passes(error: BaseException) -> bool:
    """Return whether it makes sense to try again."""
    # A value that can not be sent is an `InterfaceError` too, and a `ValueError`.
    return isinstance(error, _PASSING) and not isinstance(error, ValueError)


def mapped(error: BaseException, name: str) -> SojournError:
    """Return what a caller is told; the cause is to be kept with it."""
    if isinstance(error, SojournError):
        return error
    if isinstance(error, TimeoutError):
        return Unavailable(name, "it did not answer in time; what was asked may have been done")
    if isinstance(error, asyncpg.DiskFullError):
        return StorageFull(name, "no space left on the server")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return ReadOnly(name, "the server only reads: it is a replica, or was made read-only")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return ReadOnly(name, "none of its servers is a primary, and a replica can not be written")
    if isinstance(error, _GONE):
        reason = "its tables are not those of this Sojourn: removed, or upgraded by a newer one"
        return NewerSchema(name, reason)
    if isinstance(error, asyncpg.PostgresError):
        return Unavailable(name, f"{error.args[0] if error.args else 'refused'} ({error.sqlstate})")
    return Unavailable(name, str(error) or type(error).__name__)
