"""Windows of a history: the last so many, a token budget, and tool calls that stay whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.history.conversations import (
    assistant,
    calling,
    contents,
    result,
    system,
    turns,
    user,
)
from tests.history.oracle import best_window, drawn_messages, length
from tests.manager.watched_store import watched

from sojourn import (
    Event,
    InvalidQuery,
    LastMessages,
    NotFound,
    RollingSummary,
    SessionManager,
    TokenBudget,
    open_store,
)
from sojourn.history import strategies
from sojourn.history.messages import Numbered, event_of
from sojourn.history.transcript import MAX_PREAMBLE
from sojourn.history.windows import PAIR_REACH, Window, clean_cut
from sojourn.store import Ends, EventQuery
from sojourn.testing import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.history.conversations import Opener
    from tests.manager.watched_store import WatchedStore

    from sojourn.history import History, Message, Strategy
    from sojourn.model import Entry


async def history_of(sessions: SessionManager, *messages: Message) -> History:
    history = sessions.history((await sessions.create()).id)
    if messages:
        await history.append(*messages)
    return history


# ------------------------------------------------------------------------------------ last so many


@pytest.mark.behaviour(99)
@pytest.mark.parametrize(
    ("last", "shown"),
    [
        (0, []),
        (1, ["5"]),
        (2, ["4", "5"]),
        (5, ["1", "2", "3", "4", "5"]),
        (6, ["1", "2", "3", "4", "5"]),
        (10**30, ["1", "2", "3", "4", "5"]),
    ],
)
async def test_the_last_so_many(opened: Opener, last: int, shown: list[str]) -> None:
    """Fewer, exactly, more than there are; the log keeps all of them."""
    async with opened() as sessions:
        history = await history_of(sessions, *turns(5))
        assert contents(await history.load(last=last)) == shown
        assert contents(await history.load(LastMessages(last))) == shown
        assert len(await history.load()) == 5


@pytest.mark.behaviour(99)
async def test_windows_of_two_sessions(opened: Opener) -> None:
    async with opened() as sessions:
        first = await history_of(sessions, *turns(3))
        second = await history_of(sessions, user("other"))
        assert contents(await first.load(last=2)) == ["2", "3"]
        assert contents(await second.load(last=2)) == ["other"]


async def test_an_empty_history(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions)
        for strategy in (None, LastMessages(0), LastMessages(3), TokenBudget(3, length)):
            assert await history.load(strategy) == []


async def test_events_of_other_kinds_do_not_count(opened: Opener) -> None:
    async with opened() as sessions:
        session = await sessions.create()
        history = sessions.history(session.id)
        for message in turns(4):
            await history.append(message)
            await sessions.append(session, Event(kind="step"), Event(kind="summary", body="none"))
        assert contents(await history.load(last=3)) == ["2", "3", "4"]


# ------------------------------------------------------------------------------------ token budget


@pytest.mark.behaviour(100)
@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (0, ["ccc"]),
        (2, ["ccc"]),
        (3, ["ccc"]),
        (4, ["ccc"]),
        (5, ["bb", "ccc"]),
        (6, ["a", "bb", "ccc"]),
        (10**30, ["a", "bb", "ccc"]),
    ],
)
async def test_a_budget_drops_the_oldest_first(
    opened: Opener, limit: int, shown: list[str]
) -> None:
    """All that fits, and the newest even if it does not."""
    async with opened() as sessions:
        history = await history_of(sessions, user("a"), assistant("bb"), user("ccc"))
        assert contents(await history.load(TokenBudget(limit, length))) == shown


async def test_what_weighs_nothing_fits_a_full_budget(opened: Opener) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, user("x"), user(""), user(""), user("yy"))
        assert contents(await history.load(TokenBudget(2, length))) == ["", "", "yy"]


@pytest.mark.parametrize("counted", [-1, 1.0, True, None, "3"])
async def test_a_tokenizer_returns_whole_numbers(opened: Opener, counted: Any) -> None:
    async with opened() as sessions:
        history = await history_of(sessions, user("a"))
        with pytest.raises(InvalidQuery, match="count"):
            await history.load(TokenBudget(5, lambda _message: counted))


async def test_what_a_tokenizer_raises_is_raised(opened: Opener) -> None:
    def count(message: Message) -> int:
        raise LookupError("no such model")

    async with opened() as sessions:
        history = await history_of(sessions, user("a"))
        with pytest.raises(LookupError):
            await history.load(TokenBudget(5, count))
        assert await history.load() == [user("a")]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"last": -1}, "last"),
        ({"last": 1.0}, "last"),
        ({"last": True}, "last"),
        ({"last": "5"}, "last"),
        ({"last": 1, "strategy": LastMessages(1)}, "last"),
        ({"strategy": 5}, "strategy"),
        ({"strategy": LastMessages}, "strategy"),
    ],
)
async def test_what_is_no_strategy(arguments: dict[str, Any], field: str) -> None:
    async with SessionManager.open("memory://") as sessions:
        history = await history_of(sessions, user("a"))
        with pytest.raises(InvalidQuery) as caught:
            await history.load(**arguments)
        assert caught.value.field == field


@pytest.mark.parametrize(
    "make",
    [lambda: TokenBudget(-1, length), lambda: TokenBudget(1, 5)],  # type: ignore[arg-type]  # wrong on purpose
)
def test_what_is_no_budget(make: Callable[[], TokenBudget]) -> None:
    with pytest.raises(InvalidQuery):
        make()


# -------------------------------------------------------------------------- the start of the talk


async def test_system_messages_at_the_start_stay(opened: Opener) -> None:
    """On top of the last so many, and within a budget; later ones are messages like others."""
    head = [system("be"), {"role": "developer", "content": "kind"}]
    async with opened() as sessions:
        history = await history_of(sessions, *head, *turns(3), system("late"), user("5"))
        assert contents(await history.load(last=1)) == ["be", "kind", "5"]
        assert contents(await history.load(last=2)) == ["be", "kind", "late", "5"]
        assert contents(await history.load(last=99)) == contents(await history.load())
        assert await history.load(last=0) == []
        assert contents(await history.load(TokenBudget(0, length))) == ["be", "kind", "5"]
        assert contents(await history.load(TokenBudget(10, length))) == ["be", "kind", "5"]
        assert contents(await history.load(TokenBudget(11, length))) == [
            *("be", "kind", "late", "5")
        ]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, MAX_PREAMBLE])
async def test_a_preamble_of_any_length(opened: Opener, count: int) -> None:
    head = [system(f"s{number}") for number in range(count)]
    async with opened() as sessions:
        history = await history_of(sessions, *head)
        assert await history.load(last=1) == head
        await history.append(*turns(3))
        assert contents(await history.load(last=1)) == [*contents(head), "3"]


async def test_a_preamble_has_an_end(opened: Opener) -> None:
    """Beyond so many, system messages are messages like others."""
    head = [system(f"s{number}") for number in range(MAX_PREAMBLE + 3)]
    async with opened() as sessions:
        history = await history_of(sessions, *head)
        assert await history.load(last=1) == [*head[:MAX_PREAMBLE], head[-1]]


# -------------------------------------------------------------------------------- calls and results


@pytest.mark.parametrize(("last", "start"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 0)], ids=str)
async def test_the_newest_result_brings_its_call(opened: Opener, last: int, start: int) -> None:
    """And the other results of the same call, however small the window."""
    talk = [user("q"), calling("a", "b"), result("b"), user("hm"), result("a")]
    async with opened() as sessions:
        history = await history_of(sessions, *talk)
        assert await history.load(last=last) == talk[start:]


async def test_calls_and_results_go_together(opened: Opener) -> None:
    """A window that would begin between them begins behind them."""
    talk = [user("q"), calling("a", "b"), result("a"), result("b"), assistant("done"), user("ok")]
    async with opened() as sessions:
        history = await history_of(sessions, *talk)
        shown = [len(await history.load(last=last)) for last in range(1, 7)]
        assert shown == [1, 2, 2, 2, 5, 6]
        assert await history.load(last=4) == talk[4:]


async def test_a_result_without_a_call_is_not_shown(opened: Opener) -> None:
    """But it is stored, and shown with everything."""
    talk = [user("q"), result("gone"), assistant("a"), user("b")]
    async with opened() as sessions:
        history = await history_of(sessions, *talk)
        assert await history.load(last=3) == [talk[0], *talk[2:]]
        assert await history.load(last=2) == talk[2:]
        assert await history.load() == talk


async def test_a_result_without_a_call_as_the_newest(opened: Opener) -> None:
    """It is shown, behind what was said before, so that it does not stand first."""
    async with opened() as sessions:
        history = await history_of(sessions, result("gone", "only"))
        assert contents(await history.load(last=1)) == ["only"]
        await history.append(user("q"), result("a", "x"), result("gone", "y"))
        assert contents(await history.load(last=1)) == ["q", "y"]
        assert contents(await history.load(TokenBudget(0, length))) == ["q", "y"]


async def test_ids_that_are_used_again(opened: Opener) -> None:
    """A result belongs to the nearest call before it."""
    talk = [calling("1"), result("1"), user("more"), calling("1"), result("1"), assistant("done")]
    async with opened() as sessions:
        history = await history_of(sessions, *talk)
        assert await history.load(last=3) == talk[3:]
        assert await history.load(last=5) == talk[2:]


async def test_the_search_for_a_call_has_an_end(url: str) -> None:
    """The newest result, whose call is nowhere, costs a bounded search and not the log."""
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, *turns(3_000), result("nowhere"))
        for strategy in (LastMessages(2), TokenBudget(0, length)):
            store.forget_calls()
            assert contents(await history.load(strategy)) == ["3000", "found"]
            assert asked_for(store) <= 4 * PAIR_REACH
        many = await history_of(sessions, *turns(2), *[result("nowhere")] * 3_000, user("new"))
        store.forget_calls()
        assert contents(await many.load(last=2)) == ["new"]
        assert asked_for(store) <= 4 * PAIR_REACH
        lone = await history_of(sessions, *[result("nowhere")] * 3_000)
        store.forget_calls()
        assert contents(await lone.load(last=5)) == ["found"]
        assert asked_for(store) <= 5 * PAIR_REACH


def pure(messages: list[Message], room: int | None, weigh: Callable[[Message], int]) -> Window:
    """Fill a window with all that it takes."""
    window = Window(room, weigh)
    for seq in range(len(messages), 0, -1):
        window.add(Numbered(seq, str(seq), messages[seq - 1]))
        if window.full:
            break
    return window


@settings(deadline=None)
@given(st.lists(drawn_messages, max_size=14), st.integers(0, 14), st.booleans())
@example([result("a"), user("x")], 2, True)
@example([calling("a"), user("x"), result("a")], 0, True)
def test_a_window_is_the_longest_that_fits(
    messages: list[Message], room: int, by_number: bool
) -> None:
    """Against windows that are worked out the slow way; calls and results are never parted."""
    weigh = (lambda _message: 1) if by_number else length
    shown = [item.message for item in pure(messages, room, weigh).shown()]
    assert shown == best_window(messages, room, weigh)
    if messages:
        assert shown[-1] is messages[-1]


@settings(deadline=None)
@given(st.lists(drawn_messages, max_size=14), st.integers(0, 14))
def test_what_a_window_never_does(messages: list[Message], room: int) -> None:
    """A result does not stand first if anything else can, nor without its call in the middle."""
    shown = [item.message for item in pure(messages, room, length).shown()]
    if any("tool_call_id" not in message for message in messages):
        assert "tool_call_id" not in shown[0]
    called: set[str] = set()
    for message in shown[:-1]:
        called |= {call["id"] for call in message.get("tool_calls", [])}
        assert message.get("tool_call_id", "") in called | {""}


@settings(deadline=None)
@given(st.lists(drawn_messages, max_size=14), st.integers(0, 14))
def test_a_clean_cut_parts_nothing(messages: list[Message], cut: int) -> None:
    """No result on one side with its call on the other, nor a call that waits for its result."""
    items = [Numbered(seq, "", message) for seq, message in enumerate(messages, 1)]
    at = clean_cut(items, min(cut, len(items)))
    assert at <= cut
    for index, message in enumerate(messages):
        if "tool_call_id" in message and index >= at:
            ids = [{call["id"] for call in m.get("tool_calls", [])} for m in messages[:index]]
            callers = [place for place, each in enumerate(ids) if message["tool_call_id"] in each]
            assert not callers or callers[-1] >= at


def test_a_call_that_waits_is_not_cut_off() -> None:
    """Until the assistant speaks again; and not for ever."""

    def cut(*messages: Message) -> int:
        items = [Numbered(seq, "", message) for seq, message in enumerate(messages, 1)]
        return clean_cut(items, len(items) - 1)

    assert cut(user("q"), calling("a", "b"), result("a"), user("and?"), user("well?")) == 1
    assert cut(user("q"), calling("a"), user("hm"), assistant("sorry"), user("ok")) == 4
    assert cut(user("q"), calling("a"), *turns(PAIR_REACH), result("a"), user("x")) > PAIR_REACH
    assert cut(user("q"), calling("a"), *[user("x")] * (PAIR_REACH - 2), result("a"), user("x")) > 1
    assert cut(user("q"), calling("a"), *[user("x")] * (PAIR_REACH - 1), result("a")) == 1


# ------------------------------------------------------------------------------------- page by page


@settings(deadline=None)
@given(st.lists(drawn_messages, min_size=1, max_size=20), st.integers(0, 20), st.integers(1, 5))
def test_pages_make_no_difference(messages: list[Message], room: int, page: int) -> None:
    """However short they are, the window is the same as of the whole list."""

    async def check() -> None:
        async with SessionManager.open("memory://") as sessions:
            history = await history_of(sessions, *messages)
            budget = await history.load(TokenBudget(room, length))
            assert budget == best_window(messages, room, length)
            if room:
                assert await history.load(last=room) == best_window(messages, room, lambda _: 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "BUDGET_PAGE", page)
        patch.setattr(strategies, "PAIR_SLACK", page)
        asyncio.run(check())


class OneEnd(FaultyStore):
    """A store that knows nothing of `Ends`."""

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        fields = {name: getattr(window, name) for name in EventQuery.__struct_fields__}
        return await super().events(app, id, now, EventQuery(**fields))


@pytest.mark.parametrize("kind", ["memory", "sqlite", "one end"])
def test_one_read_or_many_make_no_difference(kind: str, tmp_path: Path) -> None:
    """Whatever the preamble, events of other kinds in between, and what a store brings along."""

    async def check(systems: int, messages: list[Message], notes: set[int], n: int) -> None:
        store = open_store("memory://" if kind != "sqlite" else f"sqlite:///{tmp_path / 'a.db'}")
        await store.open()
        async with SessionManager(OneEnd(store) if kind == "one end" else store) as sessions:
            events: list[Event] = []
            talk = [*[system("s")] * systems, *messages]
            for index, message in enumerate(talk):
                events += [Event(kind="note")] * (3 * (index in notes))
                events.append(event_of(message))
            session = await sessions.create()
            if events:
                await sessions.append(session, *events)
            history = sessions.history(session.id)
            head = [system("s")] * min(systems, MAX_PREAMBLE)
            rest = talk[len(head) :]
            assert await history.load() == talk
            assert await history.load(last=n) == [*head, *best_window(rest, n, lambda _: 1)]
            budget = await history.load(TokenBudget(n, length))
            assert budget == [*head, *best_window(rest, n - systems, length)]
        await store.close()

    @settings(deadline=None, max_examples=100 if kind == "memory" else 40)
    @given(
        st.integers(0, 7),
        st.lists(drawn_messages, max_size=12),
        st.sets(st.integers(0, 12)),
        st.integers(1, 14),
    )
    def run(systems: int, messages: list[Message], notes: set[int], n: int) -> None:
        asyncio.run(check(systems, messages, notes, n))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "BUDGET_PAGE", 5)
        run()


@pytest.mark.parametrize("last", [1, 50])
async def test_the_last_so_many_take_one_read(opened: Opener, last: int) -> None:
    """With a preamble or without, in a log that is longer than that."""
    async with opened() as sessions:
        store = FaultyStore(sessions.store)
        async with SessionManager(store) as watched_sessions:
            for head in ([], [system("s")], [system("s")] * 2):
                history = await history_of(watched_sessions, *head, *turns(60))
                before = store.calls["events"]
                assert len(await history.load(last=last)) == len(head) + last
                assert store.calls["events"] == before + 1


def asked_for(store: WatchedStore) -> int:
    """Return how many events the store was asked for at most, in all reads of logs so far."""
    windows = [arguments[3] for verb, arguments in store.calls if verb == "events"]
    limits = [window.last if window.first is None else window.first for window in windows]
    assert None not in limits, "a window without an end was read"
    limits += [window.opening for window in windows if isinstance(window, Ends)]
    return sum(limits)


@pytest.mark.parametrize(
    ("strategy", "shown", "most"),
    [
        (LastMessages(50), 51, 55),
        (LastMessages(0), 0, 0),
        (LastMessages(700), 701, 2_000),
        (TokenBudget(100, lambda _message: 1), 100, 400),
        (TokenBudget(0, lambda _message: 1), 2, 50),
    ],
)
async def test_a_window_of_a_long_log_reads_what_it_shows(
    url: str, strategy: Strategy, shown: int, most: int
) -> None:
    """And a little more, not the log."""
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, system("s"), *turns(4_999))
        store.forget_calls()
        assert len(await history.load(strategy)) == shown
        assert asked_for(store) <= most


async def reads_up_to(store: WatchedStore, load: Any, count: int) -> Any:
    """Start a load and stop it before its `count`-th read of the log; return how to go on."""
    gate = store.hold("events", "before")
    task = asyncio.ensure_future(load)
    for _ in range(count - 1):
        await gate.arrived.wait()
        following = store.hold("events", "before")
        gate.go()
        gate = following
    await gate.arrived.wait()

    async def rest() -> Any:
        gate.go()
        return await task

    return rest


async def test_a_log_that_is_cut_while_it_is_read(url: str) -> None:
    """The parts of one view belong together: nothing that is gone beside what came after."""
    async with watched(url) as (sessions, store):
        session = await sessions.create()
        history = sessions.history(session.id)
        await history.append(*turns(100))
        await sessions.refresh(session)
        rest = await reads_up_to(store, history.load(TokenBudget(1_000, length)), 2)
        await sessions.truncate(session, after=50)
        await history.append(user("new"))
        expected = [*(str(number) for number in range(1, 51)), "new"]
        assert contents(await rest()) == expected


async def test_a_session_that_is_made_anew_while_it_is_read(url: str) -> None:
    """The same numbers, but other events: what is shown is of one session."""
    async with watched(url) as (sessions, store):
        session = await sessions.create(id="s-1")
        await sessions.history(session).append(*turns(100))
        history = sessions.history("s-1")
        rest = await reads_up_to(store, history.load(TokenBudget(1_000, length)), 2)
        await sessions.delete("s-1")
        again = await sessions.create(id="s-1")
        await sessions.history(again).append(*[user("new")] * 100)
        assert contents(await rest()) == ["new"] * 100


@pytest.mark.parametrize(
    ("strategy", "systems", "reads"),
    [(LastMessages(2), 4, 4), (RollingSummary(), 1, 2)],
    ids=["window", "summary"],
)
async def test_the_start_of_the_talk_is_of_the_same_talk(
    url: str, strategy: Strategy, systems: int, reads: int
) -> None:
    """The session is made anew after its first messages were read: they are read again.

    So many that a window has to read them apart.
    """
    async with watched(url) as (sessions, store):
        await sessions.create(id="s-1")
        history = sessions.history("s-1")
        await history.append(*[system("old")] * systems, user("q"))
        rest = await reads_up_to(store, history.load(strategy), reads)
        await sessions.delete("s-1")
        await sessions.create(id="s-1")
        await history.append(system("new"), user("other"))
        assert contents(await rest()) == ["new", "other"]


async def test_appends_while_it_is_read_are_for_the_next_time(url: str) -> None:
    async with watched(url) as (sessions, store):
        history = await history_of(sessions, *turns(100))
        rest = await reads_up_to(store, history.load(TokenBudget(1_000, length)), 2)
        await history.append(user("new"))
        assert await rest() == turns(100)
        rest = await reads_up_to(store, history.load(TokenBudget(1_000, length)), 2)
        await sessions.delete(history._id)
        with pytest.raises(NotFound):
            await rest()
