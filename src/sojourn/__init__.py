"""Sojourn: one durable session layer for Python web apps and AI agents."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sojourn.documents import Documents
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
from sojourn.expiry import Expiry
from sojourn.lease import Lease
from sojourn.lifecycle import TRANSITIONS, Phase, Trigger
from sojourn.manager import SessionManager
from sojourn.model import DELETE, Document, Event, Page
from sojourn.scopes import Scope, carry, current_scope, current_session
from sojourn.session import Session
from sojourn.store import EventQuery
from sojourn.stores import open_store

if TYPE_CHECKING:
    from sojourn.background import Background, parallel_map
    from sojourn.checkpoints import Checkpoint, Checkpoints
    from sojourn.history import History, LastMessages, RollingSummary, Summary, TokenBudget
    from sojourn.reaper import Reaper
    from sojourn.threads import ScopedExecutor, in_scope, run_in_scope

__all__ = [
    "DELETE",
    "TRANSITIONS",
    "AlreadyBound",
    "AlreadyExists",
    "AuthNeeded",
    "Background",
    "Checkpoint",
    "CheckpointInUse",
    "CheckpointMissing",
    "Checkpoints",
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
    "History",
    "InvalidCursor",
    "InvalidId",
    "InvalidQuery",
    "InvalidSetting",
    "InvalidTransition",
    "LastMessages",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "LogFull",
    "MissingExtra",
    "NewerSchema",
    "NotFound",
    "NotOwner",
    "OutOfScope",
    "Page",
    "PathTaken",
    "Phase",
    "QueueFull",
    "ReadOnly",
    "Reaper",
    "RoleTaken",
    "RollingSummary",
    "Scope",
    "ScopedExecutor",
    "Session",
    "SessionManager",
    "SojournError",
    "StorageFull",
    "Summary",
    "SummaryFailed",
    "TailMismatch",
    "TokenBudget",
    "TooLarge",
    "TooManySessions",
    "Trigger",
    "Unavailable",
    "Unbound",
    "Unserializable",
    "UnsupportedFilesystem",
    "WouldBlock",
    "carry",
    "current_scope",
    "current_session",
    "in_scope",
    "open_store",
    "parallel_map",
    "run_in_scope",
]

_SERVICES = {
    "Background": "background",
    "Checkpoint": "checkpoints",
    "Checkpoints": "checkpoints",
    "History": "history",
    "LastMessages": "history",
    "Reaper": "reaper",
    "RollingSummary": "history",
    "ScopedExecutor": "threads",
    "Summary": "history",
    "TokenBudget": "history",
    "in_scope": "threads",
    "parallel_map": "background",
    "run_in_scope": "threads",
}
"""Names of services and their modules, imported when first used: a login needs none of them."""


def __getattr__(name: str) -> object:
    """Import a service."""
    if name not in _SERVICES:
        raise AttributeError(f"module 'sojourn' has no attribute {name!r}", name=name)
    found: object = getattr(import_module(f"sojourn.{_SERVICES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return [*globals(), *_SERVICES]
