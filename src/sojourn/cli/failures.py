"""What goes wrong as the caller of a command sees it: an exit code, one line, the next step."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from sojourn.errors import (
    AlreadyBound,
    AlreadyExists,
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
    MissingExtra,
    NewerSchema,
    NotFound,
    ReadOnly,
    RoleTaken,
    SojournError,
    StorageFull,
    Unavailable,
    UnsupportedFilesystem,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(enum.IntEnum):
    """The exit codes of every command. They are part of the interface and do not change."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130
    UNHEARD = 141
    TERMINATED = 143


MEANINGS: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.OK: "done",
        ExitCode.FAILED: "refused, failed, or a check found something wrong",
        ExitCode.USAGE: "the command can not be run as it was given",
        ExitCode.NOT_FOUND: "there is no such session, or it is over",
        ExitCode.CONFLICT: "something else is there, or was faster",
        ExitCode.UNAVAILABLE: "the store is not there, or can not be used",
        ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
        ExitCode.UNHEARD: "whoever read the output went away",
        ExitCode.TERMINATED: "terminated (SIGTERM)",
    }
)
"""What each exit code says, for the documentation and for scripts."""


class Refusal(SojournError):
    """A command refuses, for a reason of its own. `step` is what to try next."""

    def __init__(self, code: ExitCode, reason: str, step: str) -> None:
        super().__init__(code, reason, step)
        self.code = code
        self.reason = reason
        self.step = step

    def __str__(self) -> str:
        return self.reason


class Unheard(Exception):
    """Whoever read the output went away: there is nobody to write to."""


def missing(id: str) -> Refusal:
    """Return the refusal for an id that no session has."""
    return Refusal(ExitCode.NOT_FOUND, f"session {id!r}: no such session", "sojourn ls")


DOCTOR = "sojourn doctor"
"""What to try where the command that failed can not say what is wrong with the store."""

ANSWERS: tuple[tuple[type[Exception], ExitCode, str], ...] = (
    (Ended, ExitCode.NOT_FOUND, "sojourn show ID --expired"),
    (NotFound, ExitCode.NOT_FOUND, "sojourn ls"),
    (AlreadyExists, ExitCode.CONFLICT, "another name"),
    (InvalidTransition, ExitCode.CONFLICT, "sojourn show ID"),
    (Conflict, ExitCode.CONFLICT, "again"),
    (RoleTaken, ExitCode.CONFLICT, "sojourn show HOLDER"),
    (AlreadyBound, ExitCode.CONFLICT, "sojourn show ID"),
    (LeaseHeld, ExitCode.CONFLICT, "again later"),
    (LeaseLost, ExitCode.CONFLICT, "sojourn show ID"),
    (InvalidCursor, ExitCode.USAGE, "the first page, without --cursor"),
    (InvalidId, ExitCode.USAGE, "--help"),
    (InvalidQuery, ExitCode.USAGE, "--help"),
    (InvalidSetting, ExitCode.USAGE, "sojourn --help"),
    (EndFailed, ExitCode.FAILED, "again, or leave it to the reaper of the application"),
    (Corrupt, ExitCode.FAILED, DOCTOR),
    (ForeignFile, ExitCode.UNAVAILABLE, "another path"),
    (NewerSchema, ExitCode.UNAVAILABLE, "pip install --upgrade sojourn"),
    (ReadOnly, ExitCode.UNAVAILABLE, f"{DOCTOR}, or another user"),
    (StorageFull, ExitCode.UNAVAILABLE, "again, once there is space"),
    (UnsupportedFilesystem, ExitCode.UNAVAILABLE, "a path on a local disk"),
    (Closed, ExitCode.UNAVAILABLE, "again"),
    (Unavailable, ExitCode.UNAVAILABLE, DOCTOR),
    (SojournError, ExitCode.FAILED, "--help"),
)
"""Which exit code an error gets and what to try next; the first that fits."""


def answer(error: Exception) -> tuple[ExitCode, str]:
    """Return the exit code of an error and the next step."""
    if isinstance(error, Refusal):
        return error.code, error.step
    if isinstance(error, MissingExtra):
        return ExitCode.USAGE, f'pip install "sojourn[{error.extra}]"'
    for kind, code, step in ANSWERS:
        if isinstance(error, kind):
            return code, step
    return ExitCode.FAILED, "the same with --debug, to see where"


def told(error: Exception) -> str:
    """Return an error in words: the project's own speak for themselves, others need their type."""
    text = str(error)
    if isinstance(error, SojournError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
