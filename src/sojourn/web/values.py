"""Values: what a framework's applications put into a session, where that is more than JSON."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from sojourn import codec

if TYPE_CHECKING:
    from sojourn.web.websession import WebSession


class Form(Protocol):
    """How a framework's values become JSON values, and what is made of these again."""

    def packed(self, value: Any, /) -> Any:
        """Return a JSON value for a value. Raises `TypeError` for what can not be kept."""

    def unpacked(self, value: Any, /) -> Any:
        """Return the value that was packed."""


class Values(MutableMapping[str, Any]):
    """The keys of a `WebSession`, with values as the framework's applications know them.

    What is set is held back until `flushed`. Changes inside a value that was looked at count.
    """

    def __init__(self, web: WebSession, form: Form) -> None:
        """`form` says how values are stored."""
        self.web = web
        self._form = form
        self._values: dict[str, Any] = {}
        self._texts: dict[str, bytes] = {}
        """What a list or dict that was looked at is in the session, as text."""
        self._set: set[str] = set()
        self._removed: set[str] = set()
        self.writes = 0
        """How often a key was set or removed."""

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; `KeyError` when it is not there."""
        if key in self._values:
            return self._values[key]
        if key in self._removed:
            raise KeyError(key)
        stored = self.web[key]
        value = stored if codec.is_scalar(stored) else self._form.unpacked(stored)
        if not codec.is_scalar(stored):
            self._texts[key] = codec.encode(stored, f"session.{key}")
        self._values[key] = value
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key; `Unavailable` without a store. The value is checked when it is flushed."""
        self.web.check_available()
        self._values[key] = value
        self._set.add(key)
        self._removed.discard(key)
        self.writes += 1

    def __delitem__(self, key: str) -> None:
        """Remove a key; `KeyError` when it is not there."""
        if key not in self:
            raise KeyError(key)
        self._values.pop(key, None)
        self._texts.pop(key, None)
        self._set.discard(key)
        self._removed.add(key)
        self.writes += 1

    def __contains__(self, key: object) -> bool:
        """Return whether a key is there."""
        return key in self._values or (key not in self._removed and key in self.web)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys: the stored ones in their order, then the new ones."""
        stored = [key for key in self.web if key not in self._removed]
        yield from stored
        yield from [key for key in self._values if key in self._set and key not in stored]

    def __len__(self) -> int:
        """Return how many keys there are."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show the keys, not the values: these may be private."""
        return f"<{', '.join(self) or 'empty'}>"

    @property
    def changed_inside(self) -> bool:
        """Whether a list or dict that was looked at is another by now."""
        return any(self._differs(key) for key in self._texts if key not in self._set)

    @property
    def modified(self) -> bool:
        """Whether a flush would change the session."""
        return bool(self._set or self._removed) or self.changed_inside

    def wrote(self, key: str) -> bool:
        """Return whether a key was set or removed, and not flushed yet."""
        return key in self._set or key in self._removed

    def _differs(self, key: str) -> bool:
        try:
            text = codec.encode(self._form.packed(self._values[key]), f"session.{key}")
        except Exception:  # noqa: BLE001 - what can not be kept is not what was stored
            return True
        return text != self._texts[key]

    def flushed(self) -> WebSession:
        """Bring what was changed into the session, and return it.

        Raises `InvalidId` for a key that is none, `Unavailable` where nothing can be stored, and
        `TypeError` or a subclass of it for a value that can not be kept.
        """
        for key in self._removed & set(self.web):
            del self.web[key]
        self._removed.clear()
        for key in [key for key in self._texts if key not in self._set]:
            if self._differs(key):
                self._put(key)
        for key in list(self._set):
            self._put(key)
            self._set.discard(key)
        return self.web

    def _put(self, key: str) -> None:
        value = self._form.packed(self._values[key])
        self.web[key] = value
        if codec.is_scalar(value):
            self._texts.pop(key, None)
        else:
            self._texts[key] = codec.encode(value, f"session.{key}")

    def forget(self) -> None:
        """Look at the session anew: what was set and not flushed is dropped."""
        for held in (self._values, self._texts, self._set, self._removed):
            held.clear()

    def moved_to(self, web: WebSession) -> Values:
        """Return the same values for another session, whose own go."""
        moved = Values(web, self._form)
        moved.update(self)
        moved._removed = {key for key in web if key not in self}
        moved.writes = max(moved.writes, self.writes) + 1
        return moved
