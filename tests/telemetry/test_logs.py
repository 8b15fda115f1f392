"""Calls in the log: levels, fields, and nothing at all where nobody listens."""

from __future__ import annotations

import logging

import pytest

from sojourn import InvalidQuery, SessionManager
from sojourn.telemetry import Call, LoggingObserver, Outcome, Result

CALL = Call(store="sqlite", verb="commit", app="shop", session="0a1b", events=2, size=30)


def logged(
    observer: LoggingObserver, caplog: pytest.LogCaptureFixture, outcome: Outcome
) -> logging.LogRecord:
    """Return the record of a call that ended so."""
    caplog.clear()
    observer.started(CALL)
    observer.finished(CALL, None, outcome)
    (record,) = caplog.records
    return record


def test_a_call_is_one_line_with_its_facts_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sojourn.telemetry")
    record = logged(LoggingObserver(), caplog, Outcome(result=Result.OK, seconds=0.0125))
    assert record.name == "sojourn.telemetry"
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == "commit ok in 12.500 ms, session 0a1b"
    fields = {name: value for name, value in vars(record).items() if name.startswith("sojourn_")}
    assert fields == {
        "sojourn_store": "sqlite",
        "sojourn_verb": "commit",
        "sojourn_app": "shop",
        "sojourn_session": "0a1b",
        "sojourn_trigger": None,
        "sojourn_limit": None,
        "sojourn_events": 2,
        "sojourn_size": 30,
        "sojourn_result": "ok",
        "sojourn_seconds": 0.0125,
        "sojourn_error": None,
        "sojourn_items": 0,
        "sojourn_size_returned": 0,
        "sojourn_durability": None,
        "sojourn_repeated": False,
    }


@pytest.mark.parametrize("result", list(Result))
def test_trouble_is_an_error_and_an_ordinary_answer_is_not(
    result: Result, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sojourn.telemetry")
    record = logged(
        LoggingObserver(level=logging.INFO), caplog, Outcome(result=result, seconds=0.1)
    )
    trouble = result in {Result.UNAVAILABLE, Result.CORRUPT, Result.CLOSED, Result.FAILED}
    assert record.levelno == (logging.ERROR if trouble else logging.INFO)


@pytest.mark.parametrize(("seconds", "warned"), [(0.09, False), (0.1, True), (5, True)])
def test_a_slow_call_is_a_warning(
    seconds: float, *, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sojourn.telemetry")
    outcome = Outcome(result=Result.OK, seconds=seconds)
    record = logged(LoggingObserver(slow=0.1), caplog, outcome)
    assert record.levelno == (logging.WARNING if warned else logging.DEBUG)


@pytest.mark.parametrize("slow", [0, -1, float("nan")])
def test_slow_is_a_time(slow: float) -> None:
    with pytest.raises(InvalidQuery, match="slow"):
        LoggingObserver(slow=slow)


async def test_where_nobody_listens_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sojourn.telemetry")
    async with SessionManager.open("memory://", observers=[LoggingObserver()]) as sessions:
        await sessions.create()
    assert caplog.records == []
