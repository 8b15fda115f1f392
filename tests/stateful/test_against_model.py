"""Random operations on each store, compared with plain dicts and lists after every step."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.servers.postgres import PostgresServer, emptied
from tests.servers.redis import Cluster, Servers
from tests.stateful.model import (
    MOVES,
    App,
    Copy,
    Draft,
    Entry,
    Grant,
    Refused,
    Row,
    delta_text,
    text,
)

from sojourn import DELETE, Event, Expiry, Reaper, SessionManager, SojournError, open_store
from sojourn.store import SupportsCheck
from sojourn.stores.filesystem import FilesystemStore
from sojourn.stores.sqlite import SqliteStore
from sojourn.testing import FakeClock, SequenceIds
from sojourn.timestamps import from_datetime, to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from sojourn import Lease, Session
    from sojourn.store import Store

T = TypeVar("T")
U = TypeVar("U")

EXAMPLES = 1_000 * (10 if os.environ.get("SOJOURN_SOAK") else 1)
STEPS = 20
ON_A_SERVER = 2_500 if os.environ.get("SOJOURN_SOAK") else 8
"""Examples where each step is a few round trips."""

IDS = ("one", "two", "three")
USERS = ("ann", "bob")
KEYS = ("a", "b", "user:x", "user:y", "app:x", "temp:x")
COLLECTIONS = ("notes", "drafts")
NAMES = ("k1", "k2")
PHASES = ("OPEN", "ENDING", "ENDED", "CREATED", "ACTIVE")
START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 1_000_000

picks = st.integers(0, 63)
ids = st.sampled_from(IDS)
users = st.sampled_from(USERS)
maybe_user = st.sampled_from((None, *USERS))
scalars = st.sampled_from([None, True, 0, 1, 1.0, -0.0, 2**70, "", "\x00é", "x"])
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=2),
    st.dictionaries(st.sampled_from(("p", "q")), st.one_of(scalars, st.lists(scalars, max_size=2))),
)
states = st.dictionaries(st.sampled_from(KEYS), values, max_size=3)
deltas = st.dictionaries(st.sampled_from(KEYS), st.one_of(values, st.just(DELETE)), max_size=2)
labels = st.dictionaries(st.sampled_from(("role", "color")), st.sampled_from(("x", "y")))
patches = st.dictionaries(
    st.sampled_from(("role", "color")), st.sampled_from((None, "x", "y")), min_size=1
)
spans = st.sampled_from((None, 10, 60))
drafts = st.builds(
    Draft,
    id=st.sampled_from((None, None, "e1", "e2")),
    kind=st.sampled_from(("message", "note")),
    author=st.sampled_from((None, "ann")),
    at=st.sampled_from((None, None, -100, 5, 50)).map(
        lambda s: None if s is None else from_datetime(START) + s * SECOND
    ),
    body=st.sampled_from((None, 1, 1.0, {"t": "x"})),
    delta=deltas,
    partial=st.sampled_from((False, False, False, True)),
)
strictness = st.sampled_from((False, False, True))


class Held(NamedTuple):
    """A working copy and what the model says of it. `watched`: its values are read every step."""

    session: Session
    copy: Copy
    plain: bool
    watched: bool


class Leased(NamedTuple):
    """A lease, what the model says of it, and the context that holds it."""

    lease: Lease
    grant: Grant
    id: str
    context: AbstractAsyncContextManager[Lease]


def event(draft: Draft) -> Event:
    """Return a draft as the caller's event."""
    return Event(
        id=draft.id,
        kind=draft.kind,
        author=draft.author,
        at=None if draft.at is None else to_datetime(draft.at),
        body=deepcopy(draft.body),
        delta=deepcopy(draft.delta),
        partial=draft.partial,
    )


def policy(*, strict: bool) -> Any:
    """Return the name of a policy."""
    return "fail" if strict else "merge"


def instant(moment: datetime | None) -> int | None:
    """Return a moment as the model counts it."""
    return None if moment is None else from_datetime(moment)


def same_events(found: list[Event], expected: list[Entry], *, times: bool = True) -> None:
    """Compare a log; an id that was generated is learnt."""
    assert [item.seq for item in found] == [entry.seq for entry in expected]
    for item, entry in zip(found, expected, strict=True):
        if entry.id is None:
            entry.id = item.id
        assert (item.id, item.kind, item.author) == (entry.id, entry.kind, entry.author)
        assert not times or instant(item.at) == entry.at
        assert text(item.body) == text(entry.body)
        assert delta_text(item.delta) == delta_text(entry.delta)
        assert not item.partial


def several(machine: Machine) -> bool:
    """Whether there is something left when one session is gone."""
    return len(machine.app.rows) > 1


class Machine(RuleBasedStateMachine):
    """One app with two managers (with end hooks and without) over one store, and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock(START)
        self.ids = SequenceIds()
        self.app = App()
        self.held: list[Held] = []
        self.leases: list[Leased] = []
        self.hooked: list[str] = []
        self.latest = 0
        self.epochs: dict[Row, str] = {}
        self.store = self.open_store()
        self.run(self.store.open())
        self.meet()

    # --- the store under test ----------------------------------------------------------------

    def open_store(self) -> Store:
        """Return the store, not opened yet."""
        raise NotImplementedError

    def meet(self) -> None:
        """Make the managers."""
        self.hooking = SessionManager(self.store, app="main", clock=self.clock, ids=self.ids)
        self.hooking.on_end(self.hook)
        self.plain = SessionManager(self.store, app="main", clock=self.clock, ids=self.ids)
        self.other = SessionManager(self.store, app="other", clock=self.clock, ids=self.ids)

    async def hook(self, session: Session, reason: str) -> None:
        """Look at what is about to go, and fail if the model says so."""
        self.hooked.append(session.id)
        log = await self.hooking.events(session.id, expired=True)
        assert [item.seq for item in log] == [e.seq for e in self.logs.get(session.id, [])]
        assert reason
        if session.id in self.app.failing:
            raise RuntimeError("not yet")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(work)

    def now(self, *, plain: bool = False) -> int:
        """Return the instant as one of the managers sees it."""
        return (self.plain if plain else self.hooking).now()

    def manager(self, *, plain: bool) -> SessionManager:
        """Return one of the managers."""
        return self.plain if plain else self.hooking

    def both(
        self, real: Callable[[], Coroutine[Any, Any, T]], model: Callable[[], U]
    ) -> tuple[T, U] | None:
        """Do it in both worlds; `None` when both refuse, with the same error."""
        self.logs = {row.id: list(row.log) for row in self.app.rows.values()}
        refusal: str | None = None
        expected: U | None = None
        try:
            expected = model()
        except Refused as refused:
            refusal = refused.kind
        try:
            found = self.run(real())
        except SojournError as error:
            if type(error).__name__ != refusal:
                raise
            return None
        assert refusal is None, f"{refusal} was not raised"
        return found, expected  # type: ignore[return-value]  # the model did not refuse

    def pick(self, number: int) -> Held:
        """Return one of the copies, the newest more often."""
        return self.held[-1 - number % min(len(self.held), 3)]

    def name(self, number: int) -> str:
        """Return the id of a session, mostly of one that is there."""
        names = sorted(self.app.rows)
        return names[number % len(names)] if names and number % 8 else IDS[number % len(IDS)]

    def lease_of(self, number: int, id: str) -> tuple[Lease | None, Grant | None]:
        """Return a lease of a session, or none."""
        fitting = [leased for leased in self.leases if leased.id == id]
        if number % 3 or not fitting:
            return None, None
        leased = fitting[number % len(fitting)]
        return leased.lease, leased.grant

    def hold(self, session: Session, copy: Copy, *, plain: bool, watched: bool) -> None:
        """Keep a copy."""
        self.held.append(Held(session, copy, plain, watched))

    # --- making ------------------------------------------------------------------------------

    def header(
        self,
        id: str,
        now: int,
        *,
        user: str | None = None,
        lifecycle: str = "open",
        tags: dict[str, str] | None = None,
        exclusive: tuple[str, ...] = (),
        parent: str | None = None,
        idle: int | None = None,
        absolute: int | None = None,
    ) -> Row:
        """Return a row for the model."""
        return Row(
            number=0,
            id=id,
            user=user,
            lifecycle=lifecycle,
            phase="OPEN" if lifecycle == "open" else "CREATED",
            created=now,
            active=now,
            idle=None if idle is None else idle * SECOND,
            absolute=None if absolute is None else now + absolute * SECOND,
            labels=dict(tags or {}),
            exclusive=exclusive,
            parent=parent,
        )

    @initialize(id=ids, state=states, user=maybe_user, idle=spans, log=st.lists(drafts, max_size=3))
    def begin(
        self, id: str, state: dict[str, Any], user: str | None, idle: int | None, log: list[Draft]
    ) -> None:
        """Start with one session."""
        self._create(
            self.header(id, self.now(), user=user, idle=idle), state, log, idle=idle, plain=False
        )

    @rule(
        id=st.one_of(ids, st.none()),
        user=maybe_user,
        lifecycle=st.sampled_from(("open", "open", "agent")),
        tags=labels,
        exclusive=st.booleans(),
        parent=st.one_of(st.none(), st.none(), ids),
        idle=spans,
        absolute=spans,
        state=states,
        log=st.lists(drafts, max_size=2),
        plain=st.booleans(),
    )
    def create(  # noqa: PLR0917 - what a session is made of
        self,
        id: str | None,
        user: str | None,
        lifecycle: str,
        tags: dict[str, str],
        exclusive: bool,
        parent: str | None,
        idle: int | None,
        absolute: int | None,
        state: dict[str, Any],
        log: list[Draft],
        plain: bool,
    ) -> None:
        claims = tuple(name for name in ("role",) if exclusive and name in tags)
        row = self.header(
            id or "",
            self.now(plain=plain),
            user=user,
            lifecycle=lifecycle,
            tags=tags,
            exclusive=claims,
            parent=parent,
            idle=idle,
            absolute=absolute,
        )
        self._create(row, state, log, idle=idle, absolute=absolute, plain=plain)

    def _create(
        self,
        row: Row,
        state: dict[str, Any],
        log: list[Draft],
        *,
        plain: bool,
        idle: int | None = None,
        absolute: int | None = None,
    ) -> None:
        state = {key: value for key, value in state.items() if row.user or key[:5] != "user:"}
        given = row.id or None
        if given is None:
            row.id = f"s{self.ids._sessions + 1}"

        def real() -> Coroutine[Any, Any, Session]:
            return self.manager(plain=plain).create(
                id=given,
                user=row.user,
                lifecycle=row.lifecycle,
                labels=row.labels,
                exclusive=row.exclusive,
                parent=row.parent,
                expiry=Expiry(idle=idle, absolute=absolute),
                state=deepcopy(state),
                events=[event(draft) for draft in log],
            )

        done = self.both(real, lambda: self.app.make(row, state, log, row.created, hooks=not plain))
        if done is not None:
            session, added = done
            copy = self.app.copy(row)
            for source in (state, *(draft.delta for draft in log if not draft.partial)):
                for key, value in source.items():
                    if key == "temp:x":
                        copy.applied({key: value})
            copy.take_events(added)
            self.hold(session, copy, plain=plain, watched=True)

    @rule(
        id=st.one_of(ids, st.none()),
        user=maybe_user,
        state=states,
        idle=spans,
        absolute=spans,
    )
    def new(
        self,
        id: str | None,
        user: str | None,
        state: dict[str, Any],
        idle: int | None,
        absolute: int | None,
    ) -> None:
        """A session that is not stored until it is saved."""
        state = {key: value for key, value in state.items() if user or key[:5] != "user:"}
        now = self.now()
        session = self.hooking.new(
            id=id, user=user, state=deepcopy(state), expiry=Expiry(idle=idle, absolute=absolute)
        )
        row = self.header(session.id, now, user=user, idle=idle, absolute=absolute)
        copy = Copy(self.app, session.id, None, {}, {}, stored=False, user=user, draft=row)
        copy.look(row)
        for key, value in state.items():
            copy.set(key, value)
        self.hold(session, copy, plain=False, watched=True)

    @rule(id=ids, user=maybe_user, state=states, plain=st.booleans())
    def get_or_create(self, id: str, user: str | None, state: dict[str, Any], plain: bool) -> None:
        state = {key: value for key, value in state.items() if user or key[:5] != "user:"}
        now = self.now(plain=plain)
        manager = self.manager(plain=plain)

        def model() -> Copy:
            row = self.app.visible(id, now)
            if row is None:
                row = self.header(id, now, user=user)
                self.app.make(row, state, [], now, hooks=not plain)
                copy = self.app.copy(row)
                copy.applied({key: v for key, v in state.items() if key == "temp:x"})
                return copy
            if user is not None and row.user != user:
                raise Refused("NotOwner")
            return self.app.copy(row)

        done = self.both(lambda: manager.get_or_create(id, user=user, state=deepcopy(state)), model)
        if done is not None:
            self.hold(*done, plain=plain, watched=True)

    @rule(who=picks, to=st.one_of(ids, st.none()), back=st.one_of(st.none(), picks), idle=spans)
    def fork(self, who: int, to: str | None, back: int | None, idle: int | None) -> None:
        source = self.name(who)
        row = self.header(to or f"s{self.ids._sessions + 1}", self.now(), idle=idle)
        top = self.app.rows[source].top if source in self.app.rows else 0
        at = None if back is None else max(0, top - back % 4)
        done = self.both(
            lambda: self.hooking.fork(source, at=at, new_id=to, expiry=Expiry(idle=idle)),
            lambda: self.app.fork(source, row, at, hooks=True),
        )
        if done is not None:
            self.hold(done[0], self.app.copy(row), plain=False, watched=False)
            self._same_papers(row.id, row)

    # --- looking -----------------------------------------------------------------------------

    @rule(
        who=picks,
        window=st.sampled_from((None, 0, 1, 2, 50)),
        touch=st.booleans(),
        plain=st.booleans(),
    )
    def get(self, who: int, window: int | None, touch: bool, plain: bool) -> None:
        id = self.name(who)
        now = self.now(plain=plain)
        manager = self.manager(plain=plain)

        def model() -> Copy | None:
            row = self.app.visible(id, now)
            if row is None:
                return None
            copy = self.app.copy(row)
            copy.events = [] if window is None else row.window(last=window)
            if touch:
                self.app.touch_copy(copy, now)
            return copy

        done = self.both(lambda: manager.get(id, events=window, touch=touch), model)
        if done is not None:
            session, copy = done
            assert (session is None) == (copy is None)
            if session is not None and copy is not None:
                self.hold(session, copy, plain=plain, watched=False)

    @rule(who=picks, user=maybe_user)
    def require(self, who: int, user: str | None) -> None:
        id = self.name(who)
        now = self.now()

        def model() -> Copy:
            row = self.app.visible(id, now)
            if row is None:
                raise Refused("NotFound")
            if user is not None and row.user != user:
                raise Refused("NotOwner")
            return self.app.copy(row)

        done = self.both(lambda: self.hooking.require(id, user=user), model)
        if done is not None:
            self.hold(*done, plain=False, watched=False)

    @rule(
        who=picks,
        ends=st.sampled_from(
            (*((n, None) for n in (None, 0, 1, 2, 60)), *((None, n) for n in (0, 1, 2, 60)), (1, 1))
        ),
        after=st.sampled_from((None, 0, 1, 3, 2**28, 2**40)),
        before=st.sampled_from((None, 0, 1, 3, 2**28, 2**40)),
        since=st.sampled_from((None, -100, 0, 5, 6)),
        kinds=st.sampled_from((None, (), ("note",), ("message", "note"), ("note", "note"))),
    )
    def read(  # noqa: PLR0917 - one for each bound
        self,
        who: int,
        ends: tuple[int | None, int | None],
        after: int | None,
        before: int | None,
        since: int | None,
        kinds: tuple[str, ...] | None,
    ) -> None:
        id = self.name(who)
        now = self.now()
        at = None if since is None else from_datetime(START) + since * SECOND
        last, first = ends

        def model() -> list[Entry]:
            if last is not None and first is not None:
                raise Refused("InvalidQuery")
            row = self.app.visible(id, now)
            if row is None:
                raise Refused("NotFound")
            return row.window(
                last=last, first=first, after=after, before=before, since=at, kinds=kinds
            )

        done = self.both(
            lambda: self.hooking.events(
                id,
                last=last,
                first=first,
                after_seq=after,
                before_seq=before,
                since=None if at is None else to_datetime(at),
                kind=kinds,
            ),
            model,
        )
        if done is not None:
            same_events(*done)

    @rule(
        user=maybe_user,
        anonymous=st.booleans(),
        phases=st.one_of(st.none(), st.lists(st.sampled_from(PHASES), max_size=2).map(tuple)),
        tags=st.one_of(st.none(), labels),
        parent=st.one_of(st.none(), st.none(), ids),
        order=st.sampled_from(("created", "-created", "active", "-active")),
        limit=st.integers(1, 3),
    )
    def page(  # noqa: PLR0917 - one for each filter
        self,
        user: str | None,
        anonymous: bool,
        phases: Any,
        tags: dict[str, str] | None,
        parent: str | None,
        order: Any,
        limit: int,
    ) -> None:
        """Walking all pages of a query shows each match once, in order; the count agrees."""
        filters: dict[str, Any] = {
            "user": user,
            "anonymous": anonymous and user is None,
            "labels": tags,
            "parent": parent,
        }
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = self.run(
                self.hooking.list(**filters, phase=phases, order=order, limit=limit, cursor=cursor)
            )
            found += [session.id for session in page.items]
            assert not page.corrupt
            assert len(page.items) <= limit
            cursor = page.cursor
            if cursor is None:
                break
        expected = self.app.matching(self.now(), **filters, phases=phases, order=order)
        assert found == [row.id for row in expected]
        assert self.run(self.hooking.count(**filters, phase=phases)) == len(expected)

    # --- state -------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(number=picks, key=st.sampled_from(KEYS), value=values)
    def set(self, number: int, key: str, value: Any) -> None:
        held = self.pick(number)

        async def real() -> None:
            held.session.state[key] = deepcopy(value)

        self.both(real, lambda: held.copy.set(key, value))

    @precondition(lambda self: self.held)
    @rule(number=picks, key=picks, value=scalars)
    def edit_inside(self, number: int, key: int, value: Any) -> None:
        """Change a value where it is, deep inside."""
        held = self.pick(number)
        nested = sorted(k for k, v in held.copy.view.items() if isinstance(v, list | dict))
        if nested:
            chosen = nested[key % len(nested)]
            for state in (held.session.state, held.copy.view):
                inner = state[chosen]
                if isinstance(inner, dict):
                    inner["p"] = [value]
                else:
                    inner.append(value)

    @precondition(lambda self: self.held)
    @rule(number=picks, key=picks)
    def remove(self, number: int, key: int) -> None:
        held = self.pick(number)
        keys = sorted(held.copy.view)
        if keys:
            chosen = keys[key % len(keys)]
            del held.session.state[chosen]
            held.copy.remove(chosen)

    @precondition(lambda self: self.held)
    @rule(number=picks)
    def clear(self, number: int) -> None:
        held = self.pick(number)
        held.session.state.clear()
        held.copy.clear()

    @precondition(lambda self: self.held)
    @rule(number=picks, strict=strictness, lease=picks)
    def save(self, number: int, strict: bool, lease: int) -> None:
        held = self.pick(number)
        ours, theirs = self.lease_of(lease, held.copy.id)
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        self.both(
            lambda: manager.save(held.session, conflict=policy(strict=strict), lease=ours),
            lambda: self.app.save(
                held.copy, now, strict=strict, lease=theirs, hooks=not held.plain
            ),
        )

    @rule(delta=deltas, user=users)
    def share(self, delta: dict[str, Any], user: str) -> None:
        shared = {key: value for key, value in delta.items() if key[:4] in ("app:", "user")}
        self.both(
            lambda: self.hooking.share(shared, user=user), lambda: self.app.share(shared, user)
        )

    # --- log ---------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(
        number=picks,
        by_id=st.booleans(),
        log=st.lists(drafts, min_size=1, max_size=3),
        state=deltas,
        strict=strictness,
        lease=picks,
    )
    def append(  # noqa: PLR0917 - what a caller can say
        self,
        number: int,
        by_id: bool,
        log: list[Draft],
        state: dict[str, Any],
        strict: bool,
        lease: int,
    ) -> None:
        held = self.pick(number)
        ours, theirs = self.lease_of(lease, held.copy.id)
        strict = strict and not by_id
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        drafted = deepcopy(log)
        whole = [draft for draft in drafted if not draft.partial]
        target = held.session.id if by_id else held.session

        def real() -> Coroutine[Any, Any, Event]:
            first, *more = [event(draft) for draft in log]
            return manager.append(
                target,
                first,
                *more,
                state=deepcopy(state),
                conflict=policy(strict=strict),
                lease=ours,
            )

        done = self.both(
            real,
            lambda: self.app.append(
                held.copy.id if by_id else held.copy,
                drafted,
                now,
                strict=strict,
                lease=theirs,
                state=state,
            ),
        )
        if done is not None and whole and not log[-1].partial:
            # The time of a repeat without one of its own is the one in the log: see `read`.
            same_events([done[0]], [done[1][-1]], times=log[-1].at is not None)

    @precondition(lambda self: self.held)
    @rule(number=picks, after=st.integers(0, 5), strict=strictness, lease=picks)
    def truncate(self, number: int, after: int, strict: bool, lease: int) -> None:
        held = self.pick(number)
        ours, theirs = self.lease_of(lease, held.copy.id)
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        self.both(
            lambda: manager.truncate(
                held.session, after=after, conflict=policy(strict=strict), lease=ours
            ),
            lambda: self.app.truncate(held.copy, after, now, strict=strict, lease=theirs),
        )

    @precondition(lambda self: self.held)
    @rule(
        number=picks,
        count=st.integers(1, 2),
        wrong=strictness,
        log=st.lists(drafts, max_size=2),
        strict=strictness,
    )
    def replace_suffix(
        self, number: int, count: int, wrong: bool, log: list[Draft], strict: bool
    ) -> None:
        held = self.pick(number)
        row = self.app.rows.get(held.copy.id)
        tail = [entry.seq for entry in row.log][-count:] if row is not None else []
        expected = [seq + wrong for seq in tail] or [1]
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        done = self.both(
            lambda: manager.replace_suffix(
                held.session,
                expected=expected,
                events=[event(draft) for draft in log],
                conflict=policy(strict=strict),
            ),
            lambda: self.app.append(held.copy, log, now, strict=strict, expected=expected),
        )
        if done is not None:
            same_events(list(done[0]), done[1], times=all(draft.at for draft in log))

    # --- everything else that commits --------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(number=picks, user=users)
    def bind(self, number: int, user: str) -> None:
        held = self.pick(number)
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        self.both(
            lambda: manager.bind(held.session, user),
            lambda: self.app.bind(held.copy, user, now),
        )

    @precondition(lambda self: self.held)
    @rule(number=picks, patch=patches, strict=strictness)
    def label(self, number: int, patch: dict[str, str | None], strict: bool) -> None:
        held = self.pick(number)
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        self.both(
            lambda: manager.label(held.session, patch, conflict=policy(strict=strict)),
            lambda: self.app.label(held.copy, patch, now, strict=strict),
        )

    @rule(
        who=picks,
        collection=st.sampled_from(COLLECTIONS),
        key=st.sampled_from(NAMES),
        body=st.sampled_from((b"", b"\x00\xff", b"x" * 300)),
        ttl=st.sampled_from((None, None, 5, 60)),
    )
    def put(self, who: int, collection: str, key: str, body: bytes, ttl: int | None) -> None:
        id = None if who % 5 == 0 else self.name(who)
        now = self.now()
        self.both(
            lambda: self.hooking.documents(id).put(collection, key, body, ttl=ttl),
            lambda: self.app.put(
                id, (collection, key), body, None if ttl is None else ttl * SECOND, now
            ),
        )
        self._same_papers(id, None if id is None else self.app.rows.get(id))

    @rule(
        who=picks,
        collection=st.sampled_from(COLLECTIONS),
        key=st.sampled_from((None, *NAMES)),
    )
    def drop(self, who: int, collection: str, key: str | None) -> None:
        id = None if who % 5 == 0 else self.name(who)
        now = self.now()
        self.both(
            lambda: self.hooking.documents(id).drop(collection, key),
            lambda: self.app.drop(id, collection, key, now),
        )
        self._same_papers(id, None if id is None else self.app.rows.get(id))

    def _same_papers(self, id: str | None, row: Row | None) -> None:
        """Compare the documents of a session or the app: listed, and one by one."""
        now = self.now()
        papers = self.app.papers if id is None else row.papers if row is not None else {}
        documents = self.hooking.documents(id)
        for collection in COLLECTIONS:
            expected = {
                key: paper
                for (where, key), paper in sorted(papers.items())
                if where == collection and (paper.expires is None or now < paper.expires)
            }
            listed = self.run(documents.list(collection, expired=True))
            assert [item.key for item in listed] == list(expected)
            for item in listed:
                paper = expected[item.key]
                assert item.body is None
                assert (item.size, item.seq) == (len(paper.body), paper.seq)
                assert (instant(item.created_at), instant(item.updated_at)) == (
                    paper.created,
                    paper.updated,
                )
                assert instant(item.expires_at) == paper.expires
            for key in NAMES:
                found = self.run(documents.get(collection, key, expired=True))
                assert (found and found.body) == (expected[key].body if key in expected else None)

    # --- use and leases ----------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(number=picks)
    def touch(self, number: int) -> None:
        held = self.pick(number)
        now = self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)
        self.both(lambda: manager.touch(held.session), lambda: self.app.touch_copy(held.copy, now))

    @rule(who=picks)
    def heartbeat(self, who: int) -> None:
        id = self.name(who)
        now = self.now()
        done = self.both(lambda: self.hooking.heartbeat(id), lambda: self.app.touch(id, now).active)
        if done is not None:
            assert instant(done[0]) == done[1]

    @precondition(lambda self: self.held)
    @rule(number=picks)
    def refresh(self, number: int) -> None:
        held = self.pick(number)
        copy, now = held.copy, self.now(plain=held.plain)
        manager = self.manager(plain=held.plain)

        def model() -> None:
            row = self.app.visible(copy.id, now)
            if row is None:
                raise Refused("NotFound")
            first = copy.events[0].seq if copy.events else None
            fresh = self.app.copy(row)
            fresh.view |= {key: v for key, v in copy.view.items() if key == "temp:x"}
            copy.row, copy.stored, copy.draft = row, True, None
            copy.base, copy.view, copy.revision = fresh.base, fresh.view, fresh.revision
            copy.written.clear()
            copy.dropped.clear()
            copy.cleared_at = 0
            copy.events = [] if first is None else row.window(after=first - 1)
            copy.look(row)

        self.both(lambda: manager.refresh(held.session), model)

    @rule(who=picks, span=st.sampled_from((5, 60)))
    def lease(self, who: int, span: int) -> None:
        id = self.name(who)
        now = self.now()
        before = max((leased.lease.token for leased in self.leases if leased.id == id), default=0)
        alive = [leased for leased in self.leases if leased.grant.row is self.app.rows.get(id)]
        context = self.hooking.lease(id, ttl=span, renew=False)
        done = self.both(context.__aenter__, lambda: self.app.grant(id, span * SECOND, now))
        if done is not None:
            lease, grant = done
            if alive:
                assert lease.token > before or lease.token > max(a.lease.token for a in alive)
            self.leases.append(Leased(lease, grant, id, context))

    @precondition(lambda self: self.leases)
    @rule(number=picks)
    def renew(self, number: int) -> None:
        leased = self.leases[number % len(self.leases)]
        now = self.now()
        self.both(leased.lease.renew, lambda: self.app.renew(leased.id, leased.grant, now))

    @precondition(lambda self: self.leases)
    @rule(number=picks)
    def release(self, number: int) -> None:
        leased = self.leases[number % len(self.leases)]
        self.both(leased.lease.release, lambda: self.app.release(leased.grant))

    # --- lifecycle ---------------------------------------------------------------------------

    @rule(
        who=picks,
        wild=st.sampled_from((*(None,) * 12, "END", "SPAWN", "ACTIVATE", "FINISH", "CLEAN")),
        reason=st.sampled_from((None, "because")),
        plain=st.booleans(),
    )
    def apply(self, who: int, wild: str | None, reason: str | None, plain: bool) -> None:
        """Make one of the moves that the phase allows, or any other."""
        id = self.name(who)
        row = self.app.rows.get(id)
        at = ("open", "OPEN") if row is None else (row.lifecycle, row.phase)
        legal = [known for *place, known in MOVES if tuple(place) == at] or ["END"]
        trigger: Any = wild or legal[who % len(legal)]
        now = self.now(plain=plain)
        manager = self.manager(plain=plain)
        done = self.both(
            lambda: manager.apply(id, trigger, reason=reason),
            lambda: self.app.apply(id, trigger, reason, now),
        )
        if done is not None:
            assert done[0] == done[1]

    @precondition(several)
    @rule(who=picks, retain=st.sampled_from((None, None, 20)), plain=st.booleans())
    def end(self, who: int, retain: int | None, plain: bool) -> None:
        id = self.name(who)
        now = self.now(plain=plain)
        manager = self.manager(plain=plain)
        span = None if retain is None else retain * SECOND
        done = self.both(
            lambda: manager.end(id, reason="over", retain=retain),
            lambda: self.app.end(id, "over", span, now, hooks=not plain),
        )
        if done is not None:
            assert done[0] == done[1]

    @rule(who=picks, plain=st.booleans())
    def finish(self, who: int, plain: bool) -> None:
        id = self.name(who)
        now = self.now(plain=plain)
        manager = self.manager(plain=plain)
        done = self.both(
            lambda: manager.finish(id), lambda: self.app.finish(id, now, hooks=not plain)
        )
        if done is not None:
            assert done[0] == done[1]

    @rule(failing=st.lists(ids, max_size=2))
    def hooks_fail(self, failing: list[str]) -> None:
        """From now on the end hooks of these sessions fail, and no others."""
        self.app.failing = {*failing}

    @rule(batch=st.integers(1, 3), plain=st.booleans())
    def sweep(self, batch: int, plain: bool) -> None:
        now = self.now(plain=plain)
        reaper = Reaper(self.manager(plain=plain), batch=batch, concurrency=1)
        done = self.both(reaper.sweep, lambda: self.app.sweep(now, batch, hooks=not plain))
        assert done is not None
        assert done[0] == done[1]

    @precondition(several)
    @rule(id=ids, plain=st.booleans())
    def delete(self, id: str, plain: bool) -> None:
        done = self.both(lambda: self.manager(plain=plain).delete(id), lambda: self.app.delete(id))
        assert done is not None
        assert done[0] == done[1]

    @precondition(several)
    @rule(user=users)
    def forget(self, user: str) -> None:
        done = self.both(lambda: self.hooking.forget(user), lambda: self.app.forget(user))
        assert done is not None
        assert done[0] == done[1]

    @rule(seconds=st.sampled_from((0.5, 1, 5, 9.999999, 10, 61, 121, 400, -3, -30)))
    def pass_time(self, seconds: float) -> None:
        """The clock goes on, or steps back; for a manager it never does the latter."""
        self.clock.advance(seconds)

    @rule(plain=st.booleans())
    def notice_time(self, plain: bool) -> None:
        """A manager looks at the clock, and never sees it go back."""
        before = self.latest
        now = self.now()
        self.latest = max(before, self.clock.now())
        assert now == self.latest
        assert self.now(plain=plain) >= self.clock.now()

    # --- after every step --------------------------------------------------------------------

    @invariant()
    def everything_that_can_be_seen_is_the_same(self) -> None:
        now = self.now()
        self.latest = max(self.latest, now)
        self.run(self._same_sessions(now))
        for held in self.held[-8:]:
            self._same_copy(held)
        assert Counter(self.hooked) == Counter(self.app.hooked)

    async def _same_sessions(self, now: int) -> None:
        for id in sorted(self.app.ever):
            row = self.app.rows.get(id)
            found = await self.hooking.get(id, events=50, expired=True)
            assert (found is None) == (row is None), id
            if found is not None and row is not None:
                self._same_session(found, row)
                if row.past(now):
                    assert await self.hooking.get(id) is None
        expected = self.app.matching(now)
        listed = await self.hooking.list(order="created", limit=100)
        assert [session.id for session in listed.items] == [row.id for row in expected]
        assert await self.hooking.count() == len(expected)
        for user in USERS:
            assert text(await self.hooking.user_state(user)) == text(self.app.users.get(user, {}))
        assert text(await self.hooking.app_state()) == text(self.app.shared)
        assert await self.other.count() == 0

    def _same_session(self, found: Session, row: Row) -> None:
        """Compare a session as it was just read."""
        assert found.revision == row.revision
        assert found.user == row.user
        self._same_facts(found, row.id, self.app.copy(row).seen)
        assert text(dict(found.state)) == text(self.app.merged(row))
        same_events(found.events, row.log)
        assert all(a.seq < b.seq for a, b in zip(row.log, row.log[1:], strict=False))
        assert self.epochs.setdefault(row, found.epoch) == found.epoch

    def _same_facts(self, session: Session, id: str, seen: dict[str, Any]) -> None:
        """Compare what a session says of itself."""
        found = {
            "phase": session.phase,
            "reason": session.reason,
            "labels": dict(session.labels),
            "created": instant(session.created_at),
            "active": instant(session.active_at),
            "idle": session.header.idle,
            "expires": instant(session.expires_at),
            "parent": session.parent,
            "forked_from": session.forked_from,
            "live": session.header.live,
        }
        assert session.id == id
        assert found == seen

    def _same_copy(self, held: Held) -> None:
        """Compare a working copy; looking at its values is itself part of the test."""
        session, copy = held.session, held.copy
        assert session.stored == copy.stored
        assert session.revision == copy.revision
        assert session.user == copy.user
        self._same_facts(session, copy.id, copy.seen)
        assert sorted(session.state) == sorted(copy.view)
        assert len(session.state) == len(copy.view)
        if held.watched:
            assert text(dict(session.state)) == text(copy.view)
        assert session.modified == copy.modified
        assert [item.seq for item in session.events] == [entry.seq for entry in copy.events]

    def teardown(self) -> None:
        """Compare what was too much to compare at every step, unless a step failed; close."""
        try:
            if sys.exc_info()[0] is None:
                self.compare_the_rest()
        finally:
            with contextlib.suppress(SojournError):
                for leased in self.leases:
                    self.run(leased.context.__aexit__(None, None, None))
            self.run(self.store.close())
            self.loop.close()

    def compare_the_rest(self) -> None:
        """Compare all documents, all values of all copies, and what only the store can tell."""
        for id, row in self.app.rows.items():
            self._same_papers(id, row)
        self._same_papers(None, None)
        for held in self.held:
            assert text(dict(held.session.state)) == text(held.copy.view)
        self.run(self.last_look())

    async def last_look(self) -> None:
        """Check what only this store can tell."""


class OnMemory(Machine):
    """The machine on the store in memory."""

    def open_store(self) -> Store:
        from sojourn.stores.memory import MemoryStore

        return MemoryStore()


class OnSqlite(Machine):
    """The machine on a SQLite file, which is closed and opened again now and then."""

    def open_store(self) -> Store:
        if not hasattr(self, "folder"):
            shm = Path("/dev/shm")  # noqa: S108 - memory is enough for files that nobody keeps
            self.folder = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
        return SqliteStore(Path(self.folder) / "sessions.db", durability="relaxed")

    @rule()
    def reopen(self) -> None:
        """Close the store and go on with a new one on the same file; copies and leases live on."""
        self.run(self.store.close())
        self.store = self.open_store()
        self.run(self.store.open())
        self.meet()
        self.clock.advance(max(0.0, (self.latest - self.clock.now()) / SECOND))
        for leased in self.leases:
            leased.lease._context = self.hooking._context
            leased.lease._store = self.store  # type: ignore[assignment]  # SQLite has leases

    async def last_look(self) -> None:
        assert isinstance(self.store, SqliteStore)
        assert await self.store.check() == []

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


class OnFiles(OnSqlite):
    """The machine on a folder of plain files, closed, opened and compacted now and then."""

    def open_store(self) -> Store:
        if not hasattr(self, "folder"):
            shm = Path("/dev/shm")  # noqa: S108 - memory is enough for files that nobody keeps
            self.folder = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
        return FilesystemStore(Path(self.folder) / "sessions", durability="relaxed")

    @rule()
    def compact(self) -> None:
        """Write all files anew; nobody notices."""
        assert isinstance(self.store, FilesystemStore)
        self.run(self.store.compact())

    async def last_look(self) -> None:
        assert isinstance(self.store, FilesystemStore)
        assert await self.store.check() == []


class OnPostgres(Machine):
    """The machine on PostgreSQL, whose store is closed and opened again now and then."""

    server: PostgresServer

    def open_store(self) -> Store:
        url = self.server.url(schema="model", durability="relaxed", pool_size=1)
        if not hasattr(self, "store"):
            asyncio.run(emptied(url))
        return open_store(url)

    @rule()
    def reopen(self) -> None:
        """Close the store and go on with a new one in the same place; copies and leases live on."""
        self.run(self.store.close())
        self.store = self.open_store()
        self.run(self.store.open())
        self.meet()
        self.clock.advance(max(0.0, (self.latest - self.clock.now()) / SECOND))
        for leased in self.leases:
            leased.lease._context = self.hooking._context
            leased.lease._store = self.store  # type: ignore[assignment]  # PostgreSQL has leases

    async def last_look(self) -> None:
        assert isinstance(self.store, SupportsCheck)
        assert await self.store.check() == []


class OnRedis(Machine):
    """The machine on Redis, whose store is closed and opened again now and then."""

    url: str
    runs = 0

    def open_store(self) -> Store:
        if not hasattr(self, "store"):
            OnRedis.runs += 1
        return open_store(f"{self.url}?timeout=30&prefix=model{OnRedis.runs}")

    @rule()
    def reopen(self) -> None:
        """Close the store and go on with a new one in the same place; copies and leases live on."""
        self.run(self.store.close())
        self.store = self.open_store()
        self.run(self.store.open())
        self.meet()
        self.clock.advance(max(0.0, (self.latest - self.clock.now()) / SECOND))
        for leased in self.leases:
            leased.lease._context = self.hooking._context
            leased.lease._store = self.store  # type: ignore[assignment]  # Redis has leases

    async def last_look(self) -> None:
        assert isinstance(self.store, SupportsCheck)
        assert await self.store.check() == []


def check(machine: type[Machine], examples: int = EXAMPLES) -> None:
    """Run a machine; what fails is printed with the line that repeats it."""
    logging.getLogger("sojourn").disabled = True
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=False,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        logging.getLogger("sojourn").disabled = False


def test_the_memory_store_does_what_the_model_does() -> None:
    """Whatever is done, the memory store and plain dicts and lists show the same."""
    check(OnMemory)


def test_the_store_in_files_does_what_the_model_does() -> None:
    """Whatever is done, plain files, reopened and compacted at times, show what dicts show."""
    check(OnFiles, EXAMPLES // 4)  # each opens, closes and compacts many a time


def test_the_sqlite_store_does_what_the_model_does() -> None:
    """Whatever is done, a SQLite file, reopened now and then, shows what plain dicts show."""
    check(OnSqlite)


def test_the_postgres_store_does_what_the_model_does(postgres: PostgresServer) -> None:
    """Whatever is done, PostgreSQL, opened anew now and then, shows what plain dicts show."""
    OnPostgres.server = postgres
    check(OnPostgres, ON_A_SERVER)


@pytest.mark.xdist_group("redis")
@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_the_redis_store_does_what_the_model_does(kind: str) -> None:
    """Whatever is done, Redis, opened anew now and then, shows what plain dicts show."""
    servers = Servers() if kind == "server" else Cluster(replicas=0)
    try:
        OnRedis.url = servers.url if isinstance(servers, Cluster) else servers.add().url
        check(OnRedis, ON_A_SERVER if kind == "server" else ON_A_SERVER // 3)
    finally:
        servers.stop()
