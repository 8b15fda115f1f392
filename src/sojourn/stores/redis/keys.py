"""The names of keys: `prefix:{tag}:kind:app:…`, every name escaped, so that no two meet.

session:app:id      hash    the session: `head` and `state` as JSON, and what scripts compare
log:app:id          list    its events as JSON, the oldest first
ids:app:id          hash    event id to numbers, for events that are sent again
kinds:app:id        string  one byte for each event: which of the session's kinds it has
docs:app:id         hash    documents: facts as JSON, by collection and key (id is empty: the app's)
dockeys, docplaces  zset    the documents of each collection by key, and by their places
bodies:app:id       hash    their bodies, the beginning of each in a field of its own
children:app:id     zset    ids of children, as they were created
list:app:facet      hash    how many sessions of a facet there are, by phase
list:app:facet:phase:order  zset  those in one phase, by activity or creation
due:app, overdue:app        zset  when sessions are due; deadlines that differ from that
docdue:app          zset    owners of documents that expire, by the first deadline; behind a zero
                            byte those whose documents a sweep is going through
tier:app:user       hash    a user's tier, value by name, as JSON (user is empty: the app's)
users:app           zset    users that have a tier in this route
routes:app:user     set     other routes that have sessions of a user
apps                set     apps that have something in this route
note:app:id         string  where a session is that is not at the home of its id
claim:app:…         string  who holds an exclusive claim
outbox:app          list    what a commit has still to do in other routes
sent:app            hash    numbers of the outbox
marks               hash    by route: the last of its outbox that was done here
done:op             string  an operation that belongs to no session was applied
refused:op          string  an operation that must not create its session any more
staged…             the parts of a session that is being put here from elsewhere
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sojourn.stores.redis.routes import ROUTES, TAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sojourn.lifecycle import Phase
    from sojourn.stores.planning import Claim
    from sojourn.stores.redis.errands import Box
    from sojourn.stores.redis.routes import Route

NAMES_REMEMBERED = 4_096
"""Sessions whose keys are remembered, less than a kilobyte each: who writes once writes again."""

RETURNING = "\0"
"""What stands before an owner in `docdue` that comes back if its sweep is not gone on with."""

ESCAPED_REMEMBERED = 4_096
"""Names whose escaped form is remembered: apps, users and labels come again and again."""


@lru_cache(maxsize=ESCAPED_REMEMBERED)
def escaped(name: str) -> str:
    """Return a name without colons, so that it can be one part of a key."""
    if ":" in name or "%" in name:
        return name.replace("%", "%25").replace(":", "%3A")
    return name


def unescaped(part: str) -> str:
    """Return the name that a part of a key stands for."""
    return part.replace("%3A", ":").replace("%25", "%")


class Owned(NamedTuple):
    """The keys of what one session, or an app, owns."""

    log: str
    ids: str
    kinds: str
    docs: str
    dockeys: str
    docplaces: str
    bodies: str


class Names(NamedTuple):
    """The keys that nearly every write of a session takes; `lists` is what orders begin with."""

    session: str
    log: str
    ids: str
    kinds: str
    due: str
    lists: str
    channel: str


class Shared(NamedTuple):
    """The keys that a write to a user's tier takes."""

    tier: str
    users: str
    apps: str


class Keys:
    """The names of all keys of one store."""

    def __init__(self, prefix: str) -> None:
        """`prefix` is what every key begins with, without braces."""
        self.prefix = prefix
        self._heads = [f"{prefix}:{{{TAGS[route]}}}:" for route in range(ROUTES)]
        remembered = lru_cache(maxsize=NAMES_REMEMBERED)
        self.names: Callable[[Route, str, str], Names] = remembered(self._names)
        """Returns the keys that nearly every write of a session takes, of its route, app and id."""
        self.shared: Callable[[Route, str, str], Shared] = remembered(self._shared)
        """Returns the keys that a write to a user's tier takes, of its route, app and user."""
        self.orders: Callable[[Route, str, str | None, Phase], tuple[str, ...]]
        self.orders = remembered(self._orders)
        """Returns the orders by activity that every session stands in, of its route, app, user
        and phase."""

    def head(self, route: Route) -> str:
        """Return what every key of a route begins with."""
        return self._heads[route]

    def _shared(self, route: Route, app: str, user: str) -> Shared:
        return Shared(self.tier(route, app, user), self.users(route, app), self.apps(route))

    def _orders(self, route: Route, app: str, user: str | None, phase: Phase) -> tuple[str, ...]:
        facets = ("all", user_facet(user))
        return tuple(self.listed(route, app, each, phase.value, "active") for each in facets)

    def _names(self, route: Route, app: str, id: str) -> Names:
        head, app = self._heads[route], escaped(app)
        name = f":{app}:{escaped(id)}"
        return Names(
            f"{head}session{name}",
            f"{head}log{name}",
            f"{head}ids{name}",
            f"{head}kinds{name}",
            f"{head}due:{app}",
            f"{head}list:{app}:",
            f"{self.prefix}:changed{name}",
        )

    def session(self, route: Route, app: str, id: str) -> str:
        """Return the key of a session itself."""
        return f"{self._heads[route]}session:{escaped(app)}:{escaped(id)}"

    def owned(self, route: Route, app: str, id: str) -> Owned:
        """Return the keys of what a session owns; `id=""` is the app."""
        head, name = self._heads[route], f":{escaped(app)}:{escaped(id)}"
        return Owned._make(f"{head}{kind}{name}" for kind in Owned._fields)

    def log(self, route: Route, app: str, id: str) -> str:
        """Return the key of a session's events."""
        return f"{self._heads[route]}log:{escaped(app)}:{escaped(id)}"

    def ids(self, route: Route, app: str, id: str) -> str:
        """Return the key of the numbers of a session's events, by their ids."""
        return f"{self._heads[route]}ids:{escaped(app)}:{escaped(id)}"

    def kinds(self, route: Route, app: str, id: str) -> str:
        """Return the key of the kinds of a session's events."""
        return f"{self._heads[route]}kinds:{escaped(app)}:{escaped(id)}"

    def children(self, route: Route, app: str, id: str) -> str:
        """Return the key of the children of a session."""
        return f"{self._heads[route]}children:{escaped(app)}:{escaped(id)}"

    def tally(self, route: Route, app: str, facet: str) -> str:
        """Return the key of how many sessions of a facet there are; `facet` is escaped already."""
        return f"{self._heads[route]}list:{escaped(app)}:{facet}"

    def listed(self, route: Route, app: str, facet: str, phase: str, order: str) -> str:
        """Return the key of an index; `facet` is escaped already, `order` active or created."""
        return f"{self._heads[route]}list:{escaped(app)}:{facet}:{phase}:{order}"

    def due(self, route: Route, app: str) -> str:
        """Return the key of an app's sessions by the time they are due."""
        return f"{self._heads[route]}due:{escaped(app)}"

    def overdue(self, route: Route, app: str) -> str:
        """Return the key of the deadlines of sessions that are due at another time."""
        return f"{self._heads[route]}overdue:{escaped(app)}"

    def docdue(self, route: Route, app: str) -> str:
        """Return the key of owners of documents that expire."""
        return f"{self._heads[route]}docdue:{escaped(app)}"

    def tier(self, route: Route, app: str, user: str | None) -> str:
        """Return the key of a user's tier, or the app's."""
        return f"{self._heads[route]}tier:{escaped(app)}:{escaped(user or '')}"

    def users(self, route: Route, app: str) -> str:
        """Return the key of the users that have a tier here."""
        return f"{self._heads[route]}users:{escaped(app)}"

    def routes(self, route: Route, app: str, user: str) -> str:
        """Return the key of the other routes that have sessions of a user."""
        return f"{self._heads[route]}routes:{escaped(app)}:{escaped(user)}"

    def apps(self, route: Route) -> str:
        """Return the key of the apps that have something here."""
        return f"{self._heads[route]}apps"

    def note(self, route: Route, app: str, id: str) -> str:
        """Return the key of the note that says where a session is."""
        return f"{self._heads[route]}note:{escaped(app)}:{escaped(id)}"

    def claim(self, route: Route, app: str, claim: Claim) -> str:
        """Return the key of the note that says who holds a claim."""
        parts: Iterable[str] = (escaped(part) for pair in claim for part in pair)
        return f"{self._heads[route]}claim:{escaped(app)}:{':'.join(parts)}"

    def outbox(self, box: Box) -> tuple[str, str]:
        """Return the keys of an outbox, and of its numbers."""
        head, name = self._heads[box.route], f"{box.about}:{escaped(box.app)}"
        return f"{head}outbox:{name}", f"{head}sent:{name}"

    def marks(self, route: Route) -> str:
        """Return the key of what was done here for other routes."""
        return f"{self._heads[route]}marks"

    def mark(self, box: Box) -> str:
        """Return the field of `marks` that stands for an outbox."""
        return f"{box.route}:{box.about}:{escaped(box.app)}"

    def refused(self, route: Route, op: str) -> str:
        """Return the key that keeps an operation from creating its session."""
        return f"{self._heads[route]}refused:{op}"

    def done(self, route: Route, op: str) -> str:
        """Return the key that says that an operation which belongs to no session was applied."""
        return f"{self._heads[route]}done:{op}"

    def staged(self, route: Route, app: str, id: str) -> Owned:
        """Return the keys of the parts that were put of a session so far."""
        head, name = self._heads[route], f":{escaped(app)}:{escaped(id)}"
        return Owned._make(f"{head}staged-{kind}{name}" for kind in Owned._fields)

    def scratch(self, route: Route, token: str) -> Owned:
        """Return the keys of a copy of what a session owns."""
        head = self._heads[route]
        return Owned._make(f"{head}copy-{kind}:{token}" for kind in Owned._fields)

    def scratch_session(self, route: Route, token: str) -> str:
        """Return the key of a copy of a session."""
        return f"{self._heads[route]}copy-session:{token}"

    def parts(self, route: Route, app: str, id: str) -> str:
        """Return the key that says in which route parts of a session were put."""
        return f"{self._heads[route]}parts:{escaped(app)}:{escaped(id)}"

    def staging(self, route: Route, app: str) -> tuple[str, str]:
        """Return the keys of the restores in progress by id, and by when they are abandoned."""
        head, name = self._heads[route], escaped(app)
        return f"{head}staging:{name}", f"{head}abandoned:{name}"

    def channel(self, app: str, id: str) -> str:
        """Return the channel that says that a session has changed."""
        return f"{self.prefix}:changed:{escaped(app)}:{escaped(id)}"


def label_facet(name: str, value: str) -> str:
    """Return the facet of the sessions with a label, as a part of keys."""
    return f"label:{escaped(name)}:{escaped(value)}"


def user_facet(user: str | None) -> str:
    """Return the facet of a user's sessions, or of the anonymous ones, as a part of keys."""
    return "anonymous" if user is None else f"user:{escaped(user)}"
