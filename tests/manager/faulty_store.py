"""A store that goes wrong when it is told to, with a manager in front."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sojourn import SessionManager, open_store
from sojourn.testing import FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def faulty(url: str) -> AsyncIterator[tuple[FaultyStore, SessionManager]]:
    """Yield a faulty store around the one at `url`, and a manager on it."""
    store = FaultyStore(open_store(url))
    await store.open()
    try:
        yield store, SessionManager(store)
    finally:
        store.heal()
        await store.close()
