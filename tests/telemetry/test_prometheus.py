"""Metrics, as a real registry exposes them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from sojourn import Expiry, InvalidQuery, Reaper, SessionManager
from sojourn.store import Get
from sojourn.stores.memory import MemoryStore
from sojourn.telemetry import ObservedStore, PrometheusObserver
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


async def test_calls_are_counted_and_timed(opened: Opener, registry: CollectorRegistry) -> None:
    async with opened(observers=[PrometheusObserver(registry)]) as sessions:
        for _ in range(3):
            await sessions.create()
        assert await sessions.get("nobody") is None
        await sessions.list()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("sojourn_operations_total", verb="create", result="ok") == 3
    assert value("sojourn_operations_total", verb="get", result="not_found") == 1
    assert value("sojourn_operation_seconds_count", verb="create") == 3
    assert value("sojourn_operation_seconds_bucket", verb="create", le="+Inf") == 3
    assert value("sojourn_operation_items_total", verb="list") == 3
    assert value("sojourn_operations_in_flight", verb="create") == 0


async def test_ends_of_a_reaper_are_counted(opened: Opener, registry: CollectorRegistry) -> None:
    clock = FakeClock()
    async with opened(
        observers=[PrometheusObserver(registry)], clock=clock, expiry=Expiry(idle=60)
    ) as sessions:

        async def hook(_session: Any, _reason: str) -> None:
            return None

        await sessions.create()
        await sessions.create()
        clock.advance(60)
        sessions.on_end(hook)
        assert await Reaper(sessions).sweep() == 2
    assert registry.get_sample_value("sojourn_transitions_total", {"trigger": "END"}) == 2


async def test_a_call_under_way_is_in_the_gauge_until_it_ends(registry: CollectorRegistry) -> None:
    arrived = asyncio.Event()

    class Stuck(MemoryStore):
        async def get(self, _get: Get, /) -> Any:
            arrived.set()
            await asyncio.Event().wait()

    observed = ObservedStore(Stuck(), [PrometheusObserver(registry)])
    task = asyncio.create_task(observed.get(Get(app="a", id="s-1", now=0)))
    await arrived.wait()
    in_flight = ("sojourn_operations_in_flight", {"verb": "get"})
    assert registry.get_sample_value(*in_flight) == 1
    task.cancel()
    await asyncio.wait([task])
    assert registry.get_sample_value(*in_flight) == 0
    cancelled = {"verb": "get", "result": "cancelled"}
    assert registry.get_sample_value("sojourn_operations_total", cancelled) == 1


async def test_observers_of_one_registry_share_its_metrics(registry: CollectorRegistry) -> None:
    for _ in range(2):
        async with SessionManager.open(
            "memory://", observers=[PrometheusObserver(registry)]
        ) as sessions:
            await sessions.create()
    created = {"verb": "create", "result": "ok"}
    assert registry.get_sample_value("sojourn_operations_total", created) == 2


def test_a_name_that_somebody_else_has_taken_is_said(registry: CollectorRegistry) -> None:
    Gauge("sojourn_operations_in_flight", "Not ours.", registry=registry)
    with pytest.raises(InvalidQuery, match="sojourn_operations_in_flight"):
        PrometheusObserver(registry)


def test_a_registry_is_not_kept_alive() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_the_registry_of_the_client_is_the_default() -> None:
    PrometheusObserver()
    assert b"sojourn_operation_seconds" in generate_latest()
