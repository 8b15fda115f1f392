"""A server that is frozen in its tracks: what every kind of call makes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.faults.soak import SOAK, Progress

from sojourn import Event, SessionManager, Unavailable
from sojourn.store import DocumentQuery, Due, EventQuery, Query, Walk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CROWD = 600
"""Appends at once, beside one call of each kind: more than one batch holds."""

MOST_LIMITS = 2.0 if SOAK else 2.5
"""Limits that a call may take. In the short form half a one is for the tests that run beside it."""


async def let_every_call_end(
    url: str, limit: float, *, freeze: Callable[[], None], thaw: Callable[[], None]
) -> None:
    """Freeze the server of a URL whose time limit is `limit` seconds, and look when calls end."""
    async with SessionManager.open(url) as sessions:
        session = await sessions.create(id="s")
        await sessions.create(id="gone")
        store = sessions.store
        now = 1
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: sessions.append(session, Event(kind="note")),
            lambda: sessions.get("s", events=5),
            sessions.list,
            sessions.count,
            lambda: sessions.heartbeat("s"),
            lambda: sessions.delete("gone"),
            lambda: sessions.forget("u"),
            lambda: sessions.create(id="new"),
            lambda: store.events("default", "s", now, EventQuery(last=1)),
            lambda: store.due(Due(app="default", now=now, limit=1)),
            lambda: store.reap(Due(app="default", now=now, limit=1)),
            lambda: store.tiers("default", "u"),
            lambda: store.documents(DocumentQuery(app="default", id="s", collection="c", now=now)),
            lambda: store.dump(Walk(app="default", now=now)),  # type: ignore[attr-defined]  # it can
            lambda: store.list(Query(app="default", now=now)),
        ]
        progress = Progress("calls to a frozen server", len(calls) + CROWD)
        loop = asyncio.get_running_loop()
        freeze()
        try:
            async with asyncio.timeout(MOST_LIMITS * limit):
                begun = loop.time()
                outcomes = await asyncio.gather(
                    *(call() for call in [*calls, *calls[:1] * CROWD]), return_exceptions=True
                )
                took = loop.time() - begun
        finally:
            thaw()
        wrong = [one for one in outcomes if not isinstance(one, Unavailable)]
        assert not wrong, wrong[:3]
        assert (await sessions.require("s")).id == "s"
    name = f"frozen_{url.partition(':')[0]}"
    progress.figure(name, calls=len(outcomes), limit=limit, slowest=round(took, 2))
