"""What a write takes in other routes of a cluster: asked for before it, or done after it.

Before: the id and the claim of a new session are reserved where everybody looks for them. Whoever
finds a reservation without its session makes sure that the session can not come any more, and takes
it over. After: errands wait in an outbox that was written with the unit. Anybody may run them, in
order, and each is done once, because its number is noted where it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import Unavailable
from sojourn.lifecycle import OVER
from sojourn.stores.redis import rows
from sojourn.stores.redis.client import FIRST_REST, Call, check
from sojourn.stores.redis.errands import Box, Errand, to_errand
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.room import removes
from sojourn.stores.redis.spots import token_for, token_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.stores.planning import Key
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.jobs import Job, Reservation
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.routes import Route
    from sojourn.stores.redis.wire import Reply

REFUSED_MILLISECONDS = 3_600_000
"""How long a create whose reservation was taken over is refused: far longer than any call takes."""

WITHDRAWN_MILLISECONDS = 60_000
"""How long a create that was refused can not be done late by a try whose reply was lost."""

MOST_ERRANDS = 500
"""Errands that are run at a time."""

DONE_AGAIN_MICROSECONDS = 60_000_000
"""How old errands may be to be done again where a master was lost that had done them: an older
write must not come back over newer ones, long after."""

_NOT_YET = 2
"""What a delivery answers when the errand before it was not done yet: its second check."""

_PHASES_OVER = tuple(phase.value for phase in OVER)


class Crossing:
    """Reservations and errands of one store."""

    def __init__(self, client: Client, keys: Keys, replicas: int) -> None:
        """`replicas` is how many have to have what a durable write takes elsewhere."""
        self._client = client
        self._keys = keys
        self._replicas = replicas

    # --- before --------------------------------------------------------------------------------

    async def reserve(self, jobs: Sequence[Job], deadline: float) -> list[bool]:
        """Reserve what jobs need elsewhere; return for each whether it has it."""
        registrations = [
            Call(home, ("SADD", key, route))
            for job in jobs
            for home, key, route in job.registrations
        ]
        await self._write(registrations, deadline)
        numbers: list[int] = []
        calls: list[Call] = []
        for number, job in enumerate(jobs):
            for reservation in job.reservations:
                numbers.append(number)
                calls.append(self._reservation(job, reservation))
        had = [True] * len(jobs)
        for number, reply in zip(numbers, await self._write(calls, deadline), strict=True):
            had[number] = had[number] and reply == 0
        return had

    def _reservation(self, job: Job, reservation: Reservation) -> Call:
        """Return the call that notes a reservation, unless somebody else has it."""
        route, key, value = reservation
        request = Request(route)
        request.check("free", key, value)
        if reservation == job.note:
            assert job.unit.key is not None, "only a session has a note"
            request.check("absent", self._keys.session(route, *job.unit.key))
        request.do("SET", key, value)
        return request.call()

    async def clear(self, job: Job, deadline: float) -> None:
        """Remove what keeps a new session from being made and came to nothing itself."""
        wanted = [each for each in (job.note, job.claim) if each is not None]
        calls = [Call(route, ("GET", key)) for route, key, _ in wanted]
        replies = await self._client.ask(calls, deadline)
        for reservation, found in zip(wanted, replies, strict=True):
            ours = found == reservation.value.encode()
            if ours and reservation == job.note:
                await self._note_again(job, reservation, deadline)
            if found is None or ours:
                continue
            if reservation == job.note:
                assert job.unit.key is not None, "only a session has a note"
                gone = await self._refuse_noted(job.unit.key, found, deadline)
            else:
                gone = await self._refuse_holder(job.app, found, deadline)
            if gone:
                await self._strike(reservation.route, reservation.key, found, deadline)

    async def _note_again(self, job: Job, ours: Reservation, deadline: float) -> None:
        """Have the home of an id say again where its session is, if that was lost with a master.

        The id seemed to be free, so the note says now what our session would be that can not be.
        """
        assert job.unit.key is not None, "only a session has a note"
        session = self._keys.session(job.route, *job.unit.key)
        (note,) = await self._client.ask([Call(job.route, ("HGET", session, "note"))], deadline)
        if note and note != ours.value.encode():
            request = Request(ours.route)
            request.check("says", ours.key, ours.value)
            request.do("SET", ours.key, note)
            await self._run(request, deadline)

    async def _strike(self, route: Route, key: str, value: bytes | str, deadline: float) -> None:
        request = Request(route)
        request.do("strike", key, value)
        await self._run(request, deadline)

    async def _refuse_noted(self, key: Key, note: bytes, deadline: float) -> bool:
        """Return whether a note speaks of no session, which is made sure never to come then."""
        route, token, _ = note.decode().split(" ", 2)
        session = self._keys.session(int(route), *key)
        request = Request(int(route))
        request.check("gone", session, "note", note)
        refused = self._keys.refused(int(route), token)
        request.do("SET", refused, "", "PX", REFUSED_MILLISECONDS)
        return await self._run(request, deadline)

    async def _refuse_holder(self, app: str, text: bytes, deadline: float) -> bool:
        """Return whether a claim has no live holder, which is made sure never to come then."""
        id, epoch, route = rows.to_holder(text)
        request = Request(route)
        request.check("gone", self._keys.session(route, app, id), "epoch", epoch, *_PHASES_OVER)
        refused = self._keys.refused(route, token_for(app, id, epoch))
        request.do("SET", refused, "", "PX", REFUSED_MILLISECONDS)
        return await self._run(request, deadline)

    async def _run(self, request: Request, deadline: float) -> bool:
        """Return whether a request was done, that is, none of its checks failed."""
        (reply,) = await self._write([request.call()], deadline)
        return bool(reply == 0)

    async def withdraw(self, jobs: Iterable[Job], deadline: float) -> None:
        """Give back what was reserved for sessions that are not made after all."""
        for job in jobs:
            header = job.unit.header
            if header is None or not job.reservations:
                continue
            request = Request(job.route)
            session = self._keys.session(request.route, header.app, header.id)
            request.check("gone", session, "epoch", header.epoch)
            refused = self._keys.refused(request.route, token_of(header))
            request.do("SET", refused, "", "PX", WITHDRAWN_MILLISECONDS)
            if await self._run(request, deadline):
                for route, key, value in job.reservations:
                    await self._strike(route, key, value, deadline)

    # --- after ---------------------------------------------------------------------------------

    async def run_errands(
        self, boxes: Iterable[Box], deadline: float, *, wholly: bool = False
    ) -> None:
        """Run what waits in outboxes; `wholly` has them forget at once what was done."""
        boxes = list(dict.fromkeys(boxes))
        late: set[Box] = set()
        rest = FIRST_REST
        while boxes:
            calls = [call for box in boxes for call in self._look(box)]
            replies = await self._client.ask(calls, deadline)
            looks = [
                _Look(self._keys, box, texts, done, wholly=wholly, again=box in late)
                for box, texts, done in zip(boxes, replies[::2], replies[1::2], strict=True)
            ]
            refusals = [
                refused for look in looks if (refused := await self._deliver(look, deadline))
            ]
            sweeps = [look.sweep() for look in looks if look.is_done]
            await self._write([sweep for sweep in sweeps if sweep is not None], deadline)
            if refusals:
                raise refusals[0]
            boxes = [look.box for look in looks if look.late or look.is_full]
            late = {look.box for look in looks if look.late}
            if late:  # a slot is on its way to another node, or a master was lost
                rest = await self._client.rest(rest, deadline, None)

    async def _deliver(self, look: _Look, deadline: float) -> Unavailable | None:
        """Do what was found in an outbox; return what has kept it from being done.

        The others go on: what is only to be removed must not wait for what a full server refuses.
        """
        try:
            look.late = _NOT_YET in await self._write(look.deliveries, deadline)
        except Unavailable as error:
            return error
        look.is_done = not look.late
        return None

    async def _write(self, calls: Sequence[Call], deadline: float) -> list[Reply]:
        replies = await self._client.run(calls, deadline, lane="write", replicas=self._replicas)
        check(replies)
        return replies

    def _look(self, box: Box) -> tuple[Call, Call]:
        outbox, sent = self._keys.outbox(box)
        return (
            Call(box.route, ("LRANGE", outbox, 0, MOST_ERRANDS - 1)),
            Call(box.route, ("HGET", sent, "delivered")),
        )


class _Look:
    """What was found in an outbox, and what has to be done about it.

    `again` says that an errand came too early for its place: one before it is still on its way, or
    was done by a master that was lost before its replica had heard of it. That one is done again.
    """

    def __init__(
        self,
        keys: Keys,
        box: Box,
        texts: list[bytes],
        done: bytes | None,
        *,
        wholly: bool,
        again: bool,
    ) -> None:
        self.box = box
        self.late = False
        self.is_done = False
        self.is_full = len(texts) == MOST_ERRANDS
        self._keys = keys
        self._wholly = wholly
        self._keep = 0 if wholly else box.keep
        self._count = len(texts)
        self._last = to_errand(texts[-1]).n if texts else 0
        delivered = int(done or 0)
        new = self._last > delivered
        errands = [to_errand(text) for text in texts] if new else []
        first = min(delivered, self._last - DONE_AGAIN_MICROSECONDS) if again else delivered
        before: dict[Route, int] = {}
        self.deliveries: list[Call] = []
        for errand in errands:
            if errand.n > first:
                self.deliveries.append(self._delivery(errand, before.get(errand.to, 0)))
            if errand.n > first or not again:
                before[errand.to] = errand.n

    def _delivery(self, errand: Errand, before: int) -> Call:
        """Return the call that does an errand once, and only behind the one before it."""
        request = Request(errand.to)
        marks, mark = self._keys.marks(errand.to), self._keys.mark(self.box)
        request.check("undone", marks, mark, errand.n)
        request.check("reached", marks, mark, before)
        # Who forgets a user can not wait for what else there is to be done about tiers.
        if self._wholly or removes(errand.do):
            request.make_room(marks)
        request.do("HSET", marks, mark, errand.n)
        for name, key, *arguments in errand.do:
            request.do(name, key, *arguments)
        return request.call()

    def sweep(self) -> Call | None:
        """Return the call that notes what was done, `None` if nothing is new."""
        if not self.deliveries and self._count <= self._keep:
            return None
        request = Request(self.box.route)
        outbox, sent = self._keys.outbox(self.box)
        request.make_room(sent)
        request.do_on("swept", (outbox, sent), self._last, self._keep)
        return request.call()
