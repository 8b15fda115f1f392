"""Calls as Prometheus metrics; needs `sojourn[prometheus]`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from sojourn.errors import InvalidQuery, MissingExtra
from sojourn.telemetry.observer import SECONDS_BUCKETS, Observer, Result

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    from sojourn.telemetry.observer import Call, Outcome


class _Metrics(NamedTuple):
    """The metrics of one registry."""

    operations: Counter
    seconds: Histogram
    in_flight: Gauge
    items: Counter
    transitions: Counter


_registered: WeakKeyDictionary[CollectorRegistry, _Metrics] = WeakKeyDictionary()
"""A registry takes a name once, so the observers of a registry share its metrics."""

_registering = threading.Lock()


class PrometheusObserver(Observer):
    """Counts and times every call in a Prometheus registry.

    `sojourn_operations_total` (by verb and result), `sojourn_operation_seconds` (by verb),
    `sojourn_operations_in_flight` (by verb), `sojourn_operation_items_total` (sessions, events or
    documents that came back or were removed, by verb) and `sojourn_transitions_total` (phases
    moved, by trigger). Labels have few values: no app, no session.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Use this registry, or the client's own; any number of observers can share one.

        Raises `MissingExtra` without the Prometheus client, `InvalidQuery` for a registry in which
        somebody else has taken one of the names.
        """
        try:
            from prometheus_client import REGISTRY
        except ImportError as error:
            raise MissingExtra("PrometheusObserver", "prometheus") from error
        registry = REGISTRY if registry is None else registry
        with _registering:
            metrics = _registered.get(registry)
            if metrics is None:
                metrics = _registered[registry] = _register(registry)
        self._metrics = metrics

    def started(self, call: Call, /) -> None:
        """Count it as under way."""
        self._metrics.in_flight.labels(call.verb).inc()

    def finished(self, call: Call, _note: object, outcome: Outcome, /) -> None:
        """Count and time it."""
        metrics = self._metrics
        metrics.in_flight.labels(call.verb).dec()
        metrics.operations.labels(call.verb, outcome.result.value).inc()
        metrics.seconds.labels(call.verb).observe(outcome.seconds)
        if outcome.items:
            metrics.items.labels(call.verb).inc(outcome.items)
        if call.trigger is not None and outcome.result is Result.OK and not outcome.repeated:
            metrics.transitions.labels(call.trigger).inc()


def _register(registry: CollectorRegistry) -> _Metrics:
    from prometheus_client import Counter, Gauge, Histogram

    try:
        return _Metrics(
            operations=Counter(
                "sojourn_operations",
                "Calls of the store that ended.",
                ("verb", "result"),
                registry=registry,
            ),
            seconds=Histogram(
                "sojourn_operation_seconds",
                "How long calls of the store took.",
                ("verb",),
                buckets=SECONDS_BUCKETS,
                registry=registry,
            ),
            in_flight=Gauge(
                "sojourn_operations_in_flight",
                "Calls of the store under way.",
                ("verb",),
                registry=registry,
                multiprocess_mode="livesum",
            ),
            items=Counter(
                "sojourn_operation_items",
                "Sessions, events or documents that came back or were removed.",
                ("verb",),
                registry=registry,
            ),
            transitions=Counter(
                "sojourn_transitions",
                "Phases of sessions that moved.",
                ("trigger",),
                registry=registry,
            ),
        )
    except ValueError as error:
        raise InvalidQuery("registry", f"it has another metric of this name: {error}") from error
