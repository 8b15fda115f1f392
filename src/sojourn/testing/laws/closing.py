"""Laws of opening and closing: both twice are fine, and a closed store says that it is closed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from sojourn.errors import Closed
from sojourn.store import Committed, SupportsLease, SupportsWatch
from sojourn.testing.laws.corner import ONE, START, WHOLE_LOG, Corner, draft
from sojourn.testing.laws.expect import Broken, equal, exactly, holds, refused
from sojourn.testing.laws.law import law

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

PATIENCE = 10.0
"""Seconds after which a call in another event loop counts as one that never ends."""


@law()
async def opening_twice_is_fine(corner: Corner) -> None:
    """A store that is open stays open, with all it holds."""
    await corner.create(state={"n": 1})
    await corner.store.open()
    exactly(await corner.state(), {"n": 1}, "the state after opening again")
    await corner.commit(state={"n": 2})


@law(behaviours=(66,))
async def a_closed_store_refuses_every_verb(corner: Corner) -> None:
    """`Closed` from each of them, not `None`, not an empty list, not a driver's error."""
    await corner.create()
    await corner.store.close()
    verbs: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: corner.create("new"),
        "fork": corner.fork,
        "commit": corner.commit,
        "get": corner.get,
        "get with a window": lambda: corner.get(last=100_000),
        "events": lambda: corner.store.events(corner.app, ONE, START, WHOLE_LOG),
        "list": corner.page,
        "count": corner.count,
        "touch": corner.touch,
        "delete": corner.delete,
        "forget": lambda: corner.store.forget(corner.app, "u"),
        "due": lambda: corner.due(now=0),
        "reap": lambda: corner.reap(now=0),
        "tiers": lambda: corner.store.tiers(corner.app, "u"),
        "document": lambda: corner.document("key"),
        "documents": corner.keys,
    }
    for name, call in verbs.items():
        await refused(call(), Closed, f"{name} on a closed store")


@law(behaviours=(66,))
async def closing_twice_is_fine(corner: Corner) -> None:
    """One after the other, or at once."""
    await corner.create()
    await asyncio.gather(corner.store.close(), corner.store.close())
    await corner.store.close()
    await refused(corner.get(), Closed, "get on a closed store")


@law()
async def closing_finishes_what_was_accepted(corner: Corner) -> None:
    """A commit in flight is acknowledged or `Closed`, in bounded time; none hangs or is torn."""
    await corner.create()
    calls = [
        asyncio.ensure_future(corner.commit(state={f"k{n}": n}, events=(draft(f"e{n}"),)))
        for n in range(50)
    ]
    await asyncio.sleep(0)
    await corner.store.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if not isinstance(outcome, Committed | Closed):
            raise Broken(f"a commit in flight at the time of closing came to {outcome!r}")
    done = sorted(o.revision for o in outcomes if isinstance(o, Committed))
    equal(done, list(range(2, len(done) + 2)), "the revisions that were acknowledged")


@law()
async def in_another_event_loop_a_store_works_or_says_closed(corner: Corner) -> None:
    """It never leaves a call there waiting for what can only come about in its own loop."""
    await corner.create()
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "get": corner.get,
        "events": corner.log,
        "list": corner.page,
        "commit": corner.commit,
        "create": lambda: corner.create("another"),
        "touch": corner.touch,
    }
    for name, call in calls.items():
        outcome = await _elsewhere(call)
        if isinstance(outcome, Exception) and not isinstance(outcome, Closed):
            raise Broken(f"{name} in another event loop came to {outcome!r}")
    await corner.commit(state={"n": 2})
    exactly(await corner.state(), {"n": 2}, "the state, in the store's own loop")


async def _elsewhere(call: Callable[[], Coroutine[Any, Any, object]]) -> object:
    """Return what a call comes to in a loop of another thread, or the error it ends with."""
    home = asyncio.get_running_loop()
    ended: asyncio.Future[object] = home.create_future()

    def tell(outcome: object) -> None:
        if not ended.done():  # else it came too late
            ended.set_result(outcome)

    def work() -> None:
        try:
            outcome: object = asyncio.run(call())
        except Exception as error:  # noqa: BLE001 - whatever it is, the law looks at it
            outcome = error
        home.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=work, daemon=True).start()  # one that hangs keeps no program
    try:
        return await asyncio.wait_for(ended, PATIENCE)
    except TimeoutError as error:
        return error


@law(needs=SupportsLease, behaviours=(66,))
async def a_closed_store_grants_no_leases(corner: Corner) -> None:
    """`Closed` from acquiring and from renewing."""
    await corner.create()
    token = await corner.acquire()
    await corner.store.close()
    await refused(corner.acquire("other"), Closed, "acquire on a closed store")
    await refused(corner.renew(token), Closed, "renew on a closed store")


@law(needs=SupportsWatch, behaviours=(66,))
async def closing_wakes_the_watchers(corner: Corner) -> None:
    """Nobody sleeps on at a closed store, and nobody new can subscribe."""
    await corner.create()
    subscription = corner.subscribe()
    waiting = asyncio.ensure_future(subscription.wait(10.0))
    await asyncio.sleep(0)
    start = asyncio.get_running_loop().time()
    await corner.store.close()
    await asyncio.wait((waiting,))
    awake = asyncio.get_running_loop().time() - start < 9.0  # noqa: PLR2004 - well before the timeout
    holds(awake, "a watcher wakes up when its store is closed")
    error = waiting.exception()
    holds(error is None or isinstance(error, Closed), f"a wait over a close came to {error!r}")
    subscription.close()
    try:
        corner.subscribe()
    except Closed:
        return
    raise Broken("subscribing at a closed store: expected Closed, but it was accepted")


@law(needs=SupportsWatch, behaviours=(66,))
async def nothing_of_a_watch_outlives_its_store(corner: Corner) -> None:
    """A subscription that was closed a moment before its store leaves no task behind."""
    await corner.create()
    before = asyncio.all_tasks()
    subscription = corner.subscribe()
    await subscription.wait(0.01)  # by now the store has begun to look for changes
    subscription.close()
    await corner.store.close()
    left = asyncio.all_tasks() - before
    holds(not left, f"after a store is closed, nothing of a watch goes on; {len(left)} tasks do")
