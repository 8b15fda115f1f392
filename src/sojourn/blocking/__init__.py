"""The sync face: the same sessions without `await`, for code that blocks and for many threads."""

from __future__ import annotations

from sojourn.blocking.background import Background
from sojourn.blocking.checkpoints import Checkpoints
from sojourn.blocking.deadline import timeout
from sojourn.blocking.documents import Documents
from sojourn.blocking.history import History
from sojourn.blocking.hooks import Cleaner, Hook
from sojourn.blocking.iteration import Iteration
from sojourn.blocking.lease import Lease
from sojourn.blocking.manager import SessionManager
from sojourn.blocking.parallel import parallel_map
from sojourn.blocking.reaper import Reaper
from sojourn.blocking.store import Store

__all__ = [
    "Background",
    "Checkpoints",
    "Cleaner",
    "Documents",
    "History",
    "Hook",
    "Iteration",
    "Lease",
    "Reaper",
    "SessionManager",
    "Store",
    "parallel_map",
    "timeout",
]
