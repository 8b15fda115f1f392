"""SessionManager without `await`: how it is made, opened and closed; its verbs are in `verbs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sojourn import manager as async_face
from sojourn.blocking import store as underneath
from sojourn.blocking.gateway import Gateway
from sojourn.blocking.hooks import threaded_cleaners
from sojourn.blocking.verbs import Verbs
from sojourn.errors import InvalidQuery
from sojourn.expiry import NEVER, Expiry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from sojourn.blocking.hooks import Cleaner, Hook
    from sojourn.ports import Clock, IdSource
    from sojourn.store import Durability, Store
    from sojourn.telemetry import Observer


class SessionManager(Verbs):
    """Keeps the sessions of one app in one store, for code that blocks.

    It is safe to share between threads. Use `SessionManager.open(url)` to have it open and close
    its store; one that is given a store leaves that to whoever made it (see `store`).

    All work is done by one event loop in a thread of its own, which the first call starts. What is
    made by `open(url)` may be called in a forked process: its first call there begins anew, with a
    loop and a store of its own.
    """

    def __init__(
        self,
        store: Store,
        *,
        app: str = "default",
        clock: Clock | None = None,
        ids: IdSource | None = None,
        expiry: Expiry = NEVER,
        cleaners: Sequence[Cleaner] = (),
        durability: Durability | None = None,
    ) -> None:
        """Take the collaborators; raises `InvalidQuery` at once, naming one that is missing.

        `expiry` is the default for new sessions, `durability` for writes (the store's own if
        `None`), `cleaners` free what a session holds outside when it ends.
        """
        threaded = threaded_cleaners(cleaners)

        def make() -> async_face.SessionManager:
            return async_face.SessionManager(
                store,
                app=app,
                clock=clock,
                ids=ids,
                expiry=expiry,
                cleaners=threaded,
                durability=durability,
            )

        self._gateway = Gateway(make)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        observers: Sequence[Observer] = (),
        observer_key: bytes | None = None,
        **collaborators: Any,
    ) -> Self:
        """Return a manager that owns the store of `url`: `with` opens and closes both.

        `collaborators` are the arguments of `SessionManager` but the store. URLs are explained at
        `open_store`. `observers` are told of every call of the store; `observer_key` makes the
        fingerprints that they see instead of ids (see `sojourn.telemetry`). Raises `InvalidQuery`
        for a URL or a collaborator that makes no sense; entering it raises what the store's `open`
        does, a subclass of `Unavailable` or `Corrupt`.
        """
        if "cleaners" in collaborators:
            collaborators["cleaners"] = threaded_cleaners(collaborators["cleaners"])

        def make() -> async_face.SessionManager:
            return async_face.SessionManager.open(
                url, observers=observers, observer_key=observer_key, **collaborators
            )

        manager = cls(make().store, **collaborators)  # refuses at once what makes no sense
        manager._gateway.own(make)
        return manager

    def __enter__(self) -> Self:
        """Open the store if it is ours."""
        self._gateway.ask(lambda _sessions: None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let ends under way finish, then refuse everything (`Closed`). Twice is fine.

        The store is closed if it is ours. Raises `InvalidQuery` in an end hook, for which it would
        wait.
        """
        self._gateway.close()

    @property
    def app(self) -> str:
        """The app whose sessions these are."""
        return self._gateway.bridge().sessions.app

    @property
    def store(self) -> underneath.Store:
        """The store underneath, for what only some have: `backup`, `check`."""
        return underneath.Store(self._gateway)

    def on_end(self, hook: Hook) -> Hook:
        """Run `def hook(session, reason)` before a session is removed; raise to be retried.

        It runs at least once, within `HOOK_SECONDS`, in parallel with the others. Inside a hook,
        `end` and `finish` of the session that is being ended return `False` at once.
        """
        self._gateway.add_hook(hook)
        return hook


def gateway_of(sessions: object) -> Gateway:
    """Return what leads to a manager's loop. Raises `InvalidQuery` for what is no such manager."""
    if not isinstance(sessions, SessionManager):
        raise InvalidQuery(
            "sessions", f"give a sojourn.blocking.SessionManager, not {type(sessions).__name__}"
        )
    return sessions._gateway  # noqa: SLF001 - the two are of one module
