"""The Lua scripts, each known to the server by the hash of its text."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("lua")


class Script(NamedTuple):
    """A script: its text, and what a server that has seen it calls it."""

    text: bytes
    sha: bytes


def _script(*names: str) -> Script:
    """Return the script made of these files, one behind the other."""
    text = b"\n".join((_FOLDER / f"{name}.lua").read_bytes() for name in names)
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())


APPLY = _script("log", "remove", "apply")
"""Checks and commands: what writes."""

READ = _script("log", "read")
"""A session with its tiers and a window of its log."""

LATEST = _script("latest")
"""A session with its tiers and the last events of its log."""

PAGE = _script("page")
"""The next entries of orders, behind a position."""

ASK = _script("log", "ask")
"""What a decision has to know of a log."""

TIER = _script("tier")
"""A tier, and how far the errands of another route were done there."""

DOCUMENTS = _script("documents")
"""A page of the documents of one collection."""

SWEEP = _script("sweep")
"""What a route has that is due."""

COUNT = _script("count")
"""How many entries some orders have."""

EXPIRE = _script("remove", "expire")
"""Some of an owner's documents, without those that have expired."""

PAST = _script("past")
"""What is past its time in some orders."""

DUMP = _script("dump")
"""A session whole, or a piece of a large one."""

CHANGE = _script("change")
"""What nearly every write does to a session."""

RIGHTS = _script("rights")
"""Which commands the user may not run."""

ALL = (
    *(CHANGE, APPLY, LATEST, READ, PAGE, ASK, TIER, DOCUMENTS, SWEEP, EXPIRE, COUNT, PAST, DUMP),
    RIGHTS,
)
"""What a server is told that does not know one of them."""
