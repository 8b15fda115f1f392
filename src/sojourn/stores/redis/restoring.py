"""Putting sessions into the store exactly as they were elsewhere, large ones part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.stores.redis.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.redis.client import Call, Client
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route


class Restorer:
    """Puts sessions and what they share."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def drop_call(self, route: Route, app: str, id: str) -> Call:
        """Return the call that throws away what was put of a session so far."""
        staging, abandoned = self._keys.staging(route, app)
        request = Request(route)
        request.do("HDEL", staging, id)
        request.do("ZREM", abandoned, id)
        for key in self._keys.staged(route, app, id):
            request.do("UNLINK", key)
        return request.call()

    async def forget(
        self, app: str, user: str, where: Sequence[Route], deadline: float
    ) -> None:
        """Throw away what was put of a user's sessions so far."""
