"""The reaper of the sync face: sweeps in the manager's loop, while no thread waits for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from sojourn import reaper as async_face
from sojourn.blocking.deadline import late_or_not, leave
from sojourn.blocking.manager import gateway_of
from sojourn.reaper import BATCH, CONCURRENCY, INTERVAL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sojourn import manager
    from sojourn.blocking.manager import SessionManager


class Reaper:
    """Ends expired sessions, retries failed ends, removes records whose retention is over.

    Call `sweep()` yourself, or `with Reaper(sessions, interval=60)` to have it done.
    """

    def __init__(
        self,
        sessions: SessionManager,
        *,
        batch: int = BATCH,
        concurrency: int = CONCURRENCY,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        """Sweep `batch` sessions in a step, the hooks of up to `concurrency` of them at a time.

        `interval` is the time between two sweeps, in seconds. Raises `InvalidQuery` for one of
        these that is not positive, for a number of sessions that is not whole, and for a batch
        of more than 100,000.
        """
        self._gateway = gateway_of(sessions)
        self._make = partial(
            async_face.Reaper, batch=batch, concurrency=concurrency, interval=interval
        )
        bridge = self._gateway.bridge()
        self._of = bridge.sessions
        self._reaper = self._make(bridge.sessions)

    def _inner(self, sessions: manager.SessionManager) -> async_face.Reaper:
        """Return the async reaper of this process."""
        if self._of is not sessions:
            self._of, self._reaper = sessions, self._make(sessions)
        return self._reaper

    def sweep(self, *, progress: Callable[[int], object] | None = None) -> int:
        """Sweep once, batch by batch, until nothing more is due; return how many were ended.

        A session that fails is logged, stays ending, and does not stop the others. `progress` is
        called after each batch with how many it ended.
        """
        return self._gateway.run(lambda sessions: self._inner(sessions).sweep(progress=progress))

    def __enter__(self) -> Self:
        """Start sweeping every `interval` seconds."""
        self._gateway.run(lambda sessions: self._inner(sessions).__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, once the batch under way is done."""
        leave(self.stop, error)

    def stop(self) -> None:
        """Stop, once the batch under way is done. Twice is fine; no task is left."""

        def stop() -> None:
            self._gateway.run(lambda sessions: self._inner(sessions).stop())

        late_or_not(stop, stop)
