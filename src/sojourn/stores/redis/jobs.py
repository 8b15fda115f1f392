"""Units to calls: what a unit wants written, as checks and commands on the keys of its route.

On one server, a job is one request. In a cluster, what a unit does in other routes is either asked
for before (`reservations`), where it decides whether the unit may be written at all, or done after
(`errands`), from an outbox that is written with the unit itself.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sojourn import commit
from sojourn.lifecycle import OVER
from sojourn.stores.planning import Loaded, Unit
from sojourn.stores.redis import routes, rows
from sojourn.stores.redis.client import Call
from sojourn.stores.redis.errands import About, Box, Draft
from sojourn.stores.redis.filing import write_documents
from sojourn.stores.redis.keys import RETURNING
from sojourn.stores.redis.plain import is_plain, plain_call
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.room import make_room, takes_away
from sojourn.stores.redis.routes import Route
from sojourn.stores.redis.rows import Row, Unreadable
from sojourn.stores.redis.spots import (
    Places,
    due_at,
    holder_text,
    note_of,
    overdue_at,
    positions,
    token_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sojourn.model import Header
    from sojourn.stores.planning import (
        Claim,
        Guard,
        Key,
        Known,
        TierChange,
    )
    from sojourn.stores.redis.keys import Keys, Owned
    from sojourn.stores.redis.request import Sink

REMEMBERED_MILLISECONDS = 600_000
"""How long it is remembered that an operation of no session was applied: longer than any call."""


class Reservation(NamedTuple):
    """What has to say `value` before a session may be made."""

    route: Route
    key: str
    value: str


class Job(msgspec.Struct, eq=False, gc=False):
    """A unit as one call, and what it takes in other routes."""

    unit: Unit
    route: Route
    call: Call
    note: Reservation | None = None
    """What the home of a new session's id has to say; empty if the session is at home."""
    claim: Reservation | None = None
    """What has to be said of a new session's claim."""
    ahead: bool = False
    """Whether that is in other routes of a cluster, and has to be said before."""
    registrations: tuple[tuple[Route, str, Route], ...] = ()
    """Sets of routes: where they are, their keys, and what has to be in them before."""
    errands: dict[tuple[Route, About], Draft] = {}
    written: Loaded | None = None
    """The session as it is once this is written; `None` if it is gone, or there is none."""
    is_plain: bool = False
    once: int = 0
    """The check that fails only if the job was done before."""
    refusal: int = 0
    """The check that fails only if the new session was refused by others, and now is for good."""
    is_refused: bool = False
    """Whether that check has failed."""

    @property
    def reservations(self) -> list[Reservation]:
        """What has to be said in other routes before this is written."""
        wanted = (self.note, self.claim) if self.ahead else ()
        return [each for each in wanted if each is not None and each.value]

    @property
    def boxes(self) -> list[Box]:
        """The outboxes that it writes to."""
        about = dict.fromkeys(about for _, about in self.errands)
        return [Box(self.route, self.app, each) for each in about]

    @property
    def app(self) -> str:
        """The app of its unit."""
        return self.unit.app


class Foreman:
    """Makes jobs of units."""

    def __init__(self, keys: Keys, *, cluster: bool) -> None:
        """`cluster` says that routes are on different servers."""
        self._keys = keys
        self._cluster = cluster
        self._places = Places()

    def jobs(self, units: Iterable[Unit], known: Known) -> list[Job]:
        """Return a job for each unit."""
        return [self._plain(unit) or self._made(unit, known) for unit in units]

    def _made(self, unit: Unit, known: Known) -> Job:
        making = _Making(self, known, unit)
        if takes_away(unit):
            make_room(making.main, self._keys, unit.key)
        return making.job()

    def begun(self, unit: Unit, known: Known) -> tuple[Job, Request]:
        """Return a job that more is added to, and the request that its call is made of."""
        making = _Making(self, known, unit)
        return making.job(), making.main

    def route_of(self, unit: Unit, known: Known) -> Route:
        """Return the route that a unit is written in."""
        return _Making(self, known, unit).main.route

    def _plain(self, unit: Unit) -> Job | None:
        """Return the job of a unit that is like nearly all of them, else `None`."""
        old, new = unit.old, unit.header
        if old is None or new is None or unit.key is None:
            return None
        row: Row = old.row
        if not is_plain(unit, old.header, new, row.route):
            return None
        call, row = plain_call(self._keys, unit, new, row)
        return Job(unit, row.route, call, written=unit.written(row), is_plain=True)

    @property
    def keys(self) -> Keys:
        """The names of keys."""
        return self._keys

    @property
    def cluster(self) -> bool:
        """Whether routes are on different servers."""
        return self._cluster

    def place_after(self, place: str | None) -> str:
        """Return the place of a new session."""
        return self._places.next(place)


class _Making:
    """One job in the making."""

    def __init__(self, foreman: Foreman, known: Known, unit: Unit) -> None:
        self._foreman = foreman
        self._keys = foreman.keys
        self._cluster = foreman.cluster
        self._known = known
        self._unit = unit
        self.main = Request(self._route_of(unit))
        self._job = Job(unit, self.main.route, self.main.call())

    def job(self) -> Job:
        """Return the job of the unit."""
        unit = self._unit
        if unit.key is None:
            self._share(unit)
        elif unit.header is None:
            self._remove(unit, unit.key)
        elif unit.old is None:
            self._create(unit, unit.header)
        else:
            self._change(unit, unit.header)
        if self._cluster:
            for (_, about), draft in self._job.errands.items():
                box = Box(self.main.route, self._job.app, about)
                self.main.do_on("outbox", self._keys.outbox(box), draft.text())
        self._job.call = self.main.call()
        return self._job

    def _once(self, token: str) -> None:
        """Have it remembered that this was written, so that a lost reply is no other outcome."""
        done = self._keys.done(self.main.route, token)
        self._job.once = self.main.check("absent", done)
        self.main.do("SET", done, "", "PX", REMEMBERED_MILLISECONDS)

    def _at(self, route: Route, about: About) -> Sink:
        """Return where commands for a route go."""
        if route == self.main.route or not self._cluster:
            return self.main
        return self._job.errands.setdefault((route, about), Draft(route))

    # --- where things are ----------------------------------------------------------------------

    def _route_of(self, unit: Unit) -> Route:
        if unit.key is None:
            return _route_of_shared(unit)
        if unit.old is not None:
            return _row(unit).route
        if unit.header is None:
            found = self._known.sessions.get(unit.key)
            return found.route if isinstance(found, Unreadable) else routes.of_id(*unit.key)
        if unit.guards:  # a parent or a source: families stay together
            return row_of(unit.guards[0]).route
        header = unit.header
        if header.user is not None:
            return routes.of_user(header.app, header.user)
        return routes.of_id(header.app, header.id)

    # --- new sessions --------------------------------------------------------------------------

    def _create(self, unit: Unit, header: Header) -> None:
        key = (header.app, header.id)
        route = self.main.route
        near = [(guard.key, row_of(guard)) for guard in unit.guards]
        place = self._foreman.place_after(max((row.place for _, row in near), default=None))
        kinds = next((row.kinds for key, row in near if unit.copy and key == unit.copy.source), ())
        home = routes.of_id(*key)
        row = Row(route, place, kinds, "" if home == route else note_of(route, header))
        self._reserve(header, row, home)
        self.main.check("absent", self._keys.session(route, *key))
        self._guard(unit)
        row = self._write_contents(unit, header, row, _birth(header, unit.version, row))
        self._job.written = unit.written(row)
        self._list(None, header, row)
        if header.parent is not None:
            children = self._keys.children(route, header.app, header.parent)
            self.main.do("ZADD", children, int(place, 16), header.id)
        self.main.do("SADD", self._keys.apps(route), header.app)

    def _reserve(self, header: Header, row: Row, home: Route) -> None:
        """Take the id, the claim, and a place among the routes that have sessions of the user."""
        app, id = header.app, header.id
        note = self._keys.note(home, app, id)
        self._job.note = Reservation(home, note, row.note)
        self._job.ahead = self._cluster
        if home == row.route:
            self.main.check("absent", note)
        elif not self._cluster:
            self.main.check("absent", self._keys.session(home, app, id))
            self.main.check("free", note, row.note)
            self.main.do("SET", note, row.note)
        if self._cluster:
            refused = self._keys.refused(row.route, token_of(header))
            self._job.refusal = self.main.check("absent", refused)
        claim = self._unit.claim_taken
        if claim is not None:
            self._claim(header, row, claim)
        self._register(header, row.route)

    def _claim(self, header: Header, row: Row, claim: Claim) -> None:
        route = routes.of_claim(header.app, claim)
        key, text = self._keys.claim(route, header.app, claim), holder_text(header, row.route)
        self._job.claim = Reservation(route, key, text)
        self._job.ahead = self._cluster
        if not self._cluster:
            self.main.check("free", key, text)
            self.main.do("SET", key, text)

    def _register(self, header: Header, route: Route) -> None:
        """See to it that who looks for the user's sessions looks here too."""
        if header.user is None:
            return
        home = routes.of_user(header.app, header.user)
        if home == route:
            return
        key = self._keys.routes(home, header.app, header.user)
        if self._cluster:
            self._job.registrations += ((home, key, route),)
        else:
            self.main.do("SADD", key, route)

    def _guard(self, unit: Unit) -> None:
        for guard in unit.guards:
            session = self._keys.session(self.main.route, *guard.key)
            phase = guard.phase.value if guard.phase else ""
            version = "" if guard.version is None else guard.version
            self.main.check("guard", session, guard.epoch, phase, version)

    # --- changes -------------------------------------------------------------------------------

    def _change(self, unit: Unit, header: Header) -> None:
        assert unit.old is not None, "this is what tells it from a create"
        old, row = unit.old.header, msgspec.structs.replace(_row(unit), fixed=b"")
        if (old.holder, old.leased_until) != (header.holder, header.leased_until):
            self._once(secrets.token_hex(8))  # leases are not among what a session remembers
        session = self._keys.session(row.route, header.app, header.id)
        self.main.check("session", session, old.epoch, unit.old.version)
        fields: list[str | bytes | int] = [
            "head",
            rows.head_text(header, rows.fixed_text(header)),
            "ops",
            header.remembered,
            "v",
            unit.version,
        ]
        if header.phase is not old.phase:
            fields += ("phase", header.phase.value)
        self.main.do("wake", session, self._keys.channel(header.app, header.id))
        if header.user != old.user:
            self._register(header, row.route)
        self._job.written = unit.written(self._write_contents(unit, header, row, fields))
        self._list(old, header, row)
        if unit.claim_taken is not None:
            self._claim(header, row, unit.claim_taken)
        if unit.claim_freed is not None:
            self._free(unit.claim_freed, old, row)

    def _write_contents(
        self, unit: Unit, header: Header, row: Row, fields: list[str | bytes | int]
    ) -> Row:
        """Write these fields, state, events, documents and tiers; return the row as it is then."""
        session = self._keys.session(row.route, header.app, header.id)
        owned = self._keys.owned(row.route, header.app, header.id)
        if unit.copy is not None:
            source = self._keys.owned(row.route, *unit.copy.source)
            self.main.do_on("copy", (*source, *owned), unit.copy.upto)
            docdue = self._keys.docdue(row.route, header.app)
            self.main.do_on("expiring", (owned.docs, docdue), header.id)
        if unit.truncate_after is not None:
            self.main.do_on("cut", (owned.log, owned.ids, owned.kinds), unit.truncate_after)
        if unit.state is not None:
            fields += ("state", unit.state)
        if unit.entries or unit.truncate_after is not None or unit.old is None:
            fields += ("peak", unit.peak)
        kinds = rows.kinds_after(row.kinds, unit.entries)
        if kinds != row.kinds or (unit.copy is not None and kinds):
            fields += ("kinds", rows.kinds_text(kinds))
            row = msgspec.structs.replace(row, kinds=kinds)
        self.main.do("HSET", session, *fields)
        if unit.entries:
            self._log(unit, owned, kinds)
        if unit.documents:
            docdue = self._keys.docdue(row.route, header.app)
            write_documents(self.main, unit.documents, owned, (docdue, header.id))
        self._tiers(unit.tiers)
        return row

    def _log(self, unit: Unit, owned: Owned, kinds: tuple[str, ...]) -> None:
        lines = [
            rows.line(entry, peak) for entry, peak in zip(unit.entries, unit.peaks, strict=True)
        ]
        named: list[str | int] = []
        for entry in unit.entries:
            named += (entry.id, entry.seq)
        self.main.do_in_pieces("RPUSH", owned.log, lines)
        self.main.do_in_pieces("ids", owned.ids, named, 2)
        self.main.do("APPEND", owned.kinds, rows.kind_bytes(kinds, unit.entries))

    def _tiers(self, changes: Iterable[TierChange]) -> None:
        for change in changes:  # in one batch all are at once, in any order
            app, user, set_, drop = change.app, change.user, change.set, change.drop
            route = routes.of_app(app) if user is None else routes.of_user(app, user)
            sink, tier = self._at(route, "tiers"), self._keys.tier(route, app, user)
            if set_:
                pairs: list[str | bytes | int] = []
                for name, value in set_.items():
                    pairs += (name, bytes(value))
                for at in range(0, len(pairs), 1_000):
                    sink.do("HSET", tier, *pairs[at : at + 1_000])
            if drop:
                sink.do("HSET", tier, "", "")  # so that it stays while its last keys go
                for at in range(0, len(drop), 1_000):
                    sink.do("HDEL", tier, *drop[at : at + 1_000])
            if set_ and user is not None:
                sink.do("ZADD", self._keys.users(route, app), 0, user)
            if set_:
                sink.do("SADD", self._keys.apps(route), app)

    def _list(self, old: Header | None, new: Header | None, row: Row) -> None:
        """Bring the orders in line with a header that changed."""
        header = new or old
        assert header is not None, "a session was there, or is now"
        app, member = header.app, row.place + header.id
        before = positions(old) if old else set()
        after = positions(new) if new else set()
        for facet, phase in after:
            if (facet, phase) not in before:
                created = self._keys.listed(row.route, app, facet, phase, "created")
                self.main.do("ZADD", created, int(row.place, 16), member)
                self.main.do("tally", self._keys.tally(row.route, app, facet), phase, 1)
            elif old is not None and old.active_at == header.active_at:
                continue
            active = self._keys.listed(row.route, app, facet, phase, "active")
            self.main.do("ZADD", active, header.active_at, member)
        for facet, phase in before - after:
            self.main.do("tally", self._keys.tally(row.route, app, facet), phase, -1)
            for order in ("created", "active"):
                self.main.do("ZREM", self._keys.listed(row.route, app, facet, phase, order), member)
        for key, when in (
            (self._keys.due(row.route, app), due_at),
            (self._keys.overdue(row.route, app), overdue_at),
        ):
            was, is_ = when(old), when(new)
            if is_ is not None and is_ != was:
                self.main.do("ZADD", key, is_, member)
            elif was is not None and is_ is None:
                self.main.do("ZREM", key, member)

    def _free(self, claim: Claim, holder: Header, row: Row) -> None:
        route = routes.of_claim(holder.app, claim)
        key = self._keys.claim(route, holder.app, claim)
        self._at(route, "notes").do("strike", key, holder_text(holder, row.route))

    # --- removing ------------------------------------------------------------------------------

    def _remove(self, unit: Unit, root: Key) -> None:
        """Remove a session and those below it; all of a family are in one route."""
        self._once(secrets.token_hex(8))
        for key, loaded in (*unit.below, (root, unit.old)):
            self._check_member(key, loaded)
        family = {root, *(key for key, _ in unit.below)}
        for key, loaded in (*unit.below, (root, unit.old)):
            self._remove_member(key, loaded, family)

    def _check_member(self, key: Key, loaded: Loaded | None) -> None:
        route = self.main.route
        if loaded is not None:
            session = self._keys.session(route, *key)
            self.main.check("session", session, loaded.header.epoch, loaded.version)
        below = self._known.children.get(key, ())
        self.main.check("children", self._keys.children(route, *key), len(below))

    def _remove_member(self, key: Key, loaded: Loaded | None, family: set[Key]) -> None:
        route, (app, id) = self.main.route, key
        session = self._keys.session(route, app, id)
        self.main.do("wake", session, self._keys.channel(app, id))
        owned = self._keys.owned(route, app, id)
        for name in (session, *owned, self._keys.children(route, app, id)):
            self.main.do("UNLINK", name)
        self.main.do("ZREM", self._keys.docdue(route, app), id, f"{RETURNING}{id}")
        if loaded is None:
            return
        old, row = loaded.header, loaded.row
        self._list(old, None, row)
        if old.parent is not None and (app, old.parent) not in family:
            self.main.do("ZREM", self._keys.children(route, app, old.parent), id)
        if row.note:
            home = routes.of_id(app, id)
            self._at(home, "notes").do("strike", self._keys.note(home, app, id), row.note)
        claim = commit.claim_of(old)
        if claim is not None and old.phase not in OVER:
            self._free(claim, old, row)

    # --- what belongs to no session ------------------------------------------------------------

    def _share(self, unit: Unit) -> None:
        route = self.main.route
        assert unit.op is not None, "nothing else tells whether it was applied"
        self._once(unit.op.hex())
        if unit.documents:
            owned = self._keys.owned(route, unit.app, "")
            docdue = self._keys.docdue(route, unit.app)
            write_documents(self.main, unit.documents, owned, (docdue, ""))
            self.main.do("SADD", self._keys.apps(route), unit.app)
        self._tiers(unit.tiers)


def row_of(guard: Guard) -> Row:
    """Return where the session is that a unit is guarded by."""
    assert isinstance(guard.row, Row), "this backend read it"
    return guard.row


def _row(unit: Unit) -> Row:
    assert unit.old is not None, "only a session that was read has a row"
    assert isinstance(unit.old.row, Row), "this backend read it"
    return unit.old.row


def _route_of_shared(unit: Unit) -> Route:
    """Return the route of a write that belongs to no session: the app's, if it has a part in it."""
    users = [change.user for change in unit.tiers]
    if unit.documents or None in users or not users:
        return routes.of_app(unit.app)
    return routes.of_user(unit.app, str(users[0]))


def _birth(header: Header, version: int, row: Row) -> list[str | bytes | int]:
    """Return the fields that a session begins with."""
    fields: list[str | bytes | int] = [
        "head",
        rows.head_text(header, rows.fixed_text(header)),
        "ops",
        header.remembered,
        "v",
        version,
        "epoch",
        header.epoch,
        "phase",
        header.phase.value,
        "place",
        row.place,
    ]
    return [*fields, "note", row.note] if row.note else fields
