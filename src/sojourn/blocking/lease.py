"""Leases of the sync face: the async ones, with verbs that block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import InvalidQuery

if TYPE_CHECKING:
    from sojourn import lease as async_face
    from sojourn.blocking.gateway import Bridge


class Lease:
    """A lease that is held. Hand it to `append`, `save` and the like: they fail once it is lost."""

    def __init__(self, bridge: Bridge, held: async_face.Lease) -> None:
        """Made by `SessionManager.lease`."""
        self._bridge = bridge
        self._held = held

    def __repr__(self) -> str:
        """Show whose it is and its token."""
        return repr(self._held)

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._held.id

    @property
    def epoch(self) -> str | None:
        """The incarnation of the session that it is of."""
        return self._held.epoch

    @property
    def token(self) -> int:
        """The number that rises with every holder."""
        return self._held.token

    @property
    def lost(self) -> bool:
        """Whether it is known to be another's by now."""
        return self._held.lost

    def renew(self) -> None:
        """Start its span over. Raises `LeaseLost` once another worker has it."""
        self._bridge.run(lambda _sessions: self._held.renew())

    def release(self) -> None:
        """Let the next worker have it. One that is lost already is fine."""
        self._bridge.run(lambda _sessions: self._held.release())


def held(lease: Lease | None) -> async_face.Lease | None:
    """Return the lease as the async manager takes it. Raises `InvalidQuery` for what is none."""
    if lease is None:
        return None
    if not isinstance(lease, Lease):
        raise InvalidQuery("lease", f"give a lease of this manager, not {type(lease).__name__}")
    return lease._held  # noqa: SLF001 - the two are of one module
