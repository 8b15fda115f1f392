"""Checks of what a file holds: what no caller could have stored is refused.

A checksum tells damage, not intent. What passes here could have been written through a manager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn import codec
from sojourn.errors import Corrupt
from sojourn.lifecycle import FIRST
from sojourn.limits import MAX_DEPTH, MAX_DOCUMENT, MAX_LABELS, MAX_STATE, MAX_STATE_KEY, MAX_VALUE
from sojourn.names import check_name
from sojourn.restoring import check, tier_weight

if TYPE_CHECKING:
    from sojourn.model import Encoded, Entry, StoredDocument
    from sojourn.store import Snapshot, Tier


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
    for entry in part.entries:
        _check_event(entry)
    for document in part.documents:
        check_document(document)


def _check_event(entry: Entry) -> None:
    check_name("event id", entry.id)
    check_name("event kind", entry.kind)
    if entry.author is not None:
        check_name("event author", entry.author)
    where = f"event {entry.seq}"
    _check_value(entry.body, where)
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
    if len(text) > MAX_VALUE:
        raise Corrupt(where, f"it is {len(text)} characters long")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        codec.encode(codec.decode(text, where), where)
    else:
        codec.decode(text, where)
