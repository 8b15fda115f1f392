"""The way to the servers: whom to ask for a route, and asking again while a cluster changes.

Everything that is sent may be sent again: reads change nothing, and a write says what it expects to
find. So a lost reply costs another look, never a second write. Every call ends when its time is up.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec
from redis.exceptions import ExecAbortError, ResponseError

from sojourn.errors import Closed, Unavailable
from sojourn.stores.redis import scripts, trouble
from sojourn.stores.redis.routes import TAGS, Route
from sojourn.stores.redis.topology import Topology
from sojourn.stores.redis.trouble import Kind
from sojourn.stores.redis.wire import Command, LostError, Packed, Wire, packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sojourn.stores.redis.options import Options
    from sojourn.stores.redis.wire import Address, Reply

Lane = Literal["read", "write", "bulk"]
"""Reads, writes, and what is large have a connection each: none holds up the others."""

FIRST_REST = 0.01
"""Seconds before a call is tried again; it doubles from here, and is never quite the same."""

LONGEST_REST = 0.25
"""Longest wait between two tries: what a cluster needs to notice anything is longer."""

SLOWEST = 4 * 1024 * 1024
"""Bytes a second that every network carries: what is large has more time for each attempt."""

WAIT_SLACK = 0.3
"""Seconds by which a server may answer late that replicas did not confirm: it looks ten times a
second whether their time is up."""

PROBATION = 4
"""A server that was silent has so many times less time to say hello the next time."""

MOST_ASKED = 5
"""Servers that are asked for the shape of the cluster at once; the first answer counts."""

OLDEST = (6, 2)
"""The oldest version of Redis that has the commands that are used."""


_ASKING: Command = ("ASKING",)
_NONE_BEGUN = "without MULTI"
"""What is said of the end of a transaction that has not begun."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A command, the route whose server it is for, and about how many bytes it or its reply has."""

    route: Route
    command: Command
    size: int = 0


def transaction(reads: Sequence[Command]) -> Packed:
    """Return reads that a server answers all at one moment."""
    return packed((("MULTI",), *reads, ("EXEC",)))


class Client:
    """Connections to all servers that are needed, made when they are."""

    def __init__(self, options: Options) -> None:
        """Nothing is connected yet."""
        self.options = options
        self._attempt = options.attempt
        self.name = options.name
        self.cluster = options.cluster
        self.topology = Topology(options.servers)
        self._wires: dict[tuple[Lane, Address], Wire] = {}
        self._silent: set[Address] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._unseen: Exception | None = None
        """Why the last look for who serves what has seen nothing."""
        self._closed = False
        self._transacts = True
        """Whether servers let us have transactions: rights of before they were used have none."""
        self.on_disk = False
        """Whether what a server acknowledges is on its disk."""

    def deadline(self) -> float:
        """Return when a call that begins now has to end, in the loop's time."""
        return asyncio.get_running_loop().time() + self.options.timeout

    async def open(self) -> None:
        """Reach a server and learn who serves what. Raises `Unavailable`."""
        self._unseen = None  # what was wrong when it was tried before may be right now
        try:
            await self._reach(self.deadline())
        except BaseException:
            await self._hang_up()
            raise

    async def _reach(self, deadline: float) -> None:
        if self.cluster:
            rest = FIRST_REST
            await self._refresh()
            while not self.topology.masters:
                nobody = LostError("no server says who serves what")
                rest = await self.rest(rest, deadline, self._unseen or nobody)
                await self._refresh()
        else:
            self.topology.serve_all(self.options.servers[0])
        await self._check_servers(deadline)

    async def _check_servers(self, deadline: float) -> None:
        """Raise `Unavailable` for a server that is too old, or is not what the URL says."""
        asked = Call(0, ("INFO",)), self._rights_call()
        facts, missing = await self.run(asked, deadline)
        check([facts])
        info = dict(line.partition(":")[::2] for line in facts.decode().splitlines())
        version = tuple(int(part) for part in info.get("redis_version", "0.0").split(".")[:2])
        if version < OLDEST:
            reason = f"it runs Redis {info.get('redis_version')}; 6.2 or later is needed"
            raise Unavailable(self.name, reason)
        clustered = info.get("cluster_enabled") == "1"
        if clustered and not self.cluster:
            reason = "it is part of a cluster: write redis+cluster:// instead of redis://"
            raise Unavailable(self.name, reason)
        if self.cluster and not clustered:
            raise Unavailable(self.name, trouble.NO_CLUSTER)
        self._check_rights(missing)

        if not self.cluster:
            self.on_disk = await self._writes_through(deadline)

    def _rights_call(self) -> Call:
        """Return the call that asks which commands the user may not run.

        It has no key, so that any server answers, also one that is not what the URL says.
        """
        prefix = self.options.prefix
        key, channel = f"{prefix}:{{{TAGS[0]}}}:rights", f"{prefix}:changed:rights"
        return Call(0, ("EVALSHA", scripts.RIGHTS.sha, 0, key, channel))

    def _check_rights(self, missing: Reply) -> None:
        """Raise `Unavailable` for a user who lacks a right.

        A script that was refused a command half way would leave a write half done.
        """
        check([missing])
        if missing:
            names = " ".join(f"+{name.decode()}" for name in missing)
            reason = (
                f"the user has not the rights that are needed: give it {names} on keys and "
                f"channels that begin with {self.options.prefix}: (see Rights in docs/redis.md)"
            )
            raise Unavailable(self.name, reason)

    async def _writes_through(self, deadline: float) -> bool:
        """Return whether the server syncs each write before it acknowledges it, if it tells."""
        found: list[bytes] = []
        for name in ("appendonly", "appendfsync"):
            (reply,) = await self.run([Call(0, ("CONFIG", "GET", name))], deadline)
            found += reply if isinstance(reply, list) else ()
        return found[1::2] == [b"yes", b"always"]

    async def close(self) -> None:
        """Close every connection, for good."""
        self._closed = True
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        wires, self._wires = list(self._wires.values()), {}
        for wire in wires:
            await wire.close()

    # --- calls ---------------------------------------------------------------------------------

    async def run(
        self,
        calls: Sequence[Call],
        deadline: float,
        *,
        lane: Lane = "read",
        replicas: int = 0,
    ) -> list[Reply]:
        """Send calls to the servers of their routes and return the replies, in order.

        With `replicas`, what was written is on so many replicas of each master when this returns.
        The reply to a call that was not answered by the deadline, or with an error that asking
        again does not change, is the `Unavailable` that says so.
        """
        replies: list[Reply] = [None] * len(calls)
        left = list(range(len(calls)))
        asked: dict[int, Address] = {}
        rest = FIRST_REST
        error: Exception | None = None
        while left:
            self._check_open()
            round_ = _Round(self, calls, asked, deadline, lane, replicas)
            left = await round_.run(left, replies)
            asked = round_.redirected
            if not left or round_.go_on_at_once:
                continue
            error = trouble.says_more(round_.error, error)
            try:
                rest = await self.rest(rest, deadline, error)
            except Unavailable as unavailable:
                for number in left:
                    replies[number] = unavailable
                break
            await self._refresh_within(deadline)
        return replies

    async def ask(
        self, calls: Sequence[Call], deadline: float, *, lane: Lane = "read"
    ) -> list[Reply]:
        """Send reads and return the replies. Raises the first `Unavailable` among them."""
        replies = await self.run(calls, deadline, lane=lane)
        check(replies)
        return replies

    async def ask_one(self, call: Call, deadline: float) -> Reply:
        """Send one read and return its reply, as `ask` does.

        A connection that is there is asked without ado; where that leads to anything but an answer,
        the read is sent again, with all that may take.
        """
        self._check_open()
        address = self.topology.master_of(call.route)
        wire = None if address is None else self._wires.get(("read", address))
        if wire is not None and wire.is_ready:
            try:
                (reply,) = await wire.send((call.command,), self.patience(deadline, call.size))
            except LostError:
                pass
            else:
                if not isinstance(reply, Exception):
                    self.answered(wire.address)
                    return reply
        (reply,) = await self.ask([call], deadline)
        return reply

    async def ask_at_once(self, route: Route, reads: Packed) -> list[Reply] | None:
        """Send reads that are a `transaction` and return their replies, all of one moment.

        `None` where that leads to anything but answers within the time of one attempt: whoever
        asked asks in another way then.
        """
        self._check_open()
        if not self._transacts:
            return None
        address = self.topology.master_of(route)
        wire = None if address is None else self._wires.get(("read", address))
        if wire is None or not wire.is_ready:
            return None
        try:
            replies = await wire.send(reads, self._attempt)
        except LostError:
            return None
        begun, found = replies[0], replies[-1]
        refusal = begun if isinstance(begun, ResponseError) else found
        if isinstance(refusal, ResponseError):
            self._note_refusal(wire, refusal, replies)
            return None
        for reply in found:
            if isinstance(reply, Exception):
                return None
        self.answered(wire.address)
        return found  # type: ignore[no-any-return]  # a list, if it is no error

    def _note_refusal(self, wire: Wire, refusal: ResponseError, replies: Sequence[Reply]) -> None:
        """Have no more transactions where they are refused for good; leave none half open."""
        # The end of a transaction says only that something in it was refused, and ends it.
        queued = (reply for reply in replies[1:-1] if isinstance(reply, ResponseError))
        self._transacts = trouble.kind_of(next(queued, refusal)) is not Kind.FINAL
        end = replies[-1]
        is_over = isinstance(end, ExecAbortError) or _NONE_BEGUN in str(end)
        if isinstance(end, ResponseError) and not is_over:
            wire.drop(end)  # what is sent next would become a part of the transaction

    async def rest(self, rest: float, deadline: float, error: Exception | None) -> float:
        """Wait a little before the next try and return how long to wait before the one after."""
        loop = asyncio.get_running_loop()
        cause = error.__cause__ if isinstance(error, LostError) else error
        if loop.time() + rest >= deadline or trouble.is_hopeless(cause):
            problem = cause or error or LostError("nothing was answered in time")
            raise trouble.mapped(problem, self.name) from problem
        await asyncio.sleep(rest * random.uniform(0.5, 1.0))  # noqa: S311 - to spread load, no secret
        return min(rest * 2, LONGEST_REST)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(self.name)

    def wire(self, lane: Lane, address: Address) -> Wire:
        """Return the connection to a server, a new one if the last one broke."""
        wire = self._wires.get((lane, address))
        if wire is None or wire.broken is not None:
            if wire is not None and isinstance(wire.broken, TimeoutError):
                self._silent.add(address)
            patience = self._attempt
            if address in self._silent:
                patience /= PROBATION
            wire = self._wires[lane, address] = Wire(address, self.options, patience)
        return wire

    def leave(self, address: Address, error: Exception) -> None:
        """Break every connection to a server, reads included: it is not in charge any more."""
        for (_, server), wire in self._wires.items():
            if server == address:
                wire.drop(error)

    def answered(self, address: Address) -> None:
        """Note that a server speaks."""
        if self._silent:
            self._silent.discard(address)

    def patience(self, deadline: float, size: int = 0) -> float:
        """Return how many seconds an attempt may take now: more if it has `size` bytes to send."""
        left = deadline - asyncio.get_running_loop().time()
        longest = self._attempt + size / SLOWEST
        return max(min(longest, left), FIRST_REST)

    # --- the shape of a cluster ----------------------------------------------------------------

    async def _refresh_within(self, deadline: float) -> None:
        if self.cluster and asyncio.get_running_loop().time() < deadline:
            await self._refresh()

    async def _refresh(self) -> None:
        """Learn anew who serves what, from whoever answers first; callers share one look."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._look())
        await asyncio.shield(self._refreshing)

    async def _look(self) -> None:
        servers = list(self.topology.servers)
        random.shuffle(servers)
        asked = {
            self.wire("read", address).send([("CLUSTER", "SLOTS")], self._attempt): address
            for address in servers[:MOST_ASKED]
        }
        waiting = set(asked)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                problem = future.exception()
                if problem is not None:
                    assert isinstance(problem, LostError), "a wire loses what it can not send"
                    self._see_nothing(problem)
                    continue
                (slots,) = future.result()
                self.answered(asked[future])
                if isinstance(slots, list) and slots:
                    self.topology.replace(slots, asked[future])
                    for late in waiting:
                        late.add_done_callback(_ignore)
                    return
                if isinstance(slots, ResponseError):
                    self._see_nothing(slots)

    def _see_nothing(self, reason: Exception) -> None:
        """Note why a server did not say who serves what; what does not pass counts most."""
        if not trouble.is_hopeless(self._unseen):
            self._unseen = trouble.says_more(reason, self._unseen)


def check(replies: Iterable[Reply]) -> None:
    """Raise the first `Unavailable` among replies."""
    for reply in replies:
        if isinstance(reply, Unavailable):
            raise reply


def _ignore(future: asyncio.Future[list[Reply]]) -> None:
    """Look at what nobody waits for any more, so that it is not reported as overlooked."""
    if not future.cancelled():
        future.exception()


@dataclass(slots=True)
class _Round:
    """One try at some calls: one flight to each server, and what is to be tried again."""

    client: Client
    calls: Sequence[Call]
    asked: dict[int, Address]
    """The servers that calls were sent on to, this once, by the calls' numbers."""
    deadline: float
    lane: Lane
    replicas: int
    error: Exception | None = None
    redirected: dict[int, Address] = field(default_factory=dict)
    untaught: set[Wire] = field(default_factory=set)
    """The connections whose server does not know a script."""
    go_on_at_once: bool = True

    async def run(self, numbers: Sequence[int], replies: list[Reply]) -> list[int]:
        """Send the calls of these numbers, fill in their replies, return those to send again."""
        if not self.client.cluster:
            return await self._fly(self.client.options.servers[0], list(numbers), replies)
        groups: dict[Address, list[int]] = {}
        left: list[int] = []
        for number in numbers:
            address = self._address_of(number)
            if address is None:
                left.append(number)
                self._pass_over(LostError("nobody serves a part of the cluster"))
            else:
                groups.setdefault(address, []).append(number)
        if len(groups) == 1:
            ((address, group),) = groups.items()
            return left + await self._fly(address, group, replies)
        flights = (self._fly(address, group, replies) for address, group in groups.items())
        for again in await asyncio.gather(*flights):
            left += again
        return sorted(left)

    def _address_of(self, number: int) -> Address | None:
        found = self.asked.get(number)
        return found or self.client.topology.master_of(self.calls[number].route)

    def _pass_over(self, error: Exception) -> None:
        self.error = error
        self.go_on_at_once = False

    async def _fly(self, address: Address, group: list[int], replies: list[Reply]) -> list[int]:
        """Send calls to one server; return those to send again."""
        wire = self.client.wire(self.lane, address)
        try:
            answers = await self._answers(wire, group)
        except LostError as error:
            self._pass_over(error)
            return group
        except Unavailable as error:
            for number in group:
                replies[number] = error
            return []
        self.client.answered(address)
        left: list[int] = []
        for number, answer in zip(group, answers, strict=True):
            if not isinstance(answer, ResponseError):
                replies[number] = answer
            elif not self._take(number, answer, wire, replies):
                left.append(number)
        if wire in self.untaught:
            return await self._teach(wire, left, replies)
        return left

    async def _teach(self, wire: Wire, left: list[int], replies: list[Reply]) -> list[int]:
        """Tell a server the scripts; return what to send again: nothing if it may not be told."""
        self.untaught.discard(wire)
        load = [("SCRIPT", "LOAD", script.text) for script in scripts.ALL]
        try:
            answers = await wire.send(load, self.client.options.attempt)
        except LostError as error:
            self._pass_over(error)
            return left
        for answer in answers:
            if isinstance(answer, ResponseError):
                if trouble.kind_of(answer) is not Kind.FINAL:
                    self._pass_over(answer)
                    break
                for number in left:
                    replies[number] = self._mapped(answer)
                return []
        return left

    async def _answers(self, wire: Wire, group: list[int]) -> list[Reply]:
        """Send calls and return what is answered, once it is confirmed if that is asked for."""
        commands: list[Command] = []
        size = 0
        for number in group:
            if self.asked and number in self.asked:
                commands.append(_ASKING)
            call = self.calls[number]
            commands.append(call.command)
            size += call.size
        patience = self.client.patience(self.deadline, size)
        if self.replicas:
            commands.append(self._wait_command(patience))
        answers = await wire.send(commands, patience + (WAIT_SLACK if self.replicas else 0))
        if self.replicas:
            await self._confirm(wire, answers.pop())
        if not self.asked:
            return answers
        sent = zip(commands, answers, strict=False)
        return [answer for command, answer in sent if command is not _ASKING]

    def _take(self, number: int, reply: ResponseError, wire: Wire, replies: list[Reply]) -> bool:
        """Take over an error that was answered; return whether it is final."""
        kind = trouble.kind_of(reply)
        if kind is Kind.FINAL:
            replies[number] = self._mapped(reply)
            return True
        if kind is Kind.MOVED:
            to = trouble.address_in(reply, wire.address)
            self.client.topology.moved(self.calls[number].route, to)
        elif kind is Kind.ASK:
            self.redirected[number] = trouble.address_in(reply, wire.address)
        elif kind is Kind.UNKNOWN_SCRIPT:
            self.untaught.add(wire)
        else:
            if kind is Kind.DEMOTED:
                self.client.leave(wire.address, reply)
            self._pass_over(reply)
        return False

    def _wait_command(self, patience: float) -> Command:
        """Return the command that waits for replicas."""
        return ("WAIT", self.replicas, max(1, int(patience * 1_000)))

    async def _confirm(self, wire: Wire, confirmed: Reply) -> None:
        """Return once what this connection has written is on enough replicas."""
        loop = asyncio.get_running_loop()
        while isinstance(confirmed, int) and confirmed < self.replicas:
            if loop.time() >= self.deadline:
                reason = (
                    f"written, but only {confirmed} of {self.replicas} replicas have confirmed it "
                    "in time: whether it lasts is not known"
                )
                raise Unavailable(self.client.name, reason)
            patience = self.client.patience(self.deadline)
            command = self._wait_command(patience)
            (confirmed,) = await wire.send([command], patience + WAIT_SLACK)
        if isinstance(confirmed, Exception):
            raise self._mapped(confirmed)

    def _mapped(self, error: Exception) -> Unavailable:
        found = trouble.mapped(error, self.client.name)
        found.__cause__ = error
        return found
