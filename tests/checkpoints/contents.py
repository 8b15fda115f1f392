"""What checkpoints leave in the store, seen through the documents that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.checkpoints.bodies import CHUNKS, PENDING, STORED, USES
from sojourn.checkpoints.record import COLLECTION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn import Checkpoints, SessionManager


async def ids(checkpoints: Checkpoints) -> list[str]:
    """Return the ids of all checkpoints, the last saved first."""
    return [checkpoint.id for checkpoint in await checkpoints.list(limit=1_000)]


async def bodies(sessions: SessionManager, id: str) -> dict[str, int]:
    """Return the shared bodies that are used or pending, and how many chunks each has."""
    documents = sessions.documents(id)
    names = [use.key.split(".")[1] for use in await documents.list(USES)]
    names += [pending.key for pending in await documents.list(PENDING)]
    return {name: len(await documents.list(CHUNKS + name)) for name in names}


async def pending(sessions: SessionManager, id: str) -> list[str]:
    """Return the names of the bodies that perhaps nobody uses."""
    return [found.key for found in await sessions.documents(id).list(PENDING)]


async def stored(sessions: SessionManager, id: str) -> set[str]:
    """Return the names of the bodies that are stored, used or not."""
    return {found.key for found in await sessions.documents(id).list(STORED)}


async def is_clean(sessions: SessionManager, id: str) -> bool:
    """Return whether nothing at all of checkpoints is left in a session."""
    documents = sessions.documents(id)
    listed = [await documents.list(name) for name in (COLLECTION, USES, PENDING, STORED)]
    return not any(listed)


async def pieces(*parts: bytes | bytearray | memoryview) -> AsyncIterator[bytes]:
    """Yield a body piece by piece, as it is."""
    for part in parts:
        yield part  # type: ignore[misc]  # accepted all the same
