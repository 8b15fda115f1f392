"""Nothing that observers put out holds an id, a user, a label, a value, a body or a key."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from sojourn import (
    Conflict,
    Event,
    Expiry,
    LeaseHeld,
    NotFound,
    Reaper,
    RoleTaken,
    SessionManager,
)
from sojourn.telemetry import (
    Fingerprint,
    LoggingObserver,
    OpenTelemetryObserver,
    PrometheusObserver,
)
from sojourn.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sojourn.telemetry import Observer

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

MARK = "zq7"
"""In every id, user, label, key, value and path of this test, and in nothing else."""

KEY = f"{MARK} key of the fingerprints".encode()


class Output:
    """Everything that the shipped observers put out."""

    def __init__(self) -> None:
        self.log = io.StringIO()
        self.fields: list[str] = []
        self.logger = logging.getLogger("tests.everything")
        self.logger.setLevel(logging.DEBUG)
        self.handler = logging.StreamHandler(self.log)
        self.handler.addFilter(self.keep)
        self.logger.addHandler(self.handler)
        self.spans = InMemorySpanExporter()
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.registry = CollectorRegistry()
        self.observers: list[Observer] = [
            LoggingObserver(self.logger),
            OpenTelemetryObserver(
                tracer_provider=traces, meter_provider=MeterProvider([self.reader])
            ),
            PrometheusObserver(self.registry),
        ]

    def keep(self, record: logging.LogRecord) -> bool:
        """Keep every field of a record."""
        self.fields.append(repr(vars(record)))
        return True

    def text(self) -> str:
        """Return all of it."""
        metrics = self.reader.get_metrics_data()
        return "\n".join(
            [
                self.log.getvalue(),
                *self.fields,
                *(span.to_json() for span in self.spans.get_finished_spans()),
                "" if metrics is None else metrics.to_json(),
                generate_latest(self.registry).decode(),
            ]
        )


@pytest.fixture
def output() -> Iterator[Output]:
    """The shipped observers, and what they put out."""
    made = Output()
    yield made
    made.logger.removeHandler(made.handler)


async def use_everything(sessions: SessionManager, clock: FakeClock) -> None:
    """Go through the verbs, well and badly, with the mark in whatever a user can choose."""
    m = MARK
    s = await sessions.create(
        id=f"{m}-one",
        user=f"{m}-user",
        state={f"{m}-key": f"{m}-value", f"user:{m}": m, f"app:{m}": m},
        labels={f"{m}-role": f"{m}-label"},
        exclusive=(f"{m}-role",),
    )
    stale = await sessions.require(s.id)
    await sessions.append(s, Event(kind=f"{m}-kind", author=m, body={m: m}), state={m: m})
    stale.state["x"] = m
    with pytest.raises(Conflict):
        await sessions.save(stale, conflict="fail")
    with pytest.raises(RoleTaken):
        await sessions.create(labels={f"{m}-role": f"{m}-label"}, exclusive=(f"{m}-role",))
    with pytest.raises(NotFound):
        await sessions.append(f"{m}-missing", Event(kind=m))
    await sessions.documents(s.id).put(f"{m}-notes", m, m.encode(), content_type=f"text/{m}")
    await sessions.documents(s.id).list(f"{m}-notes")
    await sessions.list(user=f"{m}-user", labels={f"{m}-role": f"{m}-label"})
    await sessions.fork(s.id, new_id=f"{m}-fork")
    async with sessions.lease(s.id, ttl=5):
        with pytest.raises(LeaseHeld):
            async with sessions.lease(s.id, ttl=5):
                raise AssertionError
    await sessions.end(f"{m}-fork", reason=f"{m} said so")
    await sessions.create(id=f"{m}-idle", expiry=Expiry(idle=1))
    clock.advance(5)
    await Reaper(sessions).sweep()
    await sessions.forget(f"{m}-user")


async def test_nothing_that_a_user_can_choose_is_put_out(
    opened: Opener, output: Output, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    async with opened(
        app="shop", observers=output.observers, observer_key=KEY, clock=clock
    ) as sessions:
        await use_everything(sessions, clock)
    text = output.text()
    assert MARK not in text
    assert str(tmp_path) not in text
    assert MARK not in caplog.text
    # It would have been found: the fingerprint of the same session is in all but the metrics.
    fingerprint = Fingerprint(KEY).of("shop", f"{MARK}-one")
    assert fingerprint in output.log.getvalue()
    assert any(fingerprint in json.dumps(json.loads(s.to_json())) for s in _spans(output))


def _spans(output: Output) -> Any:
    return output.spans.get_finished_spans()


async def test_metrics_do_not_grow_with_the_number_of_sessions(output: Output) -> None:
    async with SessionManager.open("memory://", observers=output.observers) as sessions:
        await sessions.create()
        few = generate_latest(output.registry).count(b"\n")
        for n in range(20):
            await sessions.create(user=f"u-{n}")
        assert generate_latest(output.registry).count(b"\n") == few
