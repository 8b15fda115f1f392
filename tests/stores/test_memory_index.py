"""Lists in memory: they cost what they show, also those that nobody asked for before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sojourn import Expiry, SessionManager
from sojourn.vault import index

if TYPE_CHECKING:
    from sojourn.vault.slot import Slot

SESSIONS = 500


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the sessions that were put in an order since it was last cleared."""
    rows: list[int] = []

    def noting(slot: Slot) -> int:
        rows.append(slot.row)
        return index._active_key(slot)

    monkeypatch.setitem(index._KEYS, "active", noting)
    return rows


async def filled(sessions: SessionManager) -> None:
    for number in range(SESSIONS):
        labels = {"room": f"r{number}", "all": "yes"}
        await sessions.create(id=f"s{number}", user=f"u{number}", labels=labels)


async def test_a_user_or_label_that_is_new_costs_no_walk(walked: list[int]) -> None:
    async with SessionManager.open("memory://") as sessions:
        await filled(sessions)
        walked.clear()
        assert (await sessions.list(user="nobody")).items == []
        assert (await sessions.list(labels={"room": "none"})).items == []
        assert await sessions.find(key="unknown") is None
        await sessions.get_or_create(user="new")
        assert walked == []
        (found,) = (await sessions.list(user="u7")).items
        (same,) = (await sessions.list(labels={"room": "r7"})).items
        assert (found.id, same.id) == ("s7", "s7")
        assert set(walked) == {8}


async def test_an_order_in_use_outlives_many_others(
    monkeypatch: pytest.MonkeyPatch, walked: list[int]
) -> None:
    monkeypatch.setattr(index, "FEW", 0)
    monkeypatch.setattr(index, "MAX_ORDERS", 3)
    async with SessionManager.open("memory://") as sessions:
        await filled(sessions)
        await sessions.list(limit=1)
        for number in range(20):
            await sessions.list(user=f"u{number}")
            walked.clear()
            assert [one.id for one in (await sessions.list(limit=1)).items] == ["s499"]
            assert len(walked) < SESSIONS / 10


async def test_who_changes_user_or_labels_is_listed_there() -> None:
    async with SessionManager.open("memory://") as sessions:
        session = await sessions.create(id="s", labels={"a": "1", "b": "1"}, expiry=Expiry())
        await sessions.create(id="other", labels={"a": "1"})
        assert len((await sessions.list(anonymous=True)).items) == 2
        await sessions.save(session, user="u", labels={"a": "2", "b": None, "c": "3"})
        for name, value, there in (
            ("a", "1", ["other"]),
            ("a", "2", ["s"]),
            ("b", "1", []),
            ("c", "3", ["s"]),
        ):
            listed = await sessions.list(labels={name: value})
            assert [one.id for one in listed.items] == there
            assert await sessions.count(labels={name: value}) == len(there)
        assert [one.id for one in (await sessions.list(user="u")).items] == ["s"]
        assert [one.id for one in (await sessions.list(anonymous=True)).items] == ["other"]
        await sessions.delete("s")
        assert (await sessions.list(labels={"a": "2"})).items == []
        assert await sessions.forget("u") == 0
