"""An observer that fails harms nobody, and says so once in a while, without a word of ours."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.telemetry.recorder import Recorder, Stopwatch

from sojourn import Event, InvalidQuery, SessionManager, Unavailable
from sojourn.store import Get
from sojourn.stores.memory import MemoryStore
from sojourn.telemetry import ObservedStore
from sojourn.telemetry.observed import FAILURE_LOG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sojourn.telemetry import Call, Outcome

    Opener = Callable[..., AbstractAsyncContextManager[SessionManager]]

GET = Get(app="a", id="secret-id", now=0)


class Failing:
    """Raises at the start, at the end, or at both."""

    def __init__(self, *when: str, error: BaseException | None = None) -> None:
        self.when = when
        self.error = error or RuntimeError("out of order")
        self.ends = 0

    def started(self, _call: Call, /) -> None:
        """Raise, if that is when."""
        if "start" in self.when:
            raise self.error

    def finished(self, _call: Call, _note: object, _outcome: Outcome, /) -> None:
        """Raise, if that is when."""
        self.ends += 1
        if "end" in self.when:
            raise self.error


@pytest.mark.parametrize("when", [("start",), ("end",), ("start", "end")])
@pytest.mark.parametrize("error", [RuntimeError("x"), asyncio.CancelledError()], ids=repr)
async def test_a_failing_observer_changes_nothing(
    opened: Opener, when: tuple[str, ...], error: BaseException
) -> None:
    failing, recorder = Failing(*when, error=error), Recorder()
    async with opened(observers=[failing, recorder]) as sessions:
        s = await sessions.create(state={"a": 1})
        await sessions.append(s, Event(kind="message"))
        async for _ in sessions.watch(s.id):
            break
        assert (await sessions.require(s.id)).state["a"] == 1
        await sessions.end(s.id)
    # The other one is told of everything, the failing one of no end whose start it missed.
    assert {"create", "commit", "get", "close"} <= {told.call.verb for told in recorder.told}
    assert recorder.under_way == []
    assert failing.ends == (0 if "start" in when else len(recorder.told))


async def test_a_failing_observer_does_not_hide_the_error_of_the_store() -> None:
    class Down(MemoryStore):
        async def get(self, get: Get, /) -> Any:
            raise Unavailable("a.db", get.id)

    observed = ObservedStore(Down(), [Failing("end")])
    with pytest.raises(Unavailable) as caught:
        await observed.get(GET)
    assert caught.value.__context__ is None


async def test_it_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    stopwatch = Stopwatch(step=0)
    observed = ObservedStore(MemoryStore(), [Failing("start")], stopwatch=stopwatch)
    for _ in range(5):
        await observed.get(GET)
    assert len(caplog.records) == 1
    assert "out of order" in caplog.text
    assert "Failing" in caplog.text
    stopwatch.now += FAILURE_LOG_SECONDS
    await observed.get(GET)
    first, second = caplog.messages
    assert "and 0 times more" in first
    assert "and 4 times more" in second


async def test_what_is_logged_holds_nothing_of_the_error_of_the_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The observer's error happens while the store's, which names the session, is handled."""

    class Down(MemoryStore):
        async def get(self, get: Get, /) -> Any:
            raise Unavailable("a.db", get.id)

    observed = ObservedStore(Down(), [Failing("end", error=RuntimeError("out of order"))])
    with pytest.raises(Unavailable):
        await observed.get(GET)
    assert "out of order" in caplog.text
    assert "secret-id" not in caplog.text


async def test_a_log_that_fails_as_well_harms_nobody() -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise ZeroDivisionError(record.name)

    broken = Broken()
    logger = logging.getLogger("sojourn")
    logger.addFilter(broken)
    try:
        observed = ObservedStore(MemoryStore(), [Failing("start", "end")])
        assert await observed.get(GET) is None
    finally:
        logger.removeFilter(broken)


@pytest.mark.parametrize("observer", [None, print, Recorder, "logging"], ids=repr)
def test_what_is_no_observer_is_refused_at_once(observer: Any) -> None:
    with pytest.raises(InvalidQuery, match="observers"):
        SessionManager.open("memory://", observers=[observer])


# ------------------------------------------------------------------------------ missing extras


@pytest.mark.parametrize(
    ("observer", "module", "extra"),
    [
        ("OpenTelemetryObserver", "opentelemetry", "otel"),
        ("PrometheusObserver", "prometheus_client", "prometheus"),
    ],
)
def test_an_observer_without_its_packages_says_how_to_get_them(
    observer: str, module: str, extra: str
) -> None:
    program = (
        "import sys; import sojourn.telemetry\n"
        f"assert {module!r} not in sys.modules\n"
        f"sys.modules[{module!r}] = None\n"
        "try:\n"
        f"    sojourn.telemetry.{observer}()\n"
        "except sojourn.errors.MissingExtra as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = f'{observer} needs more packages: pip install "sojourn[{extra}]"\n'
    assert done.stdout == expected, done.stderr
