"""Telemetry: what passes through a store, told to logs, traces and metrics, without raw ids."""

from __future__ import annotations

from sojourn.telemetry.fingerprint import Fingerprint
from sojourn.telemetry.logs import LoggingObserver
from sojourn.telemetry.observed import ObservedStore
from sojourn.telemetry.observer import Call, Observer, Outcome, Result
from sojourn.telemetry.opentelemetry import OpenTelemetryObserver
from sojourn.telemetry.prometheus import PrometheusObserver

__all__ = [
    "Call",
    "Fingerprint",
    "LoggingObserver",
    "ObservedStore",
    "Observer",
    "OpenTelemetryObserver",
    "Outcome",
    "PrometheusObserver",
    "Result",
]
