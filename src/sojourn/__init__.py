"""Sojourn: one durable session layer for Python web apps and AI agents."""

from __future__ import annotations

from sojourn.documents import Documents
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
    InvalidTransition,
    LeaseHeld,
    LeaseLost,
    LogFull,
    NewerSchema,
    NotFound,
    NotOwner,
    ReadOnly,
    RoleTaken,
    SojournError,
    StorageFull,
    TailMismatch,
    TooLarge,
    Unavailable,
    Unbound,
    Unserializable,
    UnsupportedFilesystem,
)
from sojourn.expiry import Expiry
from sojourn.lease import Lease
from sojourn.lifecycle import TRANSITIONS, Phase, Trigger
from sojourn.manager import SessionManager
from sojourn.model import DELETE, Document, Event, Page
from sojourn.reaper import Reaper
from sojourn.scopes import current_session
from sojourn.session import Session
from sojourn.store import EventQuery
from sojourn.stores import open_store

__all__ = [
    "DELETE",
    "TRANSITIONS",
    "AlreadyBound",
    "AlreadyExists",
    "Closed",
    "Conflict",
    "Corrupt",
    "Document",
    "Documents",
    "EndFailed",
    "Ended",
    "Event",
    "EventQuery",
    "Expiry",
    "ForeignFile",
    "InvalidCursor",
    "InvalidId",
    "InvalidQuery",
    "InvalidTransition",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "LogFull",
    "NewerSchema",
    "NotFound",
    "NotOwner",
    "Page",
    "Phase",
    "ReadOnly",
    "Reaper",
    "RoleTaken",
    "Session",
    "SessionManager",
    "SojournError",
    "StorageFull",
    "TailMismatch",
    "TooLarge",
    "Trigger",
    "Unavailable",
    "Unbound",
    "Unserializable",
    "UnsupportedFilesystem",
    "current_session",
    "open_store",
]
