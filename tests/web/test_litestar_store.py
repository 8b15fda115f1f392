"""The Litestar store: what Litestar asks of every store, on each store of sessions."""

from __future__ import annotations

import asyncio
import string
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, get
from litestar.stores.registry import StoreRegistry
from litestar.testing import TestClient

from sojourn import Closed, Corrupt, InvalidId, SessionManager
from sojourn.testing import FakeClock
from sojourn.web.litestar_store import STORE_LABEL, Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

KEYS = [*string.punctuation, "fooü", "..", "", " ", "\x00\n", "k" * 300, "👩🏽‍🚀" * 90]


async def test_values_come_back_as_bytes(opened: Opener) -> None:
    async with opened() as sessions:
        store = Store(sessions)
        assert await store.get("missing") is None
        values: dict[str, str | bytes] = {"a": b"\xff\x00", "b": "ü\x00", "c": b"", "d": b"text"}
        for key, value in values.items():
            await store.set(key, value)
            await store.set(key, value)
        for key, value in values.items():
            expected = value.encode() if isinstance(value, str) else value
            assert await store.get(key) == expected
        await store.set("a", "text now")
        assert await store.get("a") == b"text now"


async def test_any_key_is_a_key_of_its_own(opened: Opener) -> None:
    async with opened() as sessions:
        store = Store(sessions)
        for number, key in enumerate(KEYS):
            await store.set(key, str(number))
        for number, key in enumerate(KEYS):
            assert await store.get(key) == str(number).encode(), key


async def test_a_value_is_gone_at_its_deadline(opened: Opener) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        store = Store(sessions)
        assert await store.expires_in("a") is None
        await store.set("a", b"1")
        assert await store.expires_in("a") == -1
        await store.set("a", b"1", expires_in=10)
        await store.set("b", b"1", timedelta(seconds=20))
        assert (await store.expires_in("a"), await store.expires_in("b")) == (10, 20)
        clock.advance(10)
        assert (await store.get("a"), await store.exists("a")) == (None, False)
        assert await store.expires_in("a") is None
        assert await store.exists("b") is True
        await store.set("a", b"2")
        assert (await store.get("a"), await store.expires_in("a")) == (b"2", -1)
        await store.set("a", b"3", 0)
        assert await store.exists("a") is False


@pytest.mark.parametrize("renew_for", [10, timedelta(seconds=10)])
async def test_a_read_may_renew(opened: Opener, renew_for: Any) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as sessions:
        store = Store(sessions)
        await store.set("a", b"1", expires_in=2)
        await store.set("b", b"1")
        for key in ("a", "b", "missing"):
            await store.get(key, renew_for=renew_for)
        clock.advance(3)
        assert await store.get("a") == b"1"
        assert (await store.expires_in("a"), await store.expires_in("b")) == (7, -1)


async def test_a_renewal_undoes_no_write_and_no_removal(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its commit somebody else writes, or removes."""
    async with opened() as sessions:
        store = Store(sessions)
        look = sessions.get
        meanwhile: list[Any] = []

        async def looked(id: str, **how: Any) -> Any:
            found = await look(id, **how)
            if meanwhile:
                await meanwhile.pop()()
            return found

        monkeypatch.setattr(sessions, "get", looked)
        await store.set("a", b"1", 60)
        meanwhile.append(lambda: store.set("a", b"2", 60))
        await store.get("a", renew_for=100)
        assert await store.get("a") == b"2"
        meanwhile.append(lambda: store.delete("a"))
        assert await store.get("a", renew_for=100) is None
        assert await store.get("a") is None


async def test_removing_is_idempotent(opened: Opener) -> None:
    async with opened() as sessions:
        store = Store(sessions)
        await store.set("a", b"1", 60)
        for _ in range(2):
            await store.delete("a")
        assert await store.exists("a") is False


async def test_a_namespace_is_apart_and_removed_with_the_one_around_it(opened: Opener) -> None:
    async with opened() as sessions:
        outer = Store(sessions)
        inner = outer.with_namespace("in/ner")
        deep, beside = inner.with_namespace("deep"), outer.with_namespace("in")
        other = Store(sessions, namespace="litestar2")
        everything = (outer, inner, deep, beside, other)
        visitor = await sessions.create(state={"k": 1})

        async def left() -> list[bytes | None]:
            return [await store.get("k") for store in everything]

        async def fill() -> None:
            for number, store in enumerate(everything):
                for key in ("k", "l", "m"):
                    await store.set(key, str(number), expires_in=None if key == "k" else 60)

        await fill()
        assert await left() == [b"0", b"1", b"2", b"3", b"4"]
        await inner.delete_all()
        assert await left() == [b"0", None, None, b"3", b"4"]
        await fill()
        await outer.delete_all()
        assert await left() == [None, None, None, None, b"4"]
        assert await sessions.get(visitor.id) is not None


async def test_many_at_once_leave_one_value(opened: Opener) -> None:
    async with opened() as sessions:
        store = Store(sessions)
        await asyncio.gather(*(store.set("a", str(number)) for number in range(10)))
        assert await store.get("a") in {str(number).encode() for number in range(10)}
        work = [store.delete("b") if one % 3 else store.set("b", b"1") for one in range(30)]
        await asyncio.gather(*work)


async def test_bad_namespaces_and_foreign_sessions_are_told(opened: Opener) -> None:
    async with opened() as sessions:
        store = Store(sessions)
        for namespace in ("", "n" * 200):
            with pytest.raises(InvalidId, match="namespace"):
                store.with_namespace(namespace)
        await store.set("a", b"1")
        (session,) = (await sessions.list(labels={STORE_LABEL: "litestar"})).items
        session.state.clear()
        session.state["other"] = 1
        await sessions.save(session)
        with pytest.raises(Corrupt):
            await store.get("a")


def test_it_serves_the_cache_of_an_application(url: str) -> None:
    """Opened and closed with it; a registry makes namespaces of it."""
    calls = []

    @get("/", cache=60)
    async def page() -> str:
        calls.append(1)
        return "page"

    root = Store(url)
    app = Litestar(
        logging_config=None,
        route_handlers=[page],
        stores=StoreRegistry({"root": root}, root.with_namespace),
    )
    with TestClient(app) as client:
        assert {client.get("/").text for _ in range(3)} == {"page"}
    assert len(calls) == 1
    with pytest.raises(Closed):
        asyncio.run(root.exists("a"))
