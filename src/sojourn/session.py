"""The working copy: a session in a caller's hands, and its state as a mapping that knows its diff.

Values are decoded when they are first looked at. A save compares what was looked at with what was
loaded, so a change deep inside a value counts, and what was not touched costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from sojourn import codec
from sojourn.errors import Corrupt, InvalidQuery, Unbound
from sojourn.events import events_from
from sojourn.model import DELETE, Deletion, Encoded, Event, Header
from sojourn.state import check_key, merge, tier_of
from sojourn.timestamps import EARLIEST, LATEST, NO_DATE, to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sojourn.lifecycle import Phase
    from sojourn.model import Record
    from sojourn.store import Change, Committed


class StateDelta(msgspec.Struct, frozen=True):
    """What a save sends: keys to encoded values or `DELETE`, and whether to start from empty."""

    changes: dict[str, msgspec.Raw | Deletion]
    clear: bool


class Merging(MutableMapping[str, Any]):
    """A mapping that takes `|=`, as a `dict` does."""

    __slots__ = ()

    def __ior__(self, changes: Mapping[str, Any] | Iterable[tuple[str, Any]], /) -> Self:
        """Set the keys of a mapping, or of pairs, one after the other. Raises what setting does."""
        if not isinstance(changes, Iterable):
            return NotImplemented
        self.update(changes)
        return self


class State(Merging):
    """The merged tiers of one session: `app:x`, `user:x`, `temp:x`, and its own keys.

    A `MutableMapping` of JSON values, which are checked when they are saved. Changes inside a value
    count. Setting a key raises `Unbound` for `user:` without a user, and `InvalidId` for a key that
    is malformed.
    """

    __slots__ = (
        "__weakref__",
        "_assigned",
        "_cleared_at",
        "_deleted",
        "_header",
        "_loaded",
        "_values",
        "_withdrawn",
        "_writes",
    )

    def __init__(self, header: Header, loaded: Encoded) -> None:
        """Made by `Session`, which tells of each new header.

        It is not known here: of a cycle nothing is freed until the garbage collector comes.
        """
        self._header = header
        self._loaded = loaded
        self._values: dict[str, Any] = {}
        self._assigned: dict[str, int] = {}
        self._deleted: dict[str, int] = {}
        self._withdrawn: dict[str, int] = {}
        self._writes = 0
        self._cleared_at = 0

    def belongs_to(self, header: Header) -> None:
        """Note what its session's header is by now."""
        self._header = header

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; `KeyError` when it is not there."""
        values = self._values
        if key in values:
            return values[key]
        if key in self._deleted or key not in self._loaded:
            raise KeyError(key)
        return self._decoded(key)

    def _decoded(self, key: str) -> Any:
        """Return the value that was loaded under a key, from now on decoded."""
        try:
            value = self._values[key] = codec.parsed(self._loaded[key])
        except codec.UNREADABLE as error:
            what = f"state {key!r} of session {self._header.id!r}"
            raise Corrupt(what, str(error)) from error
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        values = self._values
        if key in values:
            return values[key]
        if key in self._deleted or key not in self._loaded:
            return default
        return self._decoded(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key. `Unbound` for a `user:` key without a user, `InvalidId` for a bad one.

        The value is checked when it is saved.
        """
        check_key(key)
        tier = tier_of(key)[0]
        if tier == "user" and self._header.user is None:
            raise Unbound(self._header.id, key)
        self._values[key] = value
        self._deleted.pop(key, None)
        self._withdrawn.pop(key, None)
        if tier != "temp":
            self._writes += 1
            self._assigned[key] = self._writes

    def __delitem__(self, key: str) -> None:
        """Remove a key; `KeyError` when it is not there."""
        if key not in self:
            raise KeyError(key)
        self._values.pop(key, None)
        self._assigned.pop(key, None)
        self._writes += 1
        if key in self._loaded:
            self._deleted[key] = self._writes
        else:  # nothing to delete, unless a commit that is under way stores it
            self._withdrawn[key] = self._writes

    def __contains__(self, key: object) -> bool:
        """Return whether a key is there; a stored `None` is."""
        return key in self._values or (key in self._loaded and key not in self._deleted)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys: the loaded ones in their order, then the new ones."""
        yield from [key for key in self._loaded if key not in self._deleted]
        yield from [key for key in self._values if key not in self._loaded]

    def __len__(self) -> int:
        """Return how many keys there are."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show the keys, not the values: these may be private."""
        return f"<State of {self._header.id!r}: {', '.join(self) or 'empty'}>"

    def text(self, key: str, default: str = "") -> str:
        """Return the value of `key` if it is a string, else `default`."""
        value = self.get(key)
        return value if isinstance(value, str) else default

    def clear(self) -> None:
        """Remove the session's own keys. Saved like this, the session is deleted.

        Keys that are set afterwards keep it, with only those. Shared and `temp:` keys stay.
        """
        for key in [key for key in self if tier_of(key)[0] == "session"]:
            del self[key]
        self._writes += 1
        self._cleared_at = self._writes

    @property
    def cleared(self) -> bool:
        """Whether `clear` was called and nothing was set since: a save will delete the session."""
        cleared_at = self._cleared_at
        if not cleared_at or any(write > cleared_at for write in self._assigned.values()):
            return False
        return all(tier_of(key)[0] != "session" for key in self)  # none came with an event

    @property
    def modified(self) -> bool:
        """Whether a save would write. Values that cannot be saved count as changed."""
        if self._cleared_at or self._assigned or self._deleted:
            return True
        loaded = self._loaded
        for key, value in self._values.items():
            kind = type(value)
            if (kind is not list and kind is not dict) or key not in loaded:
                continue  # nobody can change it inside
            # That the text is the same is what is found nearly always, and quick to see.
            if not codec.is_text_of(value, loaded[key]) and self._differs(key):
                return True
        return False

    def _differs(self, key: str) -> bool:
        """Return whether a value that was looked at was changed inside."""
        try:
            return self._encoded_if_changed(key) is not None
        except Exception:  # noqa: BLE001 - what cannot be encoded is not what was loaded
            return True

    def _encoded_if_changed(self, key: str) -> msgspec.Raw | None:
        value = self._values[key]
        text = codec.encode(value, f"state.{key}")
        loaded = self._loaded.get(key)
        if key in self._assigned or loaded is None:
            return msgspec.Raw(text)
        if text == bytes(loaded) or codec.same(value, codec.decode(loaded, key)):
            return None
        return msgspec.Raw(text)

    def delta(self) -> StateDelta:
        """Return what a save has to send. Raises `Unserializable`, naming the path."""
        changes: dict[str, msgspec.Raw | Deletion] = {}
        for key, value in self._values.items():
            if tier_of(key)[0] == "temp":
                continue
            if key in self._assigned or type(value) in (list, dict):
                encoded = self._encoded_if_changed(key)
                if encoded is not None:
                    changes[key] = encoded
        if self._cleared_at:  # what came with an event since is not to be cleared
            for key, text in self._loaded.items():
                if tier_of(key)[0] == "session":
                    changes.setdefault(key, text)
        for key in self._deleted:
            changes[key] = DELETE
        return StateDelta(changes, self._cleared_at > 0)

    def peek(self, key: str) -> bytes | msgspec.Raw | None:
        """Return the JSON text of a value, `None` without one. It does not count as looked at."""
        if key in self._values:
            return codec.encode(self._values[key], f"state.{key}")
        return None if key in self._deleted else self._loaded.get(key)

    def changed(self) -> list[str]:
        """Return the keys that a save would write or remove. Raises `Unserializable`."""
        return list(self.delta().changes)

    def take(self, key: str, other: State) -> None:
        """Take over what another copy has stored under `key`; what was set here is dropped."""
        for held in (self._values, self._assigned, self._deleted, self._withdrawn, self._loaded):
            held.pop(key, None)
        if key in other._loaded:
            self._loaded[key] = other._loaded[key]

    @property
    def writes(self) -> int:
        """A number that grows with every change by the caller."""
        return self._writes

    def saved(self, delta: StateDelta, writes: int) -> None:
        """Note that `delta`, made when `writes` was the count, is stored now."""
        for key, value in delta.changes.items():
            if isinstance(value, msgspec.Raw):
                self._loaded[key] = value
                if self._assigned.get(key, 0) <= writes:
                    self._assigned.pop(key, None)
                if key in self._withdrawn:
                    self._deleted[key] = self._withdrawn.pop(key)
            else:
                self._loaded.pop(key, None)
                self._deleted.pop(key, None)
        if self._cleared_at <= writes:
            self._cleared_at = 0

    def applied(self, changes: Mapping[str, msgspec.Raw | Deletion], writes: int) -> None:
        """Take over changes that were committed with an event when `writes` was the count.

        What the caller did to a key since then stays, for the next save. So does a `clear`: it
        removes what an event brought that was appended before it.
        """
        if not (self._assigned or self._deleted or self._withdrawn or self._cleared_at):
            for key in changes if self._values else ():
                self._values.pop(key, None)
            self._loaded.update(changes)  # type: ignore[arg-type]  # those to remove go next
            if DELETE in changes.values():
                for key, value in changes.items():
                    self._set_loaded(key, value)
            return
        cleared = self._cleared_at > writes
        for key, value in changes.items():
            self._set_loaded(key, value)
            if self._withdrawn.get(key, 0) > writes and key in self._loaded:
                self._deleted[key] = self._withdrawn.pop(key)
            if max(self._assigned.get(key, 0), self._deleted.get(key, 0)) <= writes:
                self._values.pop(key, None)
                self._assigned.pop(key, None)
                self._deleted.pop(key, None)
                self._withdrawn.pop(key, None)
                if cleared and key in self._loaded and tier_of(key)[0] == "session":
                    self._deleted[key] = self._cleared_at
            elif key not in self._loaded:
                self._deleted.pop(key, None)

    def _set_loaded(self, key: str, value: msgspec.Raw | Deletion) -> None:
        if isinstance(value, msgspec.Raw):
            self._loaded[key] = value
        else:
            self._loaded.pop(key, None)

    def set_temporary(self, changes: Mapping[str, Any]) -> None:
        """Take over `temp:` keys of an event's delta: they live on this copy only."""
        for key, value in changes.items():
            if value is DELETE:
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def rebased(self, other: State) -> None:
        """Take over what another copy knows to be stored; what was changed here stays, unsaved."""
        for key in [key for key in self._loaded if key not in other._loaded]:
            self._drop_look(key)
            del self._loaded[key]
        for key, text in other._loaded.items():
            if key not in self._loaded or bytes(self._loaded[key]) != bytes(text):
                self._drop_look(key)
                self._loaded[key] = text

    def _drop_look(self, key: str) -> None:
        """Forget a value that was only looked at."""
        if key in self._values and key not in self._assigned and not self._differs(key):
            del self._values[key]

    def reload(self, loaded: Encoded) -> None:
        """Start over from what is stored now; unsaved changes are dropped, `temp:` keys stay."""
        self._values = {k: v for k, v in self._values.items() if tier_of(k)[0] == "temp"}
        self._loaded = loaded
        self._assigned.clear()
        self._deleted.clear()
        self._withdrawn.clear()
        self._cleared_at = 0

    def loaded_tier(self, keys: Encoded) -> None:
        """Add keys of a tier that became visible; what the caller set or changed stays."""
        for key, text in keys.items():
            self._drop_look(key)  # it is another by now
            self._loaded[key] = text


class Doubtful(NamedTuple):
    """A commit whose reply was lost, and what is to be done with its outcome."""

    change: Change
    taken: Callable[[Committed], None]


class Session:
    """A session as one caller holds it. Nothing is stored until it is saved or appended to."""

    __slots__ = (
        "__weakref__",
        "_header",
        "_revision",
        "_stored",
        "doubtful",
        "events",
        "idle_moved",
        "scopes",
        "state",
    )

    def __init__(self, header: Header, loaded: Encoded, *, stored: bool) -> None:
        """Made by `SessionManager`."""
        self._header = header
        self._revision = header.revision if stored else 0
        self._stored = stored
        self.state = State(header, loaded)
        """What it holds, as a mapping: see `State`."""
        self.events: list[Event] = []
        """The window of its log that was asked for when it was loaded; empty if none was."""
        self.scopes = 0
        """Live scopes that work on this copy."""
        self.idle_moved: tuple[Callable[[], None], ...] = ()
        """What is called when its idle time is another one: those scopes keep pace with it."""
        self.doubtful: Doubtful | None = None
        """A commit of this copy of which nobody could say whether it was applied."""

    def __repr__(self) -> str:
        """Show identity and place, not contents."""
        return f"<Session {self.id!r} {self.phase} revision {self.revision}>"

    @property
    def header(self) -> Header:
        """The record's header as last seen."""
        return self._header

    @property
    def app(self) -> str:
        """The app it belongs to."""
        return self._header.app

    @property
    def id(self) -> str:
        """Its id, unique in the app."""
        return self._header.id

    @property
    def user(self) -> str | None:
        """The user it is bound to, `None` while anonymous."""
        return self._header.user

    @property
    def lifecycle(self) -> str:
        """The name of its lifecycle preset."""
        return self._header.lifecycle

    @property
    def phase(self) -> Phase:
        """Where it is in its lifecycle, as last seen."""
        return self._header.phase

    @property
    def reason(self) -> str | None:
        """Why it moved to its phase, if a reason was given."""
        return self._header.reason

    @property
    def revision(self) -> int:
        """The revision this copy has seen; 0 while it is not stored."""
        return self._revision

    @property
    def epoch(self) -> str:
        """The random id of this incarnation."""
        return self._header.epoch

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return to_datetime(self._header.created_at)

    @property
    def active_at(self) -> datetime:
        """When it was last used, as last seen."""
        return to_datetime(self._header.active_at)

    @property
    def expires_at(self) -> datetime | None:
        """When it expires unless it is used again, `None` for never."""
        at = self._header.expires_at
        return None if at is None else to_datetime(at)

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return MappingProxyType(self._header.labels)

    @property
    def parent(self) -> str | None:
        """The id of the session that it is a child of."""
        return self._header.parent

    @property
    def forked_from(self) -> str | None:
        """The id of the session that it was forked from."""
        return self._header.forked_from

    @property
    def stored(self) -> bool:
        """Whether it has been stored."""
        return self._stored

    @property
    def modified(self) -> bool:
        """Whether a save would write."""
        return self.state.modified

    def _take(self, header: Header) -> None:
        before, self._header = self._header, header
        self.state.belongs_to(header)
        if self.idle_moved and header.idle != before.idle:
            for tell in self.idle_moved:
                tell()

    def committed(self, header: Header, revision: int) -> None:
        """Take over the outcome of a commit made through this copy.

        The revision moves only if nobody else committed in between: else a later strict save has
        to conflict, until `refresh`.
        """
        self._take(header)
        if revision == self._revision + 1 or not self._stored:
            self._revision = revision
        self._stored = True

    def bound(self, user: str) -> None:
        """Bind a copy that is not stored yet."""
        self._take(msgspec.structs.replace(self._header, user=user))

    def seen(self, header: Header) -> None:
        """Take over a header that says nothing on state: deadlines, phase, labels."""
        self._take(header)

    def logged(self, events: Sequence[Event]) -> None:
        """Add events that were stored, each once."""
        held = self.events
        for event in events:
            if not held or (event.seq or 0) > (held[-1].seq or 0):
                held.append(event)

    def cut(self, after: int) -> None:
        """Drop the events behind number `after`."""
        self.events[:] = [event for event in self.events if (event.seq or 0) <= after]

    def adopt(self, other: Session, delta: StateDelta, writes: int) -> None:
        """Take over what another working copy of the same session has saved for this one.

        `delta` is what was carried over to it, when `writes` was the count of changes here. What
        was changed since then is still to be saved.
        """
        if other.header.revision >= self._header.revision:
            self._take(other.header)
            self._revision = other.revision
        self.state.saved(delta, writes)
        self.state.rebased(other.state)

    def reloaded(self, record: Record) -> None:
        """Take over all of a record."""
        self._take(record.header)
        self._revision = record.header.revision
        self._stored = True
        self.state.reload(merged_tiers(record))
        self.events = events_from(record.entries)


def merged_tiers(record: Record) -> Encoded:
    """Return the tiers of a record as one mapping with prefixed keys, still encoded."""
    return merge(record.state, record.user_state, record.app_state)


def check_session(value: object, app: str) -> None:
    """Raise `InvalidQuery` for what is no session of the app; verbs that need a copy ask first."""
    if not isinstance(value, Session):
        raise InvalidQuery("session", f"give a Session, not {type(value).__name__}")
    check_app(value, app)


def check_app(target: Session | str | None, app: str) -> None:
    """Raise `InvalidQuery` for the copy of a session of another app: ids mean others there."""
    if isinstance(target, Session) and target.header.app != app:
        raise InvalidQuery(
            "session", f"it is of app {target.app!r}, and this manager keeps {app!r}"
        )


def read_back(record: Record) -> Session:
    """Return the working copy of a record as `session_from` does.

    Raises `Corrupt` where one of its times is no date: the copy could not tell it.
    """
    header = record.header
    until = header.expires_at
    try:
        dated = (
            EARLIEST <= header.created_at <= LATEST
            and EARLIEST <= header.active_at <= LATEST
            and (until is None or EARLIEST <= until <= LATEST)
        )
    except TypeError:  # damage left something that is no number
        dated = False
    if not dated:
        raise Corrupt(f"session {header.id!r}", NO_DATE)
    return session_from(record)


def session_from(record: Record) -> Session:
    """Return the working copy of a record, with the window of events that it came with.

    The record's state becomes the copy's own.
    """
    shared = record.user_state or record.app_state
    loaded = merged_tiers(record) if shared else record.state
    session = Session(record.header, loaded, stored=True)
    if record.entries:
        session.events = events_from(record.entries)
    return session
