"""What can go wrong with one call of a store: refused, cut off, its reply lost, late, cancelled.

A fault acts before the store is asked, after it has answered, or both. `FaultyStore` decides which
call meets which fault. To make one of your own, inherit from `Fault`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import InvalidQuery, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Until = asyncio.Event | Callable[[], Awaitable[object]]
    """What a late call waits for: an event, or what a function without arguments returns."""

REPEATABLE = frozenset({"acquire", "commit", "create", "fork"})
"""Verbs that carry an id of their own, so that a store has to bear being sent one twice."""


class Call(NamedTuple):
    """One call of a store: its verb, the how many-th of that verb it is, and its arguments.

    `number` counts from 1. `store` is the name of the store that was called.
    """

    store: str
    verb: str
    number: int
    arguments: tuple[object, ...]

    @property
    def asked(self) -> object:
        """The first argument, which is the value object of most verbs; `None` without one."""
        return self.arguments[0] if self.arguments else None

    def __str__(self) -> str:
        return f"{self.verb} #{self.number}"


class Fault:
    """Something that happens to a call; this one is nothing at all."""

    sends = 1
    """How often the call is sent to the store."""

    def may_meet(self, call: Call) -> bool:
        """Return whether this can happen to a call of that verb; a random plan asks."""
        del call
        return True

    async def before(self, call: Call) -> None:
        """Happen before the store is asked. What this raises is what the caller gets."""

    async def after(self, call: Call) -> None:
        """Happen once the store has answered or refused. What this raises replaces the answer."""


@dataclass(frozen=True)
class Fail(Fault):
    """The call fails at once: the store is never asked. By default with `Unavailable`."""

    error: BaseException | None = None

    async def before(self, call: Call) -> None:
        """Raise."""
        raise self.error or _trouble(call, "refused")


@dataclass(frozen=True)
class Cut(Fault):
    """The call breaks in the middle, on its way: others get a turn, the store is never asked."""

    error: BaseException | None = None

    async def before(self, call: Call) -> None:
        """Let others run, then raise."""
        await asyncio.sleep(0)
        raise self.error or _trouble(call, "cut off before it was applied")


@dataclass(frozen=True)
class Lose(Fault):
    """The reply is lost: the store has applied (or refused) the call, and the caller can't know."""

    error: BaseException | None = None

    async def after(self, call: Call) -> None:
        """Raise, although it is done."""
        raise self.error or _trouble(call, "its reply was lost")


@dataclass(frozen=True)
class Repeat(Fault):
    """The call is sent twice, as a driver does that retries by itself; the second reply counts."""

    sends = 2

    def may_meet(self, call: Call) -> bool:
        """Return whether the verb carries an id by which the store can tell that it came before."""
        return call.verb in REPEATABLE


@dataclass(frozen=True)
class Cancel(Fault):
    """The task that makes the call is cancelled: on the way there, or (`applied`) on the way back.

    It is a real cancellation of the task, so what is under way there sees what it would see.
    """

    applied: bool = False

    async def before(self, call: Call) -> None:
        """Cancel, unless it is to be applied."""
        del call
        if not self.applied:
            await _cancel_caller()

    async def after(self, call: Call) -> None:
        """Cancel, if it was to be applied."""
        del call
        if self.applied:
            await _cancel_caller()


@dataclass(frozen=True)
class Delay(Fault):
    """The call is late: it waits on the way there, or (`applied`) on the way back."""

    until: Until
    applied: bool = False

    async def before(self, call: Call) -> None:
        """Wait, unless it is the reply that is late."""
        del call
        if not self.applied:
            await self._wait()

    async def after(self, call: Call) -> None:
        """Wait, if it is the reply that is late."""
        del call
        if self.applied:
            await self._wait()

    async def _wait(self) -> None:
        until = self.until
        await (until.wait() if isinstance(until, asyncio.Event) else until())


class RandomFaults:
    """A plan: each call meets one of the faults with a chance; the same seed, the same plan.

    `verbs` limits it to some verbs. It is the order of calls that decides, so two runs are alike
    only if they make the same calls in the same order: one task, or a simulation.
    """

    def __init__(
        self,
        seed: int,
        *,
        chance: float = 0.1,
        faults: Sequence[Fault] = (Fail(), Cut(), Lose(), Repeat()),
        verbs: Sequence[str] | None = None,
    ) -> None:
        """Raises `InvalidQuery` for a chance that is none, or for no faults."""
        if not 0 <= chance <= 1:
            raise InvalidQuery("chance", f"give a number from 0 to 1, not {chance!r}")
        if not faults:
            raise InvalidQuery("faults", "give at least one")
        self._random = Random(seed)  # noqa: S311 - repeatable is what it has to be
        self._chance = chance
        self._faults = tuple(faults)
        self._verbs = None if verbs is None else frozenset(verbs)

    def __call__(self, call: Call) -> Sequence[Fault]:
        """Return what happens to a call."""
        if self._verbs is not None and call.verb not in self._verbs:
            return ()
        if self._random.random() >= self._chance:
            return ()
        fault = self._random.choice(self._faults)
        return (fault,) if fault.may_meet(call) else ()


def _trouble(call: Call, what: str) -> Unavailable:
    return Unavailable(call.store, f"injected fault, {call}: {what}")


async def _cancel_caller() -> None:
    task = asyncio.current_task()
    assert task is not None  # a store is called from a task
    task.cancel("injected fault")
    await asyncio.sleep(0)  # here it is raised
