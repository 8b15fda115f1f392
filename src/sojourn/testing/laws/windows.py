"""Laws of windows: which events a reader of the log asks for, and gets."""

from __future__ import annotations

from typing import Any

from sojourn.store import Ends
from sojourn.testing.laws.corner import ONE, Corner, draft, drafts, instant
from sojourn.testing.laws.expect import equal
from sojourn.testing.laws.law import law

Cases = tuple[tuple[dict[str, Any], list[int]], ...]


async def check(corner: Corner, cases: Cases) -> None:
    """Check windows of the log, read by `events` and by `get`."""
    for window, expected in cases:
        equal(await corner.seqs(**window), expected, f"the events of {window}")
        record = await corner.read(**window)
        equal(
            [entry.seq for entry in record.entries], expected, f"the entries of get with {window}"
        )


@law(behaviours=(89, 99))
async def the_last_n_are_the_last_n_in_ascending_order(corner: Corner) -> None:
    """Fewer when there are fewer, none for 0, all for no limit; `first` counts from the start."""
    await corner.create(events=drafts(5))
    await check(
        corner,
        (
            ({"last": 3}, [3, 4, 5]),
            ({"last": 1}, [5]),
            ({"last": 5}, [1, 2, 3, 4, 5]),
            ({"last": 100}, [1, 2, 3, 4, 5]),
            ({"last": 0}, []),
            ({"last": None}, [1, 2, 3, 4, 5]),
            ({"first": 2}, [1, 2]),
            ({"first": 100}, [1, 2, 3, 4, 5]),
            ({"first": 0}, []),
        ),
    )


@law()
async def bounds_by_number_are_exclusive(corner: Corner) -> None:
    """`after_seq` and `before_seq` leave out the number they name; far-off bounds are fine."""
    await corner.create(events=drafts(5))
    await check(
        corner,
        (
            ({"after_seq": 3}, [4, 5]),
            ({"after_seq": 0}, [1, 2, 3, 4, 5]),
            ({"after_seq": 5}, []),
            ({"after_seq": 10**12}, []),
            ({"before_seq": 3}, [1, 2]),
            ({"before_seq": 1}, []),
            ({"before_seq": 0}, []),
            ({"before_seq": 10**12}, [1, 2, 3, 4, 5]),
            ({"after_seq": 1, "before_seq": 5}, [2, 3, 4]),
            ({"after_seq": 3, "before_seq": 3}, []),
            ({"after_seq": 4, "before_seq": 2}, []),
            ({"after_seq": 1, "before_seq": 5, "last": 2}, [3, 4]),
            ({"after_seq": 1, "before_seq": 5, "first": 2}, [2, 3]),
            ({"after_seq": 2, "first": 1}, [3]),
            ({"before_seq": 4, "last": 1}, [3]),
        ),
    )


@law(behaviours=(89,))
async def since_is_inclusive_and_comes_before_the_limit(corner: Corner) -> None:
    """Events at or after an instant; with `last`, the last so many of those."""
    await corner.create(events=drafts(5))
    await check(
        corner,
        (
            ({"since": instant(2)}, [2, 3, 4, 5]),
            ({"since": instant(2) + 1}, [3, 4, 5]),
            ({"since": instant(1), "last": 2}, [4, 5]),
            ({"since": instant(4), "last": 3}, [4, 5]),
            ({"since": instant(2), "first": 2}, [2, 3]),
            ({"since": instant(5)}, [5]),
            ({"since": instant(6)}, []),
            ({"since": instant(-9)}, [1, 2, 3, 4, 5]),
            ({"since": instant(2), "before_seq": 4}, [2, 3]),
            ({"since": instant(2), "after_seq": 3}, [4, 5]),
            ({"since": instant(3), "last": 0}, []),
        ),
    )


@law()
async def since_finds_late_times_among_early_ones(corner: Corner) -> None:
    """When clocks step back, each event is judged by its own time, wherever it stands."""
    await corner.create()
    times = (10, 3, 12, 12, 1, 11, 2)
    await corner.append(*(draft(f"e{n}", at=at) for n, at in enumerate(times)))
    await check(
        corner,
        (
            ({"since": instant(11)}, [3, 4, 6]),
            ({"since": instant(12)}, [3, 4]),
            ({"since": instant(13)}, []),
            ({"since": instant(10), "last": 2}, [4, 6]),
            ({"since": instant(10), "first": 2}, [1, 3]),
            ({"since": instant(2), "after_seq": 4}, [6, 7]),
        ),
    )
    await corner.commit(truncate_after=2)
    await corner.append(draft("late", at=5))
    await check(corner, (({"since": instant(10)}, [1]), ({"since": instant(5)}, [1, 8])))
    await corner.commit(truncate_after=0)
    await corner.append(draft("early", at=-5))
    await check(corner, (({"since": instant(0)}, []), ({"since": instant(-5)}, [9])))


@law()
async def kinds_are_kept_before_the_limit(corner: Corner) -> None:
    """Only events of those kinds, in log order; with a limit, so many of those."""
    await corner.create()
    kinds = ("message", "note", "message", "tool", "note", "message", "other")
    await corner.append(*(draft(f"e{n}", kind=k, at=n) for n, k in enumerate(kinds, start=1)))
    await check(
        corner,
        (
            ({"kinds": ("message",)}, [1, 3, 6]),
            ({"kinds": ("message", "tool")}, [1, 3, 4, 6]),
            ({"kinds": ("tool", "message", "tool")}, [1, 3, 4, 6]),
            ({"kinds": ("unknown",)}, []),
            ({"kinds": ("unknown", "tool")}, [4]),
            ({"kinds": ("Message",)}, []),
            ({"kinds": ()}, []),
            ({"kinds": ("message",), "last": 2}, [3, 6]),
            ({"kinds": ("message", "note"), "last": 3}, [3, 5, 6]),
            ({"kinds": ("message", "note"), "first": 3}, [1, 2, 3]),
            ({"kinds": ("message",), "after_seq": 1, "before_seq": 6}, [3]),
            ({"kinds": ("message", "note"), "since": instant(3), "last": 2}, [5, 6]),
            ({"kinds": ("message",), "last": 0}, []),
        ),
    )
    await corner.commit(truncate_after=5)
    await check(corner, (({"kinds": ("message",)}, [1, 3]), ({"kinds": ("other",)}, [])))


@law()
async def a_session_without_events_has_an_empty_log(corner: Corner) -> None:
    """An empty log is an empty list; without a window, `get` brings no events."""
    await corner.create()
    await check(corner, (({"last": 5}, []), ({"since": instant(0)}, []), ({"kinds": ("a",)}, [])))
    await corner.append(*drafts(3))
    equal((await corner.read()).entries, (), "the entries of get without a window")
    equal((await corner.read()).header.seq, 3, "the last number in its header")


@law()
async def a_window_that_is_read_again_shows_what_became_of_the_log(corner: Corner) -> None:
    """What was appended and what was cut since it was read, and what another session has there."""
    await corner.create(events=drafts(5))
    await _check_again(corner, "at first")
    await _check_again(corner, "as it was")
    await corner.append(draft("one more", at=6))
    await _check_again(corner, "with one more")
    await corner.append(*(draft(f"m{n}", kind="message", at=6 + n) for n in range(1, 31)))
    await _check_again(corner, "with many more")
    await corner.commit(truncate_after=20)
    await _check_again(corner, "after a cut")
    await corner.append(draft("one more", at=37))
    await _check_again(corner, "going on from there")
    await corner.commit(truncate_after=21, events=(draft("instead", at=38),))
    await _check_again(corner, "with another end")
    await corner.commit(truncate_after=0)
    await _check_again(corner, "without anything")
    await corner.append(*drafts(4))
    await _check_again(corner, "begun anew")
    await corner.delete()
    await corner.create(events=tuple(draft(f"e{n}", "another", at=n) for n in range(1, 6)))
    await _check_again(corner, "of another session")


AGAIN: tuple[dict[str, Any], ...] = (
    {"last": 1},
    {"last": 3},
    {"last": 8},
    {"last": 50},
    {"last": 3, "kinds": ("note",)},
    {"last": 3, "kinds": ("message",)},
    {"last": 8, "kinds": ("message", "note")},
    {"last": 8, "after_seq": 2},
)
"""Windows that are read again and again."""


async def _check_again(corner: Corner, moment: str) -> None:
    """Check windows against the whole log, which is read first."""
    log = await corner.log()
    for window in AGAIN:
        kinds, after = window.get("kinds"), window.get("after_seq", 0)
        fitting = [e for e in log if e.seq > after and (kinds is None or e.kind in kinds)]
        expected = fitting[-window["last"] :]
        where = f"{window}, {moment}"
        equal(await corner.log(**window), expected, f"the events of {where}")
        entries = list((await corner.read(**window)).entries)
        equal(entries, expected, f"the entries of get with {where}")
        both = await corner.store.events(corner.app, ONE, instant(0), Ends(**window, opening=2))
        before = fitting[: -window["last"]][:2]
        found = list(both or ())
        if found != expected:  # the store's choice, see the next law
            equal(found, [*before, *expected], f"both ends of {where}")
        if isinstance(both, list):
            both.clear()  # it is the caller's own


@law()
async def the_beginning_of_a_window_may_come_along(corner: Corner) -> None:
    """Asked for both ends, a store answers with the last ones, or with the first ones before them.

    Which of the two is the store's choice, but always the same.
    """
    await corner.create()
    kinds = ("message", "note", "note", "note", "note", "message", "message", "note", "message")
    await corner.append(*(draft(f"e{n}", kind=k, at=n) for n, k in enumerate(kinds, start=1)))
    knows = await _ends(corner, last=1, opening=1) == [1, 9]
    for window, first, last in (
        ({"last": 1, "opening": 1}, [1], [9]),
        ({"last": 2, "opening": 2, "kinds": ("message",)}, [1, 6], [7, 9]),
        ({"last": 2, "opening": 1, "kinds": ("message",)}, [1], [7, 9]),
        ({"last": 3, "opening": 3, "kinds": ("message",)}, [1], [6, 7, 9]),
        ({"last": 4, "opening": 3, "kinds": ("message",)}, [], [1, 6, 7, 9]),
        ({"last": 9, "opening": 3, "kinds": ("message",)}, [], [1, 6, 7, 9]),
        ({"last": 2, "opening": 2, "kinds": ("message", "note")}, [1, 2], [8, 9]),
        ({"last": 1, "opening": 1, "after_seq": 2}, [3], [9]),
        ({"last": 1, "opening": 2, "after_seq": 2, "kinds": ("message",)}, [6, 7], [9]),
        ({"last": 1, "opening": 2, "before_seq": 7, "kinds": ("message",)}, [1], [6]),
        ({"last": 1, "opening": 1, "since": instant(3), "kinds": ("message",)}, [6], [9]),
        ({"last": 0, "opening": 2}, [], []),
        ({"last": 5, "opening": 2, "kinds": ("other",)}, [], []),
    ):
        expected = [*first, *last] if knows else last
        equal(await _ends(corner, **window), expected, f"the events of both ends of {window}")


async def _ends(corner: Corner, **window: Any) -> list[int]:
    found = await corner.store.events(corner.app, ONE, instant(0), Ends(**window))
    return [entry.seq for entry in found or ()]
