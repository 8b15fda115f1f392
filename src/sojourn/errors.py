"""One error tree: every error says what is wrong and carries its facts as attributes.

Absence is data on read (`None`) and an error on write (`NotFound`). Corrupt is never missing, and
trouble with the storage (`Unavailable`) never looks like either. No error message holds a secret:
session ids are not secrets, and the user of a session is never named to somebody who is not that
user.
"""

from __future__ import annotations


class SojournError(Exception):
    """Root of everything that Sojourn raises on purpose."""


class NotFound(SojournError):
    """There is no such session for this caller: unknown, deleted, expired, or ended."""

    def __init__(self, id: str, reason: str = "no such session") -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason

    def __str__(self) -> str:
        return f"session {self.id!r}: {self.reason}"


class NotOwner(NotFound):
    """The session belongs to somebody else. To most callers this is the same as `NotFound`."""

    def __init__(self, id: str, reason: str = "not a session of this user") -> None:
        super().__init__(id, reason)


class Ended(NotFound):
    """The session is over (ending, ended, or past its deadline): it takes no new writes."""

    def __init__(self, id: str, phase: str, reason: str) -> None:
        super().__init__(id, reason)
        self.args = (id, phase, reason)
        self.phase = phase

    def __str__(self) -> str:
        return f"session {self.id!r} is over ({self.phase}): {self.reason}"


class CheckpointMissing(NotFound):
    """The session has no such checkpoint, and one is needed. `checkpoint` is its id."""

    def __init__(self, id: str, checkpoint: str, reason: str = "no such checkpoint") -> None:
        super().__init__(id, reason)
        self.args = (id, checkpoint, reason)
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        return f"checkpoint {self.checkpoint!r} of session {self.id!r}: {self.reason}"


class CheckpointInUse(SojournError):
    """Another checkpoint, `child`, came from this one. It was not deleted."""

    def __init__(self, id: str, checkpoint: str, child: str) -> None:
        super().__init__(id, checkpoint, child)
        self.id = id
        self.checkpoint = checkpoint
        self.child = child

    def __str__(self) -> str:
        return (
            f"checkpoint {self.checkpoint!r} of session {self.id!r} is what {self.child!r} came "
            f"from; delete that too, or say cut=True to let its line end there"
        )


class AlreadyExists(SojournError):
    """A session with this id exists; it was not changed."""

    def __init__(
        self, id: str, reason: str = "a session with this id exists", *, expired: bool = False
    ) -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason
        self.expired = expired

    def __str__(self) -> str:
        return f"session {self.id!r}: {self.reason}"


class PathTaken(AlreadyExists):
    """There is a file where one was to be written; it was not touched. `id` is the path."""

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


class Conflict(SojournError):
    """The session moved on since it was loaded. Nothing was written.

    `expected` and `actual` are (epoch, revision). `refresh` the session and try again, or save with
    `conflict="merge"`.
    """

    def __init__(
        self, id: str, expected: tuple[str | None, int | None], actual: tuple[str, int]
    ) -> None:
        super().__init__(id, expected, actual)
        self.id = id
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return (
            f"session {self.id!r} moved on: expected (epoch, revision) {self.expected}, "
            f"found {self.actual}; refresh it and try again"
        )


class TailMismatch(Conflict):
    """The log does not end with the events that `replace_suffix` was told to replace."""

    def __init__(
        self,
        id: str,
        expected: tuple[str | None, int | None],
        actual: tuple[str, int],
        expected_tail: tuple[int, ...],
        actual_tail: tuple[int, ...],
    ) -> None:
        super().__init__(id, expected, actual)
        self.args = (id, expected, actual, expected_tail, actual_tail)
        self.expected_tail = expected_tail
        self.actual_tail = actual_tail

    def __str__(self) -> str:
        return (
            f"session {self.id!r}: the log ends with {list(self.actual_tail)}, "
            f"not with {list(self.expected_tail)}"
        )


class InvalidId(SojournError, ValueError):
    """An id, user, app, label or key is not acceptable. `what` names it, `reason` says why."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"invalid {self.what}: {self.reason}"


class InvalidQuery(SojournError, ValueError):
    """An argument of a read makes no sense. `field` names it, `reason` says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"invalid {self.field}: {self.reason}"


class InvalidCursor(InvalidQuery):
    """The cursor is malformed or was given out for another query."""

    def __init__(self, reason: str) -> None:
        super().__init__("cursor", reason)
        self.args = (reason,)


class InvalidSetting(SojournError, ValueError):
    """A setting is unknown, or its value is not one. `source` says where it was found.

    `name` is the setting's, or of what was taken for one; a secret value is never in `reason`.
    """

    def __init__(self, name: str, source: str, reason: str) -> None:
        super().__init__(name, source, reason)
        self.name = name
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"setting {self.name!r} ({self.source}): {self.reason}"


class InvalidTransition(SojournError):
    """The session's phase does not allow this trigger. Nothing was changed."""

    def __init__(self, phase: str, trigger: str, reason: str) -> None:
        super().__init__(phase, trigger, reason)
        self.phase = phase
        self.trigger = trigger
        self.reason = reason

    def __str__(self) -> str:
        return f"invalid transition: phase={self.phase} trigger={self.trigger} reason={self.reason}"


class Unserializable(SojournError, TypeError):
    """A value is not a JSON value. `path` says where it sits, for example `state.cart[2].price`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TooLarge(SojournError, ValueError):
    """A value is over a stated size. `size` and `limit` are in the unit that `what` names."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what = what
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.what} is {self.size}, the limit is {self.limit}"


class LogFull(TooLarge):
    """A session's log has used up its sequence numbers; fork the session or start a new one."""


class Unbound(SojournError):
    """A `user:` key was written to an anonymous session; `bind` it to a user first."""

    def __init__(self, id: str, key: str) -> None:
        super().__init__(id, key)
        self.id = id
        self.key = key

    def __str__(self) -> str:
        return f"session {self.id!r} has no user to own {self.key!r}; bind it to one first"


class AlreadyBound(SojournError):
    """The session is bound to another user. A bound session is never rebound."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return f"session {self.id!r} is bound to another user and is never rebound"


class RoleTaken(SojournError):
    """A live session holds this exclusive combination of labels. `holder` is its id."""

    def __init__(self, claim: dict[str, str], holder: str) -> None:
        super().__init__(claim, holder)
        self.claim = claim
        self.holder = holder

    def __str__(self) -> str:
        return f"{self.claim} is taken by live session {self.holder!r}"


class LeaseHeld(SojournError):
    """Another worker holds the lease, unless renewed until `until` (epoch microseconds)."""

    def __init__(self, id: str, until: int) -> None:
        super().__init__(id, until)
        self.id = id
        self.until = until

    def __str__(self) -> str:
        return f"session {self.id!r} is leased by another worker"


class LeaseLost(SojournError):
    """This lease is over: it was released, or another worker took the session since."""

    def __init__(self, id: str, token: int) -> None:
        super().__init__(id, token)
        self.id = id
        self.token = token

    def __str__(self) -> str:
        return f"lease {self.token} of session {self.id!r} is over"


class EndFailed(SojournError):
    """End hooks or cleaners failed. The session stays in its ending phase and is retried.

    `causes` are the exceptions, in the order in which the hooks were registered.
    """

    def __init__(self, id: str, causes: tuple[BaseException, ...]) -> None:
        super().__init__(id, causes)
        self.id = id
        self.causes = causes

    def __str__(self) -> str:
        names = ", ".join(repr(cause) for cause in self.causes)
        return f"session {self.id!r} could not be ended yet, it will be retried: {names}"


class SummaryFailed(SojournError):
    """No summary was made. `reason` says why; nothing was stored, and nothing is hidden by it.

    What the summariser raised is the `__cause__`.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason

    def __str__(self) -> str:
        return f"the history of session {self.id!r} was not summarised: {self.reason}"


class OutOfScope(SojournError):
    """There is no ambient session here. `what` needs one: use it inside a scope."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} needs a session, and none is ambient here: use it inside a scope"


class AuthNeeded(SojournError):
    """Somebody has to log in, again or more strongly, before this. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"a login is needed: {self.reason}"


class TooManySessions(SojournError):
    """The user has `limit` sessions, and one more is refused. Let them end one first."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the user has {self.limit} sessions, which is the most there may be"


class QueueFull(SojournError):
    """So many jobs wait already. Nothing was accepted: wait with `submit`, or refuse the work."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} jobs wait already, which is the limit of this background runner"


class Corrupt(SojournError):
    """Stored data cannot be read back. `key` says which record, `reason` what is wrong with it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key} is corrupt: {self.reason}"


class Closed(SojournError):
    """The store or manager was closed, or never opened."""

    def __init__(self, what: str, reason: str = "closed") -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} is {self.reason}"


class MissingExtra(SojournError, ImportError):
    """What was asked for needs a package that is not installed. `extra` is what brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)
        self.what = what
        self.extra = extra

    def __str__(self) -> str:
        return f'{self.what} needs more packages: pip install "sojourn[{self.extra}]"'


class WouldBlock(SojournError, RuntimeError):
    """A call that waits was made where an event loop runs, which would stop with it."""

    def __init__(self, what: str, instead: str = "await sojourn.SessionManager here") -> None:
        super().__init__(what, instead)
        self.what = what
        self.instead = instead

    def __str__(self) -> str:
        return (
            f"{self.what} would block the event loop that runs in this thread: "
            f"{self.instead}, or call it in another thread (asyncio.to_thread)"
        )


class Unavailable(SojournError):
    """The storage is in trouble. The driver's error is the `__cause__`. Says nothing on absence.

    `denied` says that a right is missing: what was written may be there by halves.
    """

    denied: bool = False

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store}: {self.reason}"


class StorageFull(Unavailable):
    """No space left. Nothing of the write was kept; writing works again once there is space."""


class ReadOnly(Unavailable):
    """The store can not be written by this process."""


class ForeignFile(Unavailable):
    """The file or folder exists but was not made by Sojourn; it was not touched."""


class NewerSchema(Unavailable):
    """The file or folder was written by a newer Sojourn; it was not touched."""


class UnsupportedFilesystem(Unavailable):
    """The store sits where no file is safe (a network file system); it was not opened."""
