"""Events: from what a caller gives to what a store keeps, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sojourn import codec
from sojourn.arguments import mapping_of
from sojourn.errors import Corrupt, InvalidQuery, Unserializable
from sojourn.model import DELETE, Deletion, Draft, Event
from sojourn.names import check_name, check_word
from sojourn.state import place, tier_of
from sojourn.store import TierDelta
from sojourn.timestamps import EARLIEST, LATEST, NO_DATE, parse_instant, to_datetime

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
    """A delta with its values encoded, also split by tier; apart from it what is not stored.

    `sets` is the JSON object of the keys it sets, `drops` the JSON list of those it removes.
    `plain` are the values themselves, where none of them has parts and none is removed.
    """

    changes: Changes
    tiers: TierDeltas
    sets: str | None = None
    drops: str | None = None
    temporary: dict[str, Any] = {}
    plain: dict[str, Any] | None = None


_NO_DELTA = Delta({}, _NOTHING)


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event ready to be stored: the draft, its delta, and a body to return.

    That is not the caller's own: who goes on with that one changes nothing here.
    """

    draft: Draft
    delta: Delta
    body: Any


def prepare(event: Event, state: Mapping[str, Any] | None, ids: IdSource, now: int) -> Prepared:
    """Return an event as it will be stored; `state` adds to its delta. The event is not changed.

    Raises `Unserializable` (naming the path), `TooLarge` or `InvalidId` for what cannot be stored,
    `InvalidQuery` for what is no event, or no mapping.
    """
    if not isinstance(event, Event):
        raise InvalidQuery("event", f"give an Event, not {type(event).__name__}")
    given: Mapping[str, Any] = event.delta
    try:
        if state:
            given = {**given, **state} if given else state
        delta = encode_delta(given, "delta") if given else _NO_DELTA
    except (AttributeError, TypeError):  # which any value that can not be stored is, too
        mapping_of("event.delta", event.delta)
        mapping_of("state", {} if state is None else state)
        raise
    id, at, author = event.id, event.at, event.author
    text, body = codec.encode_apart(event.body, "body")
    draft = Draft(
        id=ids.event_id() if id is None else check_name("event id", id),
        kind=check_word("event kind", event.kind),
        author=None if author is None else check_word("event author", author),
        at=now if at is None else _instant_of(at),
        body=text,
        changes=delta.sets,
        deleted=delta.drops,
        fresh=id is None,
        stamped=at is not None,
    )
    return Prepared(draft, delta, body)


def _instant_of(at: datetime) -> int:
    try:
        return parse_instant(at)
    except (TypeError, ValueError) as error:
        raise Unserializable("event.at", str(error)) from error


def encode_delta(delta: Mapping[str, Any], path: str) -> Delta:
    """Return a delta with its values encoded. Raises what `prepare` does."""
    encoded = codec.encode_plain(delta)
    if encoded is None:
        return _encode_each(delta, path)
    text = encoded.decode()
    values = codec.decode_object(text, path)
    tiers: dict[str, Encoded] = {}
    for key, value in values.items():
        tier, name = place(key)
        if tier in tiers:
            tiers[tier][name] = value
        else:
            tiers[tier] = {name: value}
    if "temp" in tiers:
        return _encode_each(delta, path)
    sets = _only_sets(tiers, len(encoded))
    return Delta(values, sets, text, plain=dict(delta))  # type: ignore[arg-type]  # none removes


def _encode_each(delta: Mapping[str, Any], path: str) -> Delta:
    """Return a delta with its values encoded, one after the other."""
    changes: Changes = {}
    sets: Encoded = {}
    temporary: dict[str, Any] = {}
    for key, value in delta.items():
        tier, _ = place(key)
        if tier == "temp":
            temporary[key] = value
        elif value is DELETE:
            changes[key] = DELETE
        else:
            changes[key] = sets[key] = msgspec.Raw(codec.encode(value, path, key))
    gone = [key for key, value in changes.items() if value is DELETE]
    return Delta(
        changes,
        by_tier(changes),
        codec.encode_object(sets).decode() if sets else None,
        codec.encode_names(gone).decode() if gone else None,
        temporary,
    )


def _only_sets(tiers: Mapping[str, Encoded], size: int) -> TierDeltas:
    """Return the deltas of tiers in which nothing is removed."""
    session, user, app = tiers.get("session"), tiers.get("user"), tiers.get("app")
    return TierDeltas(
        None if session is None else TierDelta(session, (), size),
        None if user is None else TierDelta(user, (), size),
        None if app is None else TierDelta(app, (), size),
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
    """Return log entries as the events a caller reads. Raises `Corrupt`, naming the event."""
    bodies = codec.decode_many(
        [entry.body for entry in entries], lambda index: f"event {entries[index].seq}"
    )
    try:
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
    except OverflowError:
        seq = next(entry.seq for entry in entries if not EARLIEST <= entry.at <= LATEST)
        raise Corrupt(f"event {seq}", NO_DATE) from None


def _delta_of(entry: Entry) -> dict[str, Any]:
    where = f"event {entry.seq}"
    delta: dict[str, Any] = codec.decode(entry.changes, where) if entry.changes else {}
    if entry.deleted:
        delta.update(dict.fromkeys(codec.decode_names(entry.deleted, where), DELETE))
    return delta


def stored_event(event: Event, prepared: Prepared, seq: int) -> Event:
    """Return the event as it is in the log now. Nothing in it is shared with the one given."""
    draft, delta = prepared.draft, prepared.delta.plain
    if delta is None:
        delta = codec.decode(draft.changes, "delta") if draft.changes else {}
    if draft.deleted:
        changes = prepared.delta.changes
        delta.update((key, DELETE) for key in changes if changes[key] is DELETE)
    return Event(
        kind=event.kind,
        author=event.author,
        body=prepared.body,
        delta=delta,
        id=draft.id,
        at=to_datetime(draft.at),
        seq=seq,
    )


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
