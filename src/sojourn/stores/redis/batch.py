"""Writes: operations are decided together, each session's as one unit, and sent together.

Units say what they expect. One that finds something else is not written: its session is read, and
its operations are decided again. A reply that was lost looks the same from here, and what had been
written is then found in the session's header.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from sojourn.errors import SojournError, Unavailable
from sojourn.store import Committed, Create, Fork
from sojourn.stores.planning import Known, durability_of, plan
from sojourn.stores.redis.client import FIRST_REST, check
from sojourn.stores.redis.purging import purge
from sojourn.stores.redis.rows import Unreadable
from sojourn.stores.redis.spots import Spot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sojourn.store import Durability
    from sojourn.stores.planning import Key, Operation, Plan, Reached, Recent
    from sojourn.stores.redis.client import Call, Client
    from sojourn.stores.redis.crossing import Crossing
    from sojourn.stores.redis.gathering import Gatherer
    from sojourn.stores.redis.jobs import Foreman, Job
    from sojourn.stores.redis.wire import Reply

Result: TypeAlias = "bool | Unavailable"
"""Whether something was written, or why that is not known."""

ROUNDS_AT_ONCE = 4
"""Decisions that follow each other at once; a session that others keep writing to takes breaks."""


@dataclass(slots=True)
class Tools:
    """What a batch works with."""

    client: Client
    gatherer: Gatherer
    foreman: Foreman
    crossing: Crossing
    recent: Recent
    replicas: int
    changed: Callable[[Iterable[Key]], None]
    """Told of sessions that were changed."""


class Batch:
    """Operations that came together, on their way to the servers."""

    def __init__(
        self, tools: Tools, operations: Sequence[Operation], known: Known | None = None
    ) -> None:
        """With `known`, sessions are written only as they are known; what moved on is left."""
        self._tools = tools
        self._as_known = known is not None
        self.removed: set[Key] = set()
        """The sessions that this has removed, with those below."""
        self._deadline = tools.client.deadline()
        self._operations = list(operations)
        self._outcomes: list[Any] = [None] * len(operations)
        self._known = known or Known()
        self._left = list(range(len(operations)))
        default: Durability = "durable" if tools.replicas or tools.client.on_disk else "relaxed"
        # Without replicas there is nothing to wait for, whatever is asked.
        durable = tools.replicas and any(
            durability_of(operation, default) == "durable" for operation in self._operations
        )
        self._replicas = tools.replicas if durable else 0
        self._reserved: dict[int, Job] = {}

    @property
    def _reached(self) -> Reached:
        """What a write of this batch has reached once it is acknowledged."""
        if self._replicas or self._tools.client.on_disk:
            return "durable"
        return "relaxed" if self._tools.replicas else "memory"

    async def run(self) -> list[Any]:
        """Return one outcome for each operation, a refusal as the exception it is."""
        if not self._as_known:
            self._recall()
        rest = FIRST_REST
        rounds = 0
        while self._left and not (self._as_known and rounds):
            rounds += 1
            try:
                if rounds > ROUNDS_AT_ONCE:
                    rest = await self._tools.client.rest(rest, self._deadline, _CROWDED)
                await self._advance()
            except SojournError as error:
                for number in self._left:
                    self._outcomes[number] = error
                self._left = []
        await self._tidy()
        return self._outcomes

    def _recall(self) -> None:
        """Use what this process wrote last, where there is something."""
        keys = [
            (operation.app, operation.id)
            for operation in self._operations
            if not isinstance(operation, Create | Fork) and operation.id is not None
        ]
        self._tools.recent.recall(keys, self._known)

    async def _advance(self) -> None:
        """Decide what is left, and write it; what moved on is left for the next time."""
        numbers = self._left
        decided = await self._decide([self._operations[number] for number in numbers])
        jobs = self._tools.foreman.jobs(decided.units, self._known)
        results = await write(self._tools, jobs, self._deadline, self._replicas)
        await self._purge(jobs, results)
        again = set(decided.later)
        for job, result in zip(jobs, results, strict=True):
            if result is True:
                continue
            if isinstance(result, Exception):
                for number in job.unit.operations:
                    decided.outcomes[number] = result
            else:
                again.update(job.unit.operations)
                self._reserved.update((numbers[number], job) for number in job.unit.operations)
                if job.is_refused:
                    self._renew(numbers[number] for number in job.unit.operations)
        self._learn_all(jobs, results, go_on=bool(again))
        if self._replicas:
            await self._confirm_repeats(decided)
        for place, number in enumerate(numbers):
            if place not in again:
                self._outcomes[number] = decided.outcomes[place]
        self._left = [numbers[number] for number in sorted(again)]

    def _renew(self, numbers: Iterable[int]) -> None:
        """Give new sessions another epoch: with the one that they had they can not be any more.

        Somebody wanted the same id, and made sure of that. It may be free again by now.
        """
        for number in numbers:
            operation = self._operations[number]
            if isinstance(operation, Create | Fork):
                header = replace(operation.header, epoch=secrets.token_hex(8))
                self._operations[number] = replace(operation, header=header)

    async def _decide(self, operations: Sequence[Operation]) -> Plan:
        """Return what becomes of operations; what has to be known for that is read."""
        _forget_logs(self._known)
        weighing = self._tools.recent.weighing
        decided = plan(operations, self._known, weighing, durability=self._reached)
        while decided.reads:
            await self._tools.gatherer.fetch(decided.reads, self._known, self._deadline)
            decided = plan(operations, self._known, weighing, durability=self._reached)
        return decided

    async def _purge(self, jobs: Sequence[Job], results: Sequence[Result]) -> None:
        """Take those that were removed and could not be read out of the indexes."""
        for job, result in zip(jobs, results, strict=True):
            if job.is_plain or result is not True or job.unit.header is not None:
                continue
            if job.unit.key is None:
                continue
            for key in (job.unit.key, *(key for key, _ in job.unit.below)):
                found = self._known.sessions.get(key)
                if isinstance(found, Unreadable):
                    tools = self._tools
                    await purge(tools.client, tools.foreman.keys, key, found, self._deadline)

    def _learn_all(self, jobs: Sequence[Job], results: Sequence[Result], *, go_on: bool) -> None:
        """Remember what became of sessions, and tell of those that were changed."""
        changed: list[Key] = []
        for job, result in zip(jobs, results, strict=True):
            if result is True and job.unit.key is not None:
                changed.append(job.unit.key)
                if job.unit.below:
                    changed += [key for key, _ in job.unit.below]
            if result is not True or go_on or not job.is_plain:
                self._learn(job, result, go_on=go_on)
        self._tools.changed(changed)

    def _learn(self, job: Job, result: Result, *, go_on: bool) -> None:
        """Remember what became of a job's sessions; `go_on` says whether this batch needs it."""
        recent, spots = self._tools.recent, self._tools.gatherer.finder.spots
        written = job.written if result is True else None
        if written is not None:
            assert job.unit.key is not None, "only a session is written"
            if not job.is_plain:
                spots.keep(job.unit.key, Spot(job.route, written.header.user))
            if go_on:
                self._known.forget(job.unit.key)
                self._known.read(job.unit.key, written)
            return
        for guard in job.unit.guards if result is False else ():  # it may be what moved on
            recent.drop(guard.key)
            self._known.forget(guard.key)
        for key in _keys_of(job):
            recent.drop(key)
            self._known.forget(key)
            if result is True:
                self._known.read(key, None)
                self.removed.add(key)
                spots.drop(key)

    async def _confirm_repeats(self, decided: Plan) -> None:
        """Have replicas confirm what was written by an earlier try, whose reply was lost."""
        hanging = {number for unit in decided.units for number in unit.operations}
        routes_ = {
            self._known.sessions[outcome.header.app, outcome.header.id].row.route  # type: ignore[union-attr]  # it was read
            for number, outcome in enumerate(decided.outcomes)
            if number not in hanging and isinstance(outcome, Committed) and outcome.repeated
        }
        calls = [self._tools.gatherer.mark_call(route) for route in routes_]
        check(
            await self._tools.client.run(
                calls, self._deadline, lane="write", replicas=self._replicas
            )
        )

    async def _tidy(self) -> None:
        """Give back what was reserved for operations that were refused in the end."""
        refused = [
            job
            for number, job in self._reserved.items()
            if isinstance(self._outcomes[number], SojournError)
            and not isinstance(self._outcomes[number], Unavailable)
        ]
        if refused:
            with suppress(Unavailable):  # else whoever wants the same takes it over
                await self._tools.crossing.withdraw(refused, self._deadline)


async def write(tools: Tools, jobs: Sequence[Job], deadline: float, replicas: int) -> list[Result]:
    """Write jobs; return for each whether it was written, or why that is not known."""
    results: list[Result] = [True] * len(jobs)
    away = [(n, job) for n, job in enumerate(jobs) if not job.is_plain]
    crossing = [n for n, job in away if job.reservations or job.registrations]
    if crossing:
        had = await tools.crossing.reserve([jobs[n] for n in crossing], deadline)
        for number, has in zip(crossing, had, strict=True):
            results[number] = has
    sent = [number for number, result in enumerate(results) if result is True]
    calls = [_begun(tools, jobs[number]) for number in sent]
    replies = await tools.client.run(calls, deadline, lane="write", replicas=replicas)
    for number, reply in zip(sent, replies, strict=True):
        if reply != 0:
            results[number] = _result(jobs[number], reply)
            jobs[number].is_refused = bool(reply and reply == jobs[number].refusal)
    for job, result in zip(jobs, results, strict=True):
        if result is False and job.note is not None:
            await tools.crossing.clear(job, deadline)
    if not tools.foreman.cluster:
        return results
    written_ = [job for job, ok in zip(jobs, results, strict=True) if ok is True]
    boxes = [box for job in written_ for box in job.boxes]
    if boxes:
        # What fails now is done by the next sweep.
        with suppress(Unavailable):
            await tools.crossing.run_errands(boxes, deadline)
    return results


def _begun(tools: Tools, job: Job) -> Call:
    """Return the call of a job, which the next batch need not wait for: it is remembered now."""
    if job.unit.key is not None and job.written is not None:
        tools.recent.keep(job.unit.key, job.written)
    return job.call


_CROWDED = TimeoutError("others kept changing what was to be written")


def _result(job: Job, reply: Reply) -> Result:
    """Return whether a job was written: not if a check failed, unless it was for having been."""
    if isinstance(reply, Unavailable):
        return reply
    return bool(reply in (0, job.once or 0))


def _keys_of(job: Job) -> list[Key]:
    """Return the sessions that a job writes or removes."""
    unit = job.unit
    if unit.key is None:
        return []
    return [unit.key, *(key for key, _ in unit.below)] if unit.below else [unit.key]


def _forget_logs(known: Known) -> None:
    """Forget all but sessions: what was read of the rest may be different after a write."""
    for read in (known.events, known.tails, known.peaks, known.deltas, known.children):
        read.clear()
    known.sizes.clear()
    known.holders.clear()
