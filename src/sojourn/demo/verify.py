"""Compares the file with what was acknowledged, and knows nothing of how the demo went."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from sojourn import SessionManager
from sojourn.demo.client import card_key, said_key
from sojourn.demo.ledger import Check, Ledger, compare, database_url
from sojourn.store import SupportsCheck

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn import Event, Session

ARCHIVE = "archive"
"""The app's collection of documents into which the end hook puts what it was given."""


async def verify(folder: Path, ledger: Ledger) -> list[Check]:
    """Return the lines of the table that can be found in the file alone."""
    async with SessionManager.open(database_url(folder), app="chat") as sessions:
        room = await sessions.require(ledger.room)
        log = await sessions.events(ledger.room)
        return [
            *acknowledged(ledger, log, room),
            *agreement(ledger, log, room),
            reading_along(ledger, log),
            *await forked(sessions, ledger, log),
            *await expired(sessions, ledger),
            await integrity(sessions),
        ]


def acknowledged(ledger: Ledger, log: list[Event], room: Session) -> list[Check]:
    """Check that every acknowledged write is there, and every message once."""
    times: Counter[tuple[object, ...]] = Counter()
    for event in log:
        if event.kind == "message":
            times[event.author, event.body["number"]] += 1
            times[event.author, event.body["number"], event.seq] += 1
    reported = [item for item in ledger.acknowledged if item.what == "message"]
    kept = sum(
        times[item.author, item.number] == times[item.author, item.number, item.seq] == 1
        for item in reported
    )
    cards = [item for item in ledger.acknowledged if item.what == "card"]
    newest = {author: _card(room, author) for author in {item.author for item in cards}}
    saved = sum(newest[item.author] >= item.number for item in cards)
    unreported = sum(event.kind == "message" for event in log) - len(reported)
    return [
        compare("acknowledged messages that are there exactly once", len(reported), kept),
        Check(
            f"messages written as {ledger.interrupted} was killed, and not reported",
            "0 or 1",
            str(unreported),
            unreported in (0, 1),
        ),
        compare("acknowledged saves that are there", len(cards), saved),
    ]


def agreement(ledger: Ledger, log: list[Event], room: Session) -> list[Check]:
    """Check that state and log say the same: nothing is half applied."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for event in log:
        if event.kind == "message" and event.author is not None:
            numbers[event.author].append(event.body["number"])
    with_delta = sum(
        event.delta == {said_key(event.author or ""): event.body["number"]}
        for event in log
        if event.kind == "message"
    )
    lines = [
        compare(
            f"{author}: messages in the log, count and card in the state",
            [len(said)] * 3 if said == list(range(1, len(said) + 1)) else "1, 2, 3, ...",
            [len(said), room.state.get(said_key(author)), _card(room, author)],
        )
        for author, said in sorted(numbers.items())
    ]
    authors = {item.author for item in ledger.acknowledged}
    return [
        compare("people in the log", len(authors), len(numbers)),
        *lines,
        compare("messages with their change of state", sum(map(len, numbers.values())), with_delta),
        compare(
            "numbers of the log from 1 on, without a gap",
            len(log),
            sum(event.seq == place for place, event in enumerate(log, start=1)),
        ),
    ]


def reading_along(ledger: Ledger, log: list[Event]) -> Check:
    """Check that the watching processes together were given the log, each event once."""
    seen = [(seen.seq, seen.id) for part in ledger.watched for seen in part]
    there = [(event.seq, event.id) for event in log]
    what = "events the watcher was given, in order, across its stop"
    found = len(seen) if seen == there else f"{len(seen)}, others or in another order"
    return compare(what, len(there), found)


async def forked(sessions: SessionManager, ledger: Ledger, log: list[Event]) -> list[Check]:
    """Check that the fork has the past of its source and a future of its own."""
    copy = [(event.seq, event.id) for event in await sessions.events(ledger.fork)]
    source = [(event.seq, event.id) for event in log]
    shared = sum(left == right for left, right in zip(copy, source, strict=False))
    return [
        compare("events that the fork shares with its source", ledger.forked_at, shared),
        compare("events that only the fork has", 1, len(set(copy) - set(source))),
    ]


async def expired(sessions: SessionManager, ledger: Ledger) -> list[Check]:
    """Check that the idle session is gone, and that its end hook left its mark."""
    gone = await sessions.get(ledger.visitor, expired=True)
    archived = await sessions.documents().get(ARCHIVE, ledger.visitor)
    mark = archived.body.decode() if archived is not None and archived.body else "nothing"
    return [
        compare("the idle session, after the reaper", "missing", there(gone)),
        compare("what its end hook put into the archive", "basket: tea", mark),
    ]


async def integrity(sessions: SessionManager) -> Check:
    """Check the file: SQLite's own check, and that sessions, logs and counts belong together."""
    store = sessions.store
    wrong = await store.check() if isinstance(store, SupportsCheck) else ["no such check"]
    return compare("what is wrong with the file", "nothing", "; ".join(wrong) or "nothing")


def there(session: Session | None) -> str:
    """Say whether there is a session."""
    return "missing" if session is None else "there"


def _card(room: Session, author: str) -> int:
    card = room.state.get(card_key(author), {})
    read: int = card.get("read", {}).get("to", 0)
    return read
