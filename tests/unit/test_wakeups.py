"""Tests of wake-ups: the tasks that look for changes while anybody waits."""

from __future__ import annotations

import asyncio

from sojourn.wakeups import Lookout


class Looks:
    """Looks that end when they are told to, and let go of what they hold when they may."""

    def __init__(self) -> None:
        self.begun = 0
        self.over = asyncio.Event()
        self.may_let_go = asyncio.Event()
        self.has_let_go = 0

    async def __call__(self) -> None:
        self.begun += 1
        try:
            await self.over.wait()
        except asyncio.CancelledError:
            await self.may_let_go.wait()
            self.has_let_go += 1
            raise


async def turns(number: int = 3) -> None:
    """Let others have so many turns."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_it_begins_once() -> None:
    lookout, looks = Lookout(), Looks()
    looks.may_let_go.set()
    lookout.begin(looks, looks)
    lookout.begin(looks, looks)
    await turns()
    assert looks.begun == 2
    await lookout.close()
    assert looks.has_let_go == 2


async def test_a_look_that_ended_by_itself_begins_anew() -> None:
    """Whoever comes in the very turn in which it ends, too."""
    lookout, looks = Lookout(), Looks()
    lookout.begin(looks)
    await turns()
    (task,) = lookout._looking
    looks.over.set()
    while not task.done():
        await turns(1)
    looks.over.clear()
    looks.may_let_go.set()
    lookout.begin(looks)
    await turns()
    assert looks.begun == 2
    await lookout.close()


async def test_the_end_waits_for_what_was_left_before() -> None:
    lookout, looks = Lookout(), Looks()
    for _ in range(2):
        lookout.begin(looks)
        await turns()
        lookout.end()
    closing = asyncio.create_task(lookout.close())
    await turns()
    assert not closing.done()
    looks.may_let_go.set()
    await closing
    assert (looks.begun, looks.has_let_go) == (2, 2)
    assert len(asyncio.all_tasks()) == 1


async def test_nothing_to_wait_for() -> None:
    lookout = Lookout()
    await lookout.close()
    await lookout.close()


def test_it_may_end_after_its_loop() -> None:
    lookout, looks = Lookout(), Looks()
    looks.may_let_go.set()

    async def begin() -> None:
        lookout.begin(looks)
        await turns()

    asyncio.run(begin())
    lookout.end()
    assert looks.has_let_go == 1
