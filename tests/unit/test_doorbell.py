"""The doorbell: calls from threads into an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sojourn.doorbell import Doorbell

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 5_000


class Deaf(asyncio.SelectorEventLoop):
    """A loop that can not listen to a file, as those of other systems."""

    def add_reader(self, *_arguments: Any) -> None:  # type: ignore[override]  # it takes nothing
        """Refuse."""
        raise NotImplementedError


def run_in(loop: asyncio.AbstractEventLoop, main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("kind", [asyncio.SelectorEventLoop, Deaf])
def test_every_call_of_every_thread_arrives_once_and_in_order(
    kind: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    heard: list[tuple[int, int]] = []

    async def main() -> None:
        bell = Doorbell(asyncio.get_running_loop())
        done = asyncio.Event()

        def hear(who: int, number: int) -> None:
            assert threading.current_thread() is threading.main_thread()
            heard.append((who, number))
            if len(heard) == 2 * CALLS:
                done.set()

        def ring(who: int) -> None:
            for number in range(CALLS):
                bell.ring(partial(hear, who, number))

        threads = [threading.Thread(target=ring, args=(who,)) for who in (0, 1)]
        for thread in threads:
            thread.start()
        await done.wait()
        for thread in threads:
            thread.join()
        bell.close()
        bell.close()

    run_in(kind(), main)
    for who in (0, 1):
        assert [number for caller, number in heard if caller == who] == list(range(CALLS))


def test_a_call_that_fails_is_reported_and_keeps_no_other_waiting() -> None:
    reported: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
        bell = Doorbell(loop)
        done = asyncio.Event()

        def fail() -> None:
            raise ValueError("broken")

        for call in (fail, fail, done.set):
            bell.ring(call)
        await done.wait()
        bell.close()

    run_in(asyncio.SelectorEventLoop(), main)
    assert reported == ["broken", "broken"]


@pytest.mark.parametrize("kind", [asyncio.SelectorEventLoop, Deaf])
def test_ringing_at_a_closed_loop_is_heard_by_nobody(
    kind: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    bells: list[Doorbell] = []

    async def main() -> None:
        bells.append(Doorbell(asyncio.get_running_loop()))

    run_in(kind(), main)
    bells[0].ring(lambda: pytest.fail("nobody is there"))
    bells[0].ring(lambda: pytest.fail("nobody is there"))


def test_without_a_file_left_for_a_bell_calls_go_the_usual_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    heard: list[str] = []

    async def main() -> None:
        bell = Doorbell(asyncio.get_running_loop())
        bell.ring(partial(heard.append, "here"))
        await asyncio.sleep(0)
        bell.close()

    monkeypatch.setattr(os, "eventfd", refuse, raising=False)
    run_in(asyncio.SelectorEventLoop(), main)
    assert heard == ["here"]


def test_taking_it_down_answers_what_nobody_has_heard_yet() -> None:
    heard: list[int] = []

    async def main() -> None:
        bell = Doorbell(asyncio.get_running_loop())
        for number in range(3):
            bell.ring(partial(heard.append, number))
        bell.close()
        await asyncio.sleep(0)

    run_in(asyncio.SelectorEventLoop(), main)
    assert heard == [0, 1, 2]


def test_whoever_hangs_it_lends_no_context_to_its_calls() -> None:
    ambient: contextvars.ContextVar[str] = contextvars.ContextVar("ambient", default="nobody")
    seen: list[str] = []

    async def main() -> None:
        ambient.set("who opened the store")
        bell = Doorbell(asyncio.get_running_loop())
        done = asyncio.Event()

        def look() -> None:
            seen.append(ambient.get())
            done.set()

        bell.ring(look)
        await done.wait()
        bell.close()

    run_in(asyncio.SelectorEventLoop(), main)
    assert seen == ["nobody"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such bell")
def test_a_bell_that_is_taken_down_leaves_no_open_file() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main() -> None:
        before = opened()
        bells = [Doorbell(asyncio.get_running_loop()) for _ in range(10)]
        assert opened() == before + len(bells)
        for bell in bells:
            bell.close()
        assert opened() == before

    run_in(asyncio.SelectorEventLoop(), main)
