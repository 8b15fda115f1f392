"""Laws of watching: whoever waits for a session wakes up when it changes, always."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sojourn.lifecycle import Trigger
from sojourn.store import Move, SupportsTransfer, SupportsWatch
from sojourn.testing.laws.corner import Corner, draft, drafts
from sojourn.testing.laws.expect import equal, holds
from sojourn.testing.laws.law import law
from sojourn.testing.laws.lifecycle import end
from sojourn.testing.laws.transfer import restored, taken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.store import Subscription

PATIENCE = 5.0
"""Seconds after which a wake-up counts as lost."""


async def woken(subscription: Subscription, by: str) -> None:
    """Check that a wait returns because of a change and not because time is up."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await subscription.wait(PATIENCE)
    holds(loop.time() - start < PATIENCE * 0.9, f"a watcher wakes up by {by}")


@law(needs=SupportsWatch)
async def every_change_wakes_the_watchers(corner: Corner) -> None:
    """Commits of any kind, moves, deletion: by itself, with its parent, its user, or reaped."""
    await corner.create("a", user="u")
    await corner.create("p")
    await corner.create("c", parent="p")
    await corner.create("r", idle=10)
    changes: tuple[tuple[str, str, Callable[[], Awaitable[object]]], ...] = (
        ("a", "an event", lambda: corner.commit("a", events=(draft("e"),))),
        ("a", "state", lambda: corner.commit("a", state={"n": 1})),
        ("a", "a cut", lambda: corner.commit("a", truncate_after=0)),
        ("a", "a move", lambda: corner.commit("a", move=Move(trigger=Trigger.END))),
        ("a", "forgetting its user", lambda: corner.store.forget(corner.app, "u")),
        ("c", "the end of it", lambda: corner.commit("c", move=end())),
        ("c", "the deletion of its parent", lambda: corner.delete("p")),
        ("r", "the reaper", lambda: corner.reap(now=10)),
        ("n", "its creation", lambda: corner.create("n")),
        ("n", "its deletion", lambda: corner.delete("n")),
    )
    for id, by, change in changes:
        subscription = corner.subscribe(id)
        waiting = asyncio.ensure_future(woken(subscription, by))
        await asyncio.sleep(0)
        await change()
        await waiting
        subscription.close()


@law(needs=SupportsWatch)
async def a_restore_wakes_the_watchers(corner: Corner) -> None:
    """Of a session that is replaced: they read on what has come."""
    if not isinstance(corner.store, SupportsTransfer):
        return
    await corner.create(events=drafts(1))
    old = await taken(corner)
    await corner.append(draft("new"))
    newer = await taken(corner)
    await corner.delete()
    await restored(corner, old)
    subscription = corner.subscribe()
    await restored(corner, newer, replace=True)
    await woken(subscription, "a restore of what it watches")
    subscription.close()
    equal(await corner.seqs(), [1, 2], "the log then")


@law(needs=SupportsWatch)
async def a_change_before_the_wait_is_not_lost(corner: Corner) -> None:
    """What happened since the subscription, or since the last wake-up, makes `wait` return."""
    await corner.create()
    subscription = corner.subscribe()
    await corner.append(draft("a"))
    await woken(subscription, "a change before the first wait")
    await corner.append(draft("b"))
    await corner.append(draft("c"))
    await woken(subscription, "changes between two waits")
    subscription.close()


@law(needs=SupportsWatch)
async def who_reads_after_each_wake_up_misses_nothing(corner: Corner) -> None:
    """However commits and waits interleave, the reader sees every event and then rests."""
    await corner.create()
    subscription = corner.subscribe()
    total = 60

    async def write() -> None:
        for n in range(total):
            await corner.append(draft(f"e{n}"))
            for _ in range(n % 4):
                await asyncio.sleep(0)

    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < total:
            await woken(subscription, f"a change after event {len(seen)}")
            after = seen[-1] if seen else 0
            seen.extend(await corner.seqs(after_seq=after))

    async with asyncio.TaskGroup() as group:
        group.create_task(follow())
        group.create_task(write())
    subscription.close()
    equal(seen, list(range(1, total + 1)), "the events followed")


@law(needs=SupportsWatch)
async def every_watcher_wakes_up(corner: Corner) -> None:
    """Many may watch one session; closing one leaves the others awake."""
    await corner.create()
    subscriptions = [corner.subscribe() for _ in range(5)]
    subscriptions[2].close()
    subscriptions[2].close()
    await corner.append(draft("a"))
    for n in (0, 1, 3, 4):
        await woken(subscriptions[n], f"a change, as watcher {n}")
    for subscription in subscriptions:
        subscription.close()


@law(needs=SupportsWatch)
async def a_wait_ends_when_its_time_is_up(corner: Corner) -> None:
    """Without a change `wait` returns after its timeout, without an error, again and again."""
    await corner.create()
    subscription = corner.subscribe()
    for _ in range(3):
        async with asyncio.timeout(PATIENCE):
            await subscription.wait(0.01)
    await corner.append(draft("a"))
    await woken(subscription, "a change after waits that timed out")
    subscription.close()


@law(needs=SupportsWatch)
async def a_cancelled_wait_loses_nothing(corner: Corner) -> None:
    """A change after a wait was cancelled is seen by the next wait."""
    await corner.create()
    subscription = corner.subscribe()
    waiting = asyncio.ensure_future(subscription.wait(PATIENCE))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await corner.append(draft("a"))
    await woken(subscription, "a change after a cancelled wait")
    subscription.close()
