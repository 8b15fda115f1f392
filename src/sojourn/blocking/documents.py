"""Documents without `await`: named bytes with a content type, of a session or of an app.

Made of `sojourn.documents` by `python -m tests.blocking.mirror`: change that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sojourn import documents as async_face
    from sojourn import manager
    from sojourn.blocking.gateway import Gateway
    from sojourn.model import Document
    from sojourn.store import Durability


class Documents:
    """The documents of one session, or with no session, of the app."""

    def __init__(
        self, gateway: Gateway, of: Callable[[manager.SessionManager], async_face.Documents]
    ) -> None:
        """Made by `SessionManager.documents`."""
        of(gateway.bridge().sessions)  # refuses at once what makes no sense
        self._gateway = gateway
        self._of = of

    def put(
        self,
        collection: str,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Store a document; the same collection and key replace it. `ttl` is in seconds.

        Raises `NotFound` (or `Ended`) when the session is missing, `TooLarge` over `MAX_DOCUMENT`
        bytes, `Unserializable` for something that is not bytes.
        """
        self._gateway.run(
            lambda sessions: self._of(sessions).put(
                collection, key, body, content_type=content_type, ttl=ttl, durability=durability
            )
        )

    def get(self, collection: str, key: str, *, expired: bool = False) -> Document | None:
        """Return a document with its body, `None` when there is none.

        `expired` also reads those of a session past its deadline, for its end hooks.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).get(collection, key, expired=expired)
        )

    def list(
        self, collection: str, *, after: str | None = None, limit: int = 100, expired: bool = False
    ) -> list[Document]:
        """Return documents without bodies, ascending by key, those behind the key `after`.

        Raises `InvalidQuery` for a `limit` that is not 1 to `MAX_PAGE`. `expired` as for `get`.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).list(
                collection, after=after, limit=limit, expired=expired
            )
        )

    def drop(self, collection: str, key: str | None = None) -> None:
        """Remove a document, or with no key the whole collection. Missing is fine.

        Raises `NotFound` (or `Ended`) when the session is missing.
        """
        self._gateway.run(lambda sessions: self._of(sessions).drop(collection, key))
