"""Calls as OpenTelemetry spans and metrics; needs `sojourn[otel]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sojourn.errors import MissingExtra
from sojourn.telemetry.observer import SECONDS_BUCKETS, TROUBLE, Observer, Result

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from sojourn.telemetry.observer import Call, Outcome

SCOPE = "sojourn"
"""The name of the instrumentation, as tracers and meters know it."""


class OpenTelemetryObserver(Observer):
    """Makes a span of every call, `sojourn.commit` and so on, and keeps three metrics.

    A span is a child of the one that is current where the session is used; it does not become
    the current one itself. The metrics are `sojourn.operation.duration` (seconds),
    `sojourn.operation.active` (calls under way) and `sojourn.transition.count` (phases moved).
    Their attributes are few; the app and the session's fingerprint are on spans only.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Use these providers, or the global ones. Raises `MissingExtra` without OpenTelemetry."""
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise MissingExtra("OpenTelemetryObserver", "otel") from error
        self._kind = trace.SpanKind.CLIENT
        self._error = trace.StatusCode.ERROR
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "sojourn.operation.duration",
            unit="s",
            description="How long calls of the store took.",
            explicit_bucket_boundaries_advisory=SECONDS_BUCKETS,
        )
        self._active = meter.create_up_down_counter(
            "sojourn.operation.active", unit="{operation}", description="Calls under way."
        )
        self._transitions = meter.create_counter(
            "sojourn.transition.count", unit="{transition}", description="Phases that moved."
        )

    def started(self, call: Call, /) -> Span:
        """Start a span."""
        span = self._tracer.start_span(
            f"sojourn.{call.verb}", kind=self._kind, attributes=_before(call)
        )
        self._active.add(1, _which(call))  # last: what fails here is not told of an end
        return span

    def finished(self, call: Call, note: object, outcome: Outcome, /) -> None:
        """End it, and measure."""
        which = _which(call)
        self._active.add(-1, which)
        measured = {**which, "sojourn.result": outcome.result.value}
        if outcome.error is not None:
            measured["error.type"] = outcome.error
        self._duration.record(outcome.seconds, measured)
        if call.trigger is not None and outcome.result is Result.OK and not outcome.repeated:
            self._transitions.add(1, {"sojourn.trigger": call.trigger})
        self._end(cast("Span", note), outcome)

    def _end(self, span: Span, outcome: Outcome) -> None:
        if span.is_recording():
            span.set_attributes(_after(outcome))
            if outcome.result in TROUBLE:
                # The error itself is not recorded: its message may name a session.
                span.set_status(self._error, outcome.error)
        span.end()


def _which(call: Call) -> dict[str, str]:
    return {"sojourn.store": call.store, "sojourn.verb": call.verb}


def _before(call: Call) -> dict[str, str | int]:
    facts: dict[str, str | int | None] = {
        **_which(call),
        "sojourn.app": call.app,
        "sojourn.session": call.session,
        "sojourn.trigger": call.trigger,
        "sojourn.limit": call.limit,
        "sojourn.events": call.events or None,
        "sojourn.size": call.size or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _after(outcome: Outcome) -> dict[str, str | int | bool]:
    facts: dict[str, str | int | bool | None] = {
        "sojourn.result": outcome.result.value,
        "error.type": outcome.error,
        "sojourn.items": outcome.items or None,
        "sojourn.size_returned": outcome.size or None,
        "sojourn.durability": outcome.durability,
        "sojourn.repeated": outcome.repeated or None,
    }
    return {name: value for name, value in facts.items() if value is not None}
