"""What is damaged in a store: left out of an export that can be imported, reported by a copy."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from tests.transfer.contents import CLOCK, FOREVER, ids_of, opened

from sojourn import Event, SessionManager
from sojourn.errors import Corrupt
from sojourn.stores.memory import MemoryStore
from sojourn.transfer import copy, export_sessions, import_sessions
from sojourn.transfer.walking import OWN

if TYPE_CHECKING:
    from pathlib import Path

SESSIONS = {
    "an event's body": "UPDATE events SET body = '{'",
    "a body that would close its line": """UPDATE events SET body = '1}],"fence":[{"a":1'""",
    "a body that nests without an end": """
        UPDATE events SET body = replace(hex(zeroblob(5000)), '00', '[')
            || replace(hex(zeroblob(5000)), '00', ']')
    """,
    "an event's changes": "UPDATE events SET changes = '{\"a\":'",
    "changes that are no object": "UPDATE events SET changes = '[1]'",
    "an event without a kind": "UPDATE events SET kind = ''",
    "a number that is too large": "UPDATE sessions SET state = '{\"n\":1e999}' WHERE id = 'bad'",
    "a document without a type": "UPDATE documents SET content_type = '' WHERE collection = 'c'",
}
SHARED = {
    "a user's tier": "UPDATE tiers SET value = '1e999' WHERE owner LIKE '%u'",
    "the app's tier": "UPDATE tiers SET value = '{' WHERE owner NOT LIKE '%u'",
    "a document of the app": "UPDATE documents SET content_type = '' WHERE collection = 'app'",
    "a document's time": "UPDATE documents SET created_at = 1 << 62 WHERE collection = 'app'",
}


async def damaged(url: str, path: Path, statement: str) -> None:
    """Make a store of two sessions and what they share, and damage one thing in it."""
    async with opened(url) as store:
        sessions = SessionManager(store, app="shop", clock=CLOCK)
        await sessions.create(id="good", expiry=FOREVER)
        state = {"n": 1, "user:n": 1, "app:n": 1}
        event = Event(kind="k", body={"a": 1})
        s = await sessions.create(id="bad", user="u", state=state, expiry=FOREVER)
        await sessions.append(s, event, state={"m": 2})
        await sessions.documents("bad").put("c", "k", b"1")
        await sessions.documents(None).put("app", "k", b"1")
    with apsw.Connection(str(path)) as db:
        db.execute(statement)
        assert db.changes() > 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store."""
    return tmp_path / "from.db"


@pytest.mark.parametrize("what", [*SESSIONS, *SHARED])
async def test_an_export_leaves_out_what_could_not_be_imported(what: str, path: Path) -> None:
    url = f"sqlite:///{path}"
    await damaged(url, path, {**SESSIONS, **SHARED}[what])
    async with opened(url) as source, opened("memory://") as target:
        file = io.BytesIO()
        exported = await export_sessions(source, file, clock=CLOCK)
        assert exported.corrupt_count == len(exported.corrupt) == 1
        file.seek(0)
        imported = await import_sessions(target, file, clock=CLOCK)
        assert imported.refused == 0
        whole = ["good"] if what in SESSIONS else ["good", "bad"]
        assert exported.sessions == imported.restored == len(whole)
        assert exported.tiers + exported.documents == (3 if what in SESSIONS else 2)
        assert await ids_of(target, "shop") == whole
        text = str(exported.corrupt[0])
        assert text.startswith("session 'bad'") or "tier of" in text or "document 'k'" in text


@pytest.mark.parametrize("what", [what for what in SHARED if "time" not in what])
async def test_a_copy_leaves_out_and_reports_what_is_damaged(what: str, path: Path) -> None:
    url = f"sqlite:///{path}"
    await damaged(url, path, SHARED[what])
    async with opened(url) as source, opened("memory://") as target:
        for _ in range(2):
            outcome = await copy(source, target, clock=CLOCK)
            assert (outcome.verified, outcome.different, outcome.complete) == (2, 1, False)
            (refusal,) = outcome.refusals
            assert (refusal.app, refusal.id, type(refusal.error)) == ("shop", "", Corrupt)
            assert "tier of" in str(refusal.error) or "document 'k'" in str(refusal.error)
        items = (await target.shared("shop", CLOCK.now(), None)).items
        assert sum(not getattr(item, "collection", "").startswith(OWN) for item in items) == 2


async def test_a_damaged_tier_of_the_target_becomes_that_of_the_source(path: Path) -> None:
    url = f"sqlite:///{path}"
    source = MemoryStore()
    state = {"user:n": 1, "app:n": 1}
    await SessionManager(source, app="shop", clock=CLOCK).create(id="s", user="u", state=state)
    async with opened(url) as target:
        assert (await copy(source, target, clock=CLOCK)).shared == 2
    with apsw.Connection(str(path)) as db:
        db.execute("UPDATE tiers SET value = '1e999'")
    async with opened(url) as target:
        outcome = await copy(source, target, clock=CLOCK)
        assert (outcome.shared, outcome.complete) == (2, True)
        assert bytes((await target.tiers("shop", "u")).user_state["n"]) == b"1"


async def test_a_large_session_is_checked_part_by_part(path: Path) -> None:
    url = f"sqlite:///{path}"
    await damaged(url, path, "UPDATE sessions SET attempts = 0")
    async with opened(url) as source:
        sessions = SessionManager(source, app="shop", clock=CLOCK)
        large = await sessions.require("bad")
        for _ in range(3):
            await sessions.append(large, Event(kind="k", body="x" * 700_000))
    with apsw.Connection(str(path)) as db:
        db.execute("UPDATE events SET kind = '' WHERE seq = (SELECT max(seq) FROM events)")
    async with opened(url) as source, opened("memory://") as target:
        file = io.BytesIO()
        exported = await export_sessions(source, file, clock=CLOCK)
        assert (exported.sessions, exported.corrupt_count) == (1, 1)
        assert "session 'bad'" in str(exported.corrupt[0])
        file.seek(0)
        imported: Any = await import_sessions(target, file, clock=CLOCK)
        assert (imported.restored, imported.refused) == (1, 1)
        assert await ids_of(target, "shop") == ["good"]
