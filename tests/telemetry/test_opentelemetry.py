"""Spans and metrics, as the real SDK exports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sojourn import Event, LeaseHeld, SessionManager, Unavailable
from sojourn.store import Get
from sojourn.stores.memory import MemoryStore
from sojourn.telemetry import Fingerprint, ObservedStore, OpenTelemetryObserver

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.sdk.trace import ReadableSpan

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

KEY = b"k" * 32


class Telemetry:
    """An SDK in memory, and an observer on it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.traces, meter_provider=MeterProvider([self._reader])
        )

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name that ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        """Return the data points of a metric."""
        data: Any = self._reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return [
            point for metric in metrics if metric.name == name for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry() -> Telemetry:
    """An SDK in memory."""
    return Telemetry()


async def test_a_call_is_a_span_with_what_it_was(opened: Opener, telemetry: Telemetry) -> None:
    async with opened(app="shop", observers=[telemetry.observer], observer_key=KEY) as sessions:
        s = await sessions.create(id="s-1")
        await sessions.append(s, Event(kind="message", body="hi"))
        await sessions.end(s.id)
    commits = telemetry.spans("sojourn.commit")
    (append, *ends) = commits
    attributes: Any = append.attributes
    assert append.kind is SpanKind.CLIENT
    assert attributes["sojourn.app"] == "shop"
    assert attributes["sojourn.session"] == Fingerprint(KEY).of("shop", "s-1")
    assert attributes["sojourn.events"] == 1
    assert attributes["sojourn.result"] == "ok"
    assert attributes["sojourn.verb"] == "commit"
    assert attributes["sojourn.durability"] in {"memory", "durable"}
    assert append.status.status_code is StatusCode.UNSET
    assert "END" in [(span.attributes or {}).get("sojourn.trigger") for span in ends]
    assert [point.value for point in telemetry.points("sojourn.transition.count")] != []


async def test_a_span_is_below_the_one_that_is_current(telemetry: Telemetry) -> None:
    tracer = telemetry.traces.get_tracer("the caller")
    async with SessionManager.open("memory://", observers=[telemetry.observer]) as sessions:
        with tracer.start_as_current_span("request") as request:
            await sessions.create()
    (span,) = telemetry.spans("sojourn.create")
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id


async def test_trouble_is_an_error_without_its_message_and_a_refusal_is_none(
    telemetry: Telemetry,
) -> None:
    class Down(MemoryStore):
        async def get(self, _get: Get, /) -> Any:
            raise Unavailable("a.db", "s-1 is on a disk that is gone")

    observed = ObservedStore(Down(), [telemetry.observer])
    with pytest.raises(Unavailable):
        await observed.get(Get(app="a", id="s-1", now=0))
    (span,) = telemetry.spans("sojourn.get")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "Unavailable"
    assert (span.attributes or {})["error.type"] == "Unavailable"
    assert span.events == ()

    async with SessionManager.open("memory://", observers=[telemetry.observer]) as sessions:
        s = await sessions.create()
        async with sessions.lease(s.id, ttl=5):
            with pytest.raises(LeaseHeld):
                async with sessions.lease(s.id, ttl=5):
                    raise AssertionError
    refused = telemetry.spans("sojourn.acquire")[-1]
    assert (refused.attributes or {})["sojourn.result"] == "conflict"
    assert refused.status.status_code is StatusCode.UNSET


async def test_calls_are_timed_and_counted_with_few_attributes(telemetry: Telemetry) -> None:
    async with SessionManager.open("memory://", observers=[telemetry.observer]) as sessions:
        for _ in range(3):
            await sessions.create()
        assert await sessions.get("nobody") is None
    durations = {
        (point.attributes["sojourn.verb"], point.attributes["sojourn.result"]): point
        for point in telemetry.points("sojourn.operation.duration")
    }
    assert durations["create", "ok"].count == 3
    assert durations["get", "not_found"].count == 1
    assert durations["create", "ok"].explicit_bounds[0] == 0.0001
    names = {name for point in durations.values() for name in point.attributes}
    assert names == {"sojourn.store", "sojourn.verb", "sojourn.result"}
    assert {point.value for point in telemetry.points("sojourn.operation.active")} == {0}


async def test_without_an_sdk_it_costs_little_and_harms_nobody() -> None:
    async with SessionManager.open("memory://", observers=[OpenTelemetryObserver()]) as sessions:
        assert (await sessions.create()).revision == 1


async def test_a_span_that_is_not_sampled_is_ended_without_its_facts() -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    observer = OpenTelemetryObserver(tracer_provider=TracerProvider(sampler=ALWAYS_OFF))
    async with SessionManager.open("memory://", observers=[observer]) as sessions:
        assert (await sessions.create()).revision == 1
