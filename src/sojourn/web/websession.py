"""The session in a request's hands: a mapping of its state, and what one can do with a login."""

from __future__ import annotations

import hmac
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from sojourn.errors import AuthNeeded, InvalidId, InvalidQuery, TooLarge, Unavailable
from sojourn.session import Merging
from sojourn.timestamps import from_seconds, to_datetime
from sojourn.web import facts
from sojourn.web.facts import Auth, Device, Flash, TokenFacts
from sojourn.web.tokens import derived, digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from sojourn.expiry import Expiry
    from sojourn.session import Session
    from sojourn.web.admission import Admission
    from sojourn.web.devices import DeviceSession
    from sojourn.web.notices import Source
    from sojourn.web.tokens import Token

MAX_FLASHES = 50
"""Most flash messages that wait: more than anybody reads, and a page that never shows them must not
fill the session."""

CSRF = "csrf"


class Plan(NamedTuple):
    """What the next save does beside the state: a new token, and a login if there is a user.

    `grace` is how long the token before is honoured, in seconds. A plan that is not `firm` is
    dropped where somebody else was faster. `token` is the new one where it had to be known before.
    """

    firm: bool = True
    grace: float = 0.0
    user: str | None = None
    auth: Auth | None = None
    remember: bool | None = None
    labels: Mapping[str, str | None] | None = None
    token: Token | None = None


class WebSession(Merging):
    """What `request.session` is: a mapping, lazy and dirty-tracked, with the verbs of a login.

    Nothing is stored until a key is set, and then what changed is, key by key. Keys that begin with
    `~` are the library's own. Where the store can not be asked and the route allows that,
    `available` is false, it is empty, and setting a key raises `Unavailable`.
    """

    __slots__ = (
        "__weakref__",
        "_admission",
        "accessed",
        "available",
        "erase",
        "expiry",
        "held",
        "issued",
        "leaving",
        "over",
        "plan",
        "sealed",
        "source",
        "token",
    )

    def __init__(
        self,
        admission: Admission,
        source: Source,
        session: Session | None = None,
        token: Token | None = None,
        *,
        available: bool = True,
    ) -> None:
        """Made by the middleware: of a session that a token has opened, or of none yet."""
        self._admission = admission
        self.source = source
        """Where the request comes from."""
        self.held = session
        """The session behind it, for the library: looking here counts as no access."""
        self.token = token
        """The token that opens it; never shown."""
        self.plan: Plan | None = None
        """What the next save does beside the state."""
        self.expiry: Expiry | None = None
        """How long it lasts from the next save on; `None` leaves that as it is."""
        self.leaving: Session | None = None
        """A session that ends with the next save."""
        self.erase = False
        """Whether the browser has still to be told that its token is dead."""
        self.accessed = False
        """Whether anything looked at it: then the response differs from browser to browser."""
        self.available = available
        """Whether the store could be asked."""
        self.issued: Token | None = None
        """A token that the browser has not been given yet."""
        self.sealed = False
        """Whether the browser can be told nothing any more: the response has begun."""
        self.over = False
        """Whether somebody else has ended the session that was held here."""

    def __repr__(self) -> str:
        """Show what it is, and nothing that is in it."""
        held = self.held
        stored = held is not None and held.stored
        kind = "stored" if stored else "new"
        owned = " of a user" if held is not None and held.user is not None else ""
        return f"<WebSession {kind if self.available else 'unavailable'}{owned}>"

    def seal(self) -> None:
        """Note that the response has begun: the library calls this.

        From then on no token reaches the browser: none is issued, and a session that is begun now
        can not be stored.
        """
        self.sealed = True
        self.plan = None

    # --- the mapping ---------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; `KeyError` when it is not there."""
        self.accessed = True
        if self.held is None or _is_reserved(key):
            raise KeyError(key)
        return self.held.state[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        self.accessed = True
        held = self.held
        if held is None or key[:1] == facts.RESERVED:
            return default
        return held.state.get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key. `InvalidId` for a bad or reserved one, `Unavailable` without a store.

        The value is checked when it is saved.
        """
        if _is_reserved(key):
            raise InvalidId("state key", f"keys that begin with {facts.RESERVED} are reserved")
        self.begun().state[key] = value

    def __delitem__(self, key: str) -> None:
        """Remove a key; `KeyError` when it is not there."""
        self.accessed = True
        if self.held is None or _is_reserved(key):
            raise KeyError(key)
        del self.held.state[key]

    def __contains__(self, key: object) -> bool:
        """Return whether a key is there."""
        self.accessed = True
        return self.held is not None and not _is_reserved(key) and key in self.held.state

    def __iter__(self) -> Iterator[str]:
        """Yield the keys of the application."""
        self.accessed = True
        if self.held is not None:
            yield from (key for key in self.held.state if not _is_reserved(key))

    def __len__(self) -> int:
        """Return how many keys the application has set."""
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """Return whether there is anything in it: a key, or a login."""
        return self.user is not None or any(True for _ in self)

    def clear(self) -> None:
        """Drop everything, a login too: the session is ended with the next save.

        What is set afterwards goes into a new session with a new token.
        """
        self.accessed = True
        session, self.held = self.held, None
        self.plan = self.token = self.issued = self.expiry = None
        if session is not None and session.stored:
            self.leaving = session
            self.erase = True

    def mark_accessed(self) -> None:
        """Note that the application has looked: Starlette calls this."""
        self.accessed = True

    # --- what it is ----------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """The session behind it, `None` while there is none: its log, documents and labels."""
        self.accessed = True
        return self.held

    @property
    def id(self) -> str | None:
        """The session's id. It is no secret: it opens nothing without the token."""
        self.accessed = True
        return None if self.held is None else self.held.id

    @property
    def user(self) -> str | None:
        """Who is logged in, `None` while nobody is."""
        self.accessed = True
        if self.plan is not None and self.plan.user is not None:
            return self.plan.user
        return None if self.held is None else self.held.user

    @property
    def new(self) -> bool:
        """Whether it is not stored yet."""
        self.accessed = True
        return self.held is None or not self.held.stored

    @property
    def modified(self) -> bool:
        """Whether a save would write."""
        if self.plan is not None or self.leaving is not None:
            return True
        held = self.held
        return held is not None and (self.expiry is not None or held.state.modified)

    @property
    def auth(self) -> Auth | None:
        """When and how the user logged in, `None` while nobody is."""
        self.accessed = True
        if self.plan is not None and self.plan.auth is not None:
            return self.plan.auth
        if self.held is None or self.held.user is None:
            return None
        return facts.read(self.held.state, facts.AUTH, Auth)

    @property
    def expires_at(self) -> datetime | None:
        """When it ends unless it is used again, `None` for never or not yet."""
        self.accessed = True
        return None if self.held is None else self.held.expires_at

    @property
    def time_left(self) -> timedelta | None:
        """How long it lasts if it is not used again: for a warning before the end."""
        at = self.expires_at
        return None if at is None else at - to_datetime(self._admission.sessions.now())

    @property
    def longest_at(self) -> datetime | None:
        """When it ends however much it is used, `None` for never or not yet."""
        self.accessed = True
        at = None if self.held is None else self.held.header.absolute_at
        return None if at is None else to_datetime(at)

    # --- logging in and out --------------------------------------------------------------------

    async def login(
        self,
        user: str,
        *,
        auth: str | Sequence[str] = (),
        level: int = 0,
        remember: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Make it `user`'s: with the next save it has a new token, and its deadlines begin anew.

        The old token is dead then, and what an anonymous visitor had in the session stays. `auth`
        says how (`"pwd"`, or several), `level` how strong that was; `remember` lets the cookie
        outlive the browser; `labels` find the session again (the `sid` of an identity provider).
        Somebody else's session is ended first. With a cap that refuses it is stored at once. Raises
        `TooManySessions` where that cap says so, before anything has changed, `InvalidId`,
        `InvalidQuery` once the response has begun, what the store raises, and what `save` does
        where it is stored.
        """
        self.check_available()
        self.check_open()
        methods = (auth,) if isinstance(auth, str) else tuple(auth)
        async with self._admission.entering(self, user) as place:
            before = self.held
            if before is not None and before.user not in (None, user):
                await self.logout(reason="another user logs in")
            self.begun()
            now = self._admission.sessions.now()
            self.plan = Plan(
                user=user,
                auth=Auth(now, methods, level, place if place > now else 0),
                remember=remember,
                labels=labels,
                token=None if self.plan is None else self.plan.token,
            )

    async def logout(self, *, reason: str = "logout") -> None:
        """End the session now, for every request: its token is refused from here on.

        What is set afterwards goes into a new session. Raises what the store does.
        """
        self.clear()
        if self.leaving is not None:
            await self._admission.end(self, self.leaving, reason)
            self.leaving = None

    def rotate(self, *, grace: float = 0.0) -> None:
        """Get a new token with the next save: after any change of what the user may do.

        The old one is dead then, or honoured for `grace` seconds. Raises `InvalidQuery` once the
        response has begun.
        """
        self.check_available()
        self.check_open()
        self.begun()
        if self.plan is None or not self.plan.firm:
            self.plan = Plan(grace=grace, token=None if self.plan is None else self.plan.token)

    def require_recent_auth(self, max_age: float, *, level: int = 0) -> Auth:
        """Return the login if it is no older than `max_age` seconds and strong enough.

        Raises `AuthNeeded` otherwise: ask for the password, then call `login` again.
        """
        auth = self.auth
        if auth is None:
            raise AuthNeeded("nobody is logged in")
        if self._admission.sessions.now() - auth.at > from_seconds(max_age):
            raise AuthNeeded(f"the last login is more than {max_age:g} s ago")
        if auth.level < level:
            raise AuthNeeded(f"the login is of level {auth.level}, and {level} is needed")
        return auth

    # --- the user's devices --------------------------------------------------------------------

    async def devices(self) -> list[DeviceSession]:
        """Return the user's sessions, the one used last first; none while nobody is logged in."""
        return [] if self.user is None else await self._admission.devices.of(self.user, self)

    async def revoke(self, id: str, *, reason: str = "revoked by the user") -> bool:
        """End one of the user's sessions; `False` when there is none of theirs with this id."""
        if self.user is None:
            return False
        if id == self.id:
            await self.logout(reason=reason)
            return True
        return await self._admission.devices.revoke(
            id, user=self.user, reason=reason, source=self.source
        )

    async def revoke_others(self, *, reason: str = "revoked by the user") -> int:
        """End all of the user's sessions but this one; return how many."""
        if self.user is None:
            return 0
        return await self._admission.devices.revoke_all(
            self.user, keep=self.id, reason=reason, source=self.source
        )

    # --- small things that every site needs ----------------------------------------------------

    @property
    def csrf_token(self) -> str:
        """What a form sends back to prove that it is ours. It changes with the token.

        Asking for it begins a session. After `login` or `rotate` it is the one of the new token.
        """
        session = self.begun()
        if self.plan is None or not session.stored:
            return derived(self._hash(), CSRF)
        token = self.plan.token or self._admission.tokens.issue(session.id)
        self.plan = self.plan._replace(token=token)
        return derived(digest(token.secret), CSRF)

    def check_csrf(self, given: object) -> bool:
        """Return whether a form sent back the right value; the one before counts in its grace."""
        self.accessed = True
        if self.held is None or not isinstance(given, str) or not given.isascii():
            return False
        kept = facts.read(self.held.state, facts.TOKEN, TokenFacts)
        if kept is None:
            return False
        hashes = [kept.hash]
        if kept.before is not None and self._admission.sessions.now() < kept.until:
            hashes.append(kept.before)
        return any(hmac.compare_digest(derived(each, CSRF), given) for each in hashes)

    def flash(self, text: str, category: str = "info") -> None:
        """Leave a message for the next page. Raises `TooLarge` with `MAX_FLASHES` waiting."""
        state = self.begun().state
        waiting = self._flash_keys()
        if len(waiting) >= MAX_FLASHES:
            raise TooLarge("flash messages that wait", len(waiting) + 1, MAX_FLASHES)
        last = int(waiting[-1].removeprefix(facts.FLASH)[:16], 16) if waiting else 0
        at = max(self._admission.sessions.now(), last + 1)
        facts.write(state, f"{facts.FLASH}{at:016x}{token_hex(2)}", Flash(text, category))

    def flashes(self, *, keep: bool = False) -> list[Flash]:
        """Return the messages that wait, in order, and drop them unless they are to be kept."""
        self.accessed = True
        found: list[Flash] = []
        for key in self._flash_keys():
            assert self.held is not None  # it has keys
            flash = facts.read(self.held.state, key, Flash)
            if not keep:
                del self.held.state[key]
            found += [flash] if flash is not None else []
        return found

    async def incr(self, key: str, by: float = 1) -> Any:
        """Add to a number, in the store, and return it. Of many at once, each counts.

        A missing key counts from 0. Raises `InvalidQuery` for something that is no number.
        """

        def added(value: Any) -> Any:
            value = 0 if value is None else value
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidQuery(key, "it holds no number")
            return value + by

        _, value = await self._admission.change(self, key, added)
        return value

    async def compare_and_set(self, key: str, old: Any, new: Any) -> bool:
        """Set a key, in the store, if its value is `old` (`None` for missing); say if it was."""
        changed, _ = await self._admission.change(
            self, key, lambda value: new if is_same(value, old) else value, only_if=old
        )
        return changed

    # --- storing -------------------------------------------------------------------------------

    async def save(self) -> None:
        """Store what changed now, rather than when the response begins.

        Raises `Ended` when the session was ended meanwhile (a logout in another tab): nothing was
        written. Raises what `SessionManager.save` does. A token that is issued by this still has
        to reach the browser: call it before the response begins.
        """
        await self._admission.save(self)

    async def refresh(self) -> None:
        """Load it anew; unsaved changes are dropped. Raises `NotFound` when it is gone."""
        if self.held is not None and self.held.stored:
            await self._admission.refresh(self.held)

    def begun(self) -> Session:
        """Return the session behind it; one that is not stored yet where there was none.

        Raises `Unavailable` where the store can not be asked.
        """
        self.accessed = True
        self.check_available()
        if self.held is None:
            token = self._admission.tokens.issue()
            self.held = self._admission.begin(token)
            self._hold(token)
            if self._admission.keeps_device:
                device = Device(self.source.agent[: facts.MAX_AGENT], self.source.address)
                facts.write(self.held.state, facts.DEVICE, device)
        return self.held

    def check_available(self) -> None:
        """Raise `Unavailable` where the store can not be asked: then it is read-only."""
        if not self.available:
            raise Unavailable("sessions", "they can not be asked now; this one is empty, read-only")

    def check_open(self) -> None:
        """Raise `InvalidQuery` once the response has begun: a new token would reach nobody."""
        if self.sealed:
            reason = "the response has begun, and can not bring a new token; do this before"
            raise InvalidQuery("token", reason)

    def _hold(self, token: Token) -> None:
        """Note a new token in a session that is not stored yet."""
        assert self.held is not None  # it was begun
        now, place = self._admission.sessions.now(), self._admission.name
        kept = TokenFacts(hash=digest(token.secret), at=now, place=place)
        facts.write(self.held.state, facts.TOKEN, kept)
        self.token = token
        self.issued = token

    def _hash(self) -> str:
        kept = facts.read(self.begun().state, facts.TOKEN, TokenFacts)
        assert kept is not None  # each has one, from its begin
        return kept.hash

    def _flash_keys(self) -> list[str]:
        if self.held is None:
            return []
        return sorted(key for key in self.held.state if key.startswith(facts.FLASH))


def is_same(value: object, other: object) -> bool:
    """Return whether two values are the same in JSON: 1 is not true there."""
    return value == other and isinstance(value, bool) is isinstance(other, bool)


def _is_reserved(key: object) -> bool:
    return isinstance(key, str) and key.startswith(facts.RESERVED)
