"""Events: from what a caller gives to what a store keeps, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from sojourn import codec
from sojourn.errors import InvalidQuery, Unserializable
from sojourn.model import DELETE, Deletion, Draft, Event
from sojourn.names import check_name
from sojourn.state import place, tier_of
from sojourn.store import TierDelta
from sojourn.timestamps import parse_instant, to_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sojourn.model import Encoded, Entry
    from sojourn.ports import IdSource

Changes = dict[str, msgspec.Raw | Deletion]
"""A delta with its values encoded."""


class TierDeltas(msgspec.Struct, frozen=True, gc=False):
    """A delta split by who shares it; `None` for a tier that is not touched."""

    session: TierDelta | None
    user: TierDelta | None
    app: TierDelta | None


_NOTHING = TierDeltas(None, None, None)


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A delta with its values encoded, also split by tier; apart from it what is not stored."""

    changes: Changes
    tiers: TierDeltas
    removes: bool
    temporary: dict[str, Any]


_NO_DELTA = Delta({}, _NOTHING, removes=False, temporary={})


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event ready to be stored: the draft, and its delta."""

    draft: Draft
    delta: Delta


def prepare(event: Event, state: Mapping[str, Any] | None, ids: IdSource, now: int) -> Prepared:
    """Return an event as it will be stored; `state` adds to its delta. The event is not changed.

    Raises `Unserializable` (naming the path), `TooLarge` or `InvalidId` for what cannot be stored.
    """
    if not isinstance(event, Event):
        raise InvalidQuery("event", f"give an Event, not {type(event).__name__}")
    given: Mapping[str, Any] = event.delta
    if state:
        given = {**given, **state} if given else state
    delta = encode_delta(given, "delta") if given else _NO_DELTA
    kept, gone = _apart(delta)
    id, at, author = event.id, event.at, event.author
    draft = Draft(
        id=ids.event_id() if id is None else check_name("event id", id),
        kind=check_name("event kind", event.kind),
        author=None if author is None else check_name("event author", author),
        at=now if at is None else _instant_of(at),
        body=codec.encode(event.body, "body").decode(),
        changes=codec.encode_object(kept).decode() if kept else None,
        deleted=codec.encode_names(gone).decode() if gone else None,
        fresh=id is None,
        stamped=at is not None,
    )
    return Prepared(draft, delta)


def _instant_of(at: datetime) -> int:
    try:
        return parse_instant(at)
    except (TypeError, ValueError) as error:
        raise Unserializable("event.at", str(error)) from error


def _apart(delta: Delta) -> tuple[Encoded, list[str]]:
    """Return the keys that are set with their values, and those that are removed."""
    if not delta.removes:
        return cast("Encoded", delta.changes), []
    gone = [key for key, value in delta.changes.items() if value is DELETE]
    return {k: v for k, v in delta.changes.items() if isinstance(v, msgspec.Raw)}, gone


def encode_delta(delta: Mapping[str, Any], path: str) -> Delta:
    """Return a delta with its values encoded. Raises what `prepare` does."""
    changes: Changes = {}
    temporary: dict[str, Any] = {}
    sets: dict[str, Encoded] = {}
    removes = False
    for key, value in delta.items():
        tier, name = place(key)
        if tier == "temp":
            temporary[key] = value
        elif value is DELETE:
            changes[key] = DELETE
            removes = True
        else:
            changes[key] = raw = msgspec.Raw(codec.encode(value, path, key))
            if tier in sets:
                sets[tier][name] = raw
            else:
                sets[tier] = {name: raw}
    tiers = by_tier(changes) if removes else _only_sets(sets)
    return Delta(changes, tiers, removes, temporary)


def _only_sets(sets: Mapping[str, Encoded]) -> TierDeltas:
    """Return the deltas of tiers in which nothing is removed."""
    return TierDeltas(
        TierDelta(sets["session"]) if "session" in sets else None,
        TierDelta(sets["user"]) if "user" in sets else None,
        TierDelta(sets["app"]) if "app" in sets else None,
    )


def by_tier(changes: Changes) -> TierDeltas:
    """Split encoded changes into the deltas of the three stored tiers."""
    if not changes:
        return _NOTHING
    deltas: dict[str, TierDelta] = {}
    for key, value in changes.items():
        tier, name = tier_of(key)
        delta = deltas.get(tier)
        if value is not DELETE:
            if delta is None:
                deltas[tier] = TierDelta({name: value})
            else:
                delta.set[name] = value
        elif delta is None:
            deltas[tier] = TierDelta({}, (name,))
        else:
            deltas[tier] = TierDelta(delta.set, (*delta.drop, name))
    return TierDeltas(deltas.get("session"), deltas.get("user"), deltas.get("app"))


def event_from(entry: Entry) -> Event:
    """Return a log entry as the event a caller reads. `DELETE` reads back as `DELETE`."""
    return events_from((entry,))[0]


def events_from(entries: Sequence[Entry]) -> list[Event]:
    """Return log entries as the events a caller reads."""
    bodies = codec.decode_many(
        [entry.body for entry in entries], lambda index: f"event {entries[index].seq}"
    )
    return [
        Event(
            kind=entry.kind,
            author=entry.author,
            body=body,
            delta=_delta_of(entry) if entry.changes or entry.deleted else {},
            id=entry.id,
            at=to_datetime(entry.at),
            seq=entry.seq,
        )
        for entry, body in zip(entries, bodies, strict=True)
    ]


def _delta_of(entry: Entry) -> dict[str, Any]:
    where = f"event {entry.seq}"
    delta: dict[str, Any] = codec.decode(entry.changes, where) if entry.changes else {}
    if entry.deleted:
        delta.update(dict.fromkeys(codec.decode_names(entry.deleted, where), DELETE))
    return delta


def stored_event(event: Event, prepared: Prepared, seq: int) -> Event:
    """Return the event as it is in the log now. Nothing in it is shared with the one given."""
    draft = prepared.draft
    delta: dict[str, Any] = codec.decode(draft.changes, "delta") if draft.changes else {}
    if draft.deleted:
        changes = prepared.delta.changes
        delta.update((key, DELETE) for key in changes if changes[key] is DELETE)
    return Event(
        kind=event.kind,
        author=event.author,
        body=codec.copied(event.body, draft.body),
        delta=delta,
        id=draft.id,
        at=to_datetime(draft.at),
        seq=seq,
    )


def stored_events(
    events: Sequence[Event], prepared: Sequence[Prepared], seqs: Sequence[int]
) -> list[Event]:
    """Return events as they are in the log now; see `stored_event`."""
    if len(events) == 1:
        return [stored_event(events[0], prepared[0], seqs[0])]
    return [
        stored_event(event, item, seq)
        for event, item, seq in zip(events, prepared, seqs, strict=True)
    ]


def changes_of(prepared: Sequence[Prepared], seqs: Sequence[int], before: int) -> Changes:
    """Return what the events that are new (numbered above `before`) changed, the later one wins."""
    if len(prepared) == 1:
        return prepared[0].delta.changes if seqs[0] > before else {}
    changes: Changes = {}
    for item, seq in zip(prepared, seqs, strict=True):
        if seq > before:
            before = seq
            changes.update(item.delta.changes)
    return changes
