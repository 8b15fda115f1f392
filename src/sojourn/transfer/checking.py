"""Checks of what is moved: what no caller could have stored is refused.

A checksum tells damage of a file, not what was damaged before, nor intent. What passes here could
have been written through a manager.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sojourn import codec
from sojourn.errors import Corrupt, InvalidId, TooLarge, Unserializable
from sojourn.lifecycle import FIRST
from sojourn.limits import (
    MAX_DEPTH,
    MAX_DOCUMENT,
    MAX_LABELS,
    MAX_NAME,
    MAX_STATE,
    MAX_STATE_KEY,
    MAX_VALUE,
)
from sojourn.names import check_name
from sojourn.restoring import check, tier_weight
from sojourn.store import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sojourn.model import Encoded, Entry, StoredDocument
    from sojourn.store import Snapshot

WRONG = (Corrupt, InvalidId, TooLarge, Unserializable, UnicodeDecodeError, RecursionError)
"""What the checks raise: the last two for values that are no text, or nested without an end."""


@contextmanager
def damage_of(thing: str) -> Iterator[None]:
    """Raise what a check raises as `Corrupt`, naming the thing that was checked."""
    try:
        yield
    except WRONG as error:
        if isinstance(error, Corrupt) and error.key == thing:
            raise
        raise Corrupt(thing, str(error)) from error


def check_shared(app: str, item: Tier | StoredDocument) -> None:
    """Raise `Corrupt`, naming it, if what the sessions of an app share could not be put."""
    if isinstance(item, Tier):
        thing = f"the tier of app {app!r}" if item.user is None else f"the tier of {item.user!r}"
        with damage_of(thing):
            check_tier(app, item)
        return
    with damage_of(f"document {item.key!r} of {item.collection!r}"):
        check_document(item, app)


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise `InvalidId` or `Corrupt`, naming what is wrong with a session or its first part."""
    header = snapshot.header
    check_name("app", header.app)
    check_name("session id", header.id)
    check_name("epoch", header.epoch)
    for what in ("user", "parent", "forked_from"):
        if (name := getattr(header, what)) is not None:
            check_name(what, name)
    if header.lifecycle not in FIRST:
        raise Corrupt("the line", f"there is no lifecycle {header.lifecycle!r}")
    if header.revision < 1:
        raise Corrupt("the line", f"{header.revision} is not a revision")
    if len(header.labels) > MAX_LABELS:
        raise Corrupt("the line", f"it has {len(header.labels)} labels of at most {MAX_LABELS}")
    for name, value in header.labels.items():
        check_name("label", name)
        check_name(f"value of label {name!r}", value)
    _check_state(snapshot.state)
    check_part(snapshot)


def check_part(part: Snapshot) -> None:
    """Raise `InvalidId` or `Corrupt`, naming what is wrong with events or documents of a part."""
    check(part)
    if part.entries:
        _check_events(part.entries)
    for document in part.documents:
        check_document(document)


def _check_events(entries: Sequence[Entry]) -> None:
    """Check all together what is the same for all: there are many, and most of them are fit."""
    ids = [entry.id for entry in entries]
    if "" in ids or max(map(len, ids)) > MAX_NAME or not "".join(ids).isalnum():
        for id in ids:
            check_name("event id", id)
    for kind in {entry.kind for entry in entries}:
        check_name("event kind", kind)
    for author in {entry.author for entry in entries}:
        if author is not None:
            check_name("event author", author)
    bodies = [entry.body for entry in entries]
    values = codec.decode_many(bodies, lambda index: f"event {entries[index].seq}")
    if not _is_small("".join(bodies)):
        for entry, value in zip(entries, values, strict=True):
            _check_size(entry.body, value, f"event {entry.seq}")
    for entry in entries:
        if entry.changes is not None or entry.deleted is not None:
            _check_delta(entry, f"event {entry.seq}")


def _check_delta(entry: Entry, where: str) -> None:
    if entry.changes is not None:
        _check_value(entry.changes, where)
        codec.decode_object(entry.changes, where)
    if entry.deleted is not None:
        _check_value(entry.deleted, where)
        codec.decode_names(entry.deleted, where)


def check_document(document: StoredDocument, app: str | None = None) -> None:
    """Raise `InvalidId` or `Corrupt`, naming what is wrong with a document, of an app if named."""
    if app is not None:
        check_name("app", app)
    check_name("collection", document.collection)
    check_name("document key", document.key)
    check_name("content type", document.content_type)
    if document.size > MAX_DOCUMENT:
        raise Corrupt(f"document {document.key!r}", f"it is {document.size} bytes long")


def check_tier(app: str, tier: Tier) -> None:
    """Raise `InvalidId` or `Corrupt`, naming what is wrong with a tier."""
    check_name("app", app)
    if tier.user is not None:
        check_name("user", tier.user)
    _check_state(tier.state)


def _check_state(state: Encoded) -> None:
    if (size := tier_weight(state)) > MAX_STATE:
        raise Corrupt("the state", f"it is {size} bytes long")
    for name, value in state.items():
        if not 0 < len(name) <= MAX_STATE_KEY:
            raise Corrupt("the state", f"a key has {len(name)} characters")
        _check_value(bytes(value).decode(), f"key {name!r}")


def _check_value(text: str, where: str) -> None:
    """Refuse a value that no caller could have given: too long, too deep, numbers too large."""
    _check_size(text, codec.decode(text, where), where)


def _check_size(text: str, value: object, where: str) -> None:
    if len(text) > MAX_VALUE:
        raise Corrupt(where, f"it is {len(text)} characters long")
    if not _is_small(text):
        codec.encode(value, where)


def _is_small(text: str) -> bool:
    """Return whether nothing in a text can be too long, or too deep."""
    return len(text) <= MAX_VALUE and text.count("[") + text.count("{") <= MAX_DEPTH
