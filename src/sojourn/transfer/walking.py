"""Walking through a store: its apps, their sessions, and what their sessions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from sojourn.arguments import several
from sojourn.errors import Unavailable
from sojourn.limits import MAX_PAGE
from sojourn.model import StoredDocument
from sojourn.names import check_name
from sojourn.store import Query, Store, SupportsTransfer, Walk
from sojourn.timestamps import EARLIEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sojourn.ports import Clock
    from sojourn.store import Dumped, Headers, Tier

PAGE = 256
"""Sessions looked at together: enough to share the price of a round trip, few enough to hold."""

OWN = "\x1f"
"""Begins the collections in which a copy keeps its own notes: no caller's name begins with it."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done ("exporting", "copying", "verifying", ...), how many sessions are
done, and about how many there are."""


class TransferStore(Store, SupportsTransfer, Protocol):
    """A store that does both: serve sessions, and give and take them whole."""


def transferable(store: Store) -> TransferStore:
    """Return a store as one whose sessions can be moved. Raises `Unavailable` if it is none."""
    if not isinstance(store, SupportsTransfer):
        reason = "its sessions can not be moved: this kind of store does not support transfer"
        raise Unavailable(store.name, reason)
    return cast("TransferStore", store)


async def apps_of(store: TransferStore, chosen: Iterable[str] | None) -> list[str]:
    """Return the chosen apps, all that have anything for `None`.

    Raises `InvalidId`, `InvalidQuery` for a text: its letters are not the apps that are meant.
    """
    if chosen is not None:
        names = [check_name("app", app) for app in several("apps", chosen, "names of apps")]
        return list(dict.fromkeys(names))
    found: list[str] = []
    while page := await store.apps(found[-1] if found else "", MAX_PAGE):
        found += page
    return found


async def about(store: TransferStore, apps: Iterable[str]) -> int:
    """Return how many sessions some apps have now, those past their deadline too."""
    return sum([await store.count(Query(app=app, now=EARLIEST)) for app in apps])


async def headers(store: TransferStore, app: str, clock: Clock) -> AsyncIterator[Headers]:
    """Yield all headers of an app, page by page."""
    position: str | None = None
    while True:
        walk = Walk(app=app, now=clock.now(), position=position, limit=PAGE)
        page = await store.headers(walk)
        yield page
        if (position := page.position) is None:
            return


async def dumps(
    store: TransferStore, app: str, clock: Clock, ids: tuple[str, ...] | None = None
) -> AsyncIterator[Dumped]:
    """Yield the sessions of an app, or those of `ids`, page by page."""
    position: str | None = None
    while True:
        walk = Walk(app=app, now=clock.now(), ids=ids, position=position, limit=PAGE)
        page = await store.dump(walk)
        yield page
        if (position := page.position) is None:
            return


async def shared(
    store: TransferStore, app: str, clock: Clock
) -> AsyncIterator[tuple[Tier | StoredDocument, ...]]:
    """Yield what an app's sessions share, page by page, without a copy's own notes."""
    position: str | None = None
    while True:
        page = await store.shared(app, clock.now(), position)
        yield tuple(
            item
            for item in page.items
            if not (isinstance(item, StoredDocument) and item.collection.startswith(OWN))
        )
        if (position := page.position) is None:
            return


class Count:
    """How far a walk is, told to whoever wants to know."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._what = ""
        self._done = 0

    def begin(self, what: str) -> None:
        """Start to count anew, for another round over the same sessions."""
        self._what, self._done = what, 0
        self.advance(0)

    def advance(self, by: int) -> None:
        """Count so many more, and tell."""
        self._done += by
        self._total = max(self._total, self._done)
        if self._progress is not None:
            self._progress(self._what, self._done, self._total)
