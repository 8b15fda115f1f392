"""The clock and the ids that a test controls."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sojourn.testing import FakeClock, SequenceIds
from sojourn.timestamps import to_datetime


def test_a_clock_starts_at_new_year() -> None:
    assert to_datetime(FakeClock().now()) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_clock_starts_where_it_is_told_to() -> None:
    noon = datetime(2030, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert to_datetime(FakeClock(noon).now()) == noon
    assert FakeClock(1.5).now() == 1_500_000
    assert FakeClock(0).now() == 0


def test_a_clock_refuses_a_start_that_would_be_a_guess() -> None:
    with pytest.raises(ValueError, match="time zone"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001 - a naive one is the point
    with pytest.raises(ValueError, match="plausible"):
        FakeClock(1_767_225_600_000)


def test_a_clock_moves_only_when_it_is_moved() -> None:
    clock = FakeClock(0)
    assert clock.now() == clock.now() == 0
    clock.advance(2)
    clock.advance(0.000001)
    assert clock.now() == 2_000_001
    clock.advance(-3)
    assert clock.now() == -999_999


def test_a_clock_shows_its_time() -> None:
    assert repr(FakeClock()) == "FakeClock(2026-01-01T00:00:00+00:00)"


def test_ids_are_the_same_in_every_run() -> None:
    ids = SequenceIds()
    assert [ids.session_id(), ids.session_id()] == ["s1", "s2"]
    assert [ids.event_id(), ids.event_id()] == ["s-event-1", "s-event-2"]
    assert [ids.epoch(), ids.epoch()] == ["s-epoch-1", "s-epoch-2"]
    assert SequenceIds().operation() == SequenceIds().operation()


def test_operation_ids_are_eight_bytes_and_differ_by_number_and_prefix() -> None:
    sources = [SequenceIds("a"), SequenceIds("b")]
    given = [source.operation() for source in sources for _ in range(100)]
    assert {len(operation) for operation in given} == {8}
    assert len(set(given)) == 200


def test_there_is_nothing_else_by_another_name() -> None:
    testing = sys.modules["sojourn.testing"]
    assert "FakeClock" in dir(testing)
    with pytest.raises(AttributeError, match="no attribute 'Fake'"):
        testing.Fake  # noqa: B018 - the look-up is the point


async def test_who_sleeps_by_a_clock_wakes_when_it_has_moved_on() -> None:
    clock = FakeClock()
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (2, 1, 0, -1, 3)]
    await asyncio.sleep(0)
    assert woken == [0, -1]
    clock.advance(0.5)
    clock.advance(1.5)
    await asyncio.gather(tasks[0], tasks[1])
    assert woken == [0, -1, 2, 1]
    tasks[4].cancel()
    await asyncio.wait([tasks[4]])
    clock.advance(10)
    assert len(woken) == 4


async def test_a_sleeper_that_gives_up_as_it_is_woken_is_no_trouble() -> None:
    clock = FakeClock()
    task = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)


def test_a_sleeper_whose_loop_is_gone_is_forgotten() -> None:
    clock = FakeClock()
    loop = asyncio.new_event_loop()
    task = loop.create_task(clock.sleep(1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    clock.advance(2)
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is left behind on purpose
