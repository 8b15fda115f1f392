"""How sessions, events and documents look as JSON: keys that stay, whatever the table shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.errors import Corrupt
from sojourn.expiry import is_past
from sojourn.model import Deletion
from sojourn.state import tier_of
from sojourn.timestamps import NO_DATE, to_datetime

if TYPE_CHECKING:
    from datetime import datetime

    from sojourn.model import Event, StoredDocument
    from sojourn.session import Session


def instant(moment: datetime | None) -> str | None:
    """Return a time as RFC 3339 text in UTC."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def session_facts(session: Session) -> dict[str, Any]:
    """Return what is known of a session without its contents. `events` is the last number."""
    header = session.header
    return {
        "app": session.app,
        "id": session.id,
        "user": session.user,
        "lifecycle": session.lifecycle,
        "phase": session.phase.value,
        "reason": session.reason,
        "revision": session.revision,
        "epoch": session.epoch,
        "events": header.seq,
        "created_at": instant(session.created_at),
        "active_at": instant(session.active_at),
        "expires_at": instant(session.expires_at),
        "parent": session.parent,
        "forked_from": session.forked_from,
        "labels": dict(session.labels),
        "exclusive": list(header.exclusive),
    }


def lease_facts(session: Session, now: int) -> dict[str, Any]:
    """Return who may run a session at the instant `now`; `token` is the newest that was given."""
    header = session.header
    held = header.holder is not None and not is_past(header.leased_until, now)
    until = instant(moment_of(header.leased_until, f"session {session.id!r}")) if held else None
    return {"held": held, "until": until, "token": header.fence}


def state_by_tier(session: Session) -> dict[str, dict[str, Any]]:
    """Return the state, keys without their prefix, by who shares them."""
    tiers: dict[str, dict[str, Any]] = {"session": {}, "user": {}, "app": {}}
    for key, value in session.state.items():
        tier, name = tier_of(key)
        tiers[tier][name] = value
    return tiers


def event_facts(event: Event) -> dict[str, Any]:
    """Return an event; what it did to the state is split into what it set and what it removed."""
    delta = event.delta.items()
    return {
        "seq": event.seq,
        "id": event.id,
        "kind": event.kind,
        "author": event.author,
        "at": instant(event.at),
        "body": event.body,
        "changes": {key: value for key, value in delta if not isinstance(value, Deletion)},
        "deleted": [key for key, value in delta if isinstance(value, Deletion)],
    }


def document_facts(document: StoredDocument) -> dict[str, Any]:
    """Return what is known of a document without its body. `size` is in bytes."""
    name = f"document {document.key!r} of {document.collection!r}"
    until = document.expires_at
    return {
        "collection": document.collection,
        "key": document.key,
        "content_type": document.content_type,
        "size": document.size,
        "created_at": instant(moment_of(document.created_at, name)),
        "updated_at": instant(moment_of(document.updated_at, name)),
        "expires_at": None if until is None else instant(moment_of(until, name)),
    }


def moment_of(at: int, key: str) -> datetime:
    """Return an instant that is stored. Raises `Corrupt`, naming the record, if it is no date."""
    try:
        return to_datetime(at)
    except OverflowError:
        raise Corrupt(key, NO_DATE) from None
