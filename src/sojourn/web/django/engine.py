"""The session engine: a session as Django knows it, over the web session that everybody shares."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.serializers import JSONSerializer

from sojourn import codec
from sojourn.errors import NotFound, SojournError, Unavailable, WouldBlock
from sojourn.expiry import Expiry
from sojourn.reaper import Reaper
from sojourn.web.blocking import Face
from sojourn.web.django.configuration import opened, setting
from sojourn.web.notices import NOWHERE, Source
from sojourn.web.values import Values
from sojourn.web.websession import WebSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.web.admission import Admission
    from sojourn.web.devices import DeviceSession

T = TypeVar("T")

ABSOLUTE_SECONDS = 30 * 86_400
"""How long a session lasts in all, unless a setting says otherwise: what NIST SP 800-63B allows."""

SHORTEST_SECONDS = 0.000_001
"""How long a session lasts at least that is stored: none is given no deadline by an accident."""

EXPIRY_KEY = "_session_expiry"
"""Where Django keeps what `set_expiry` was told."""

GONE = "The session was ended meanwhile, for example by a logout in another tab."
RENEWED = "The session has a new key by now. What was changed is stored; the old key is dead."


AWAIT = (
    "await its method with an `a` before the name (aget, asave, adevices); once one was awaited, "
    "request.session and current_session() can be read"
)
"""What to do in an async view: a session is read when it is first used, and that waits."""


class _Lenient:
    """Values as Django's JSON sessions keep them: a tuple comes back as a list."""

    def packed(self, value: Any) -> Any:
        """Return a JSON value for a value. Raises `TypeError` for what Django can not keep."""
        return value if codec.is_scalar(value) else json.loads(JSONSerializer().dumps(value))

    def unpacked(self, value: Any) -> Any:
        """Return the value."""
        return value


_LENIENT = _Lenient()


class SessionStore(Face, SessionBase):
    """A session as Django knows it. Its `session_key` is the token; the store has only a hash.

    What changed is saved key by key, changes inside a value too. `cycle_key` takes effect with the
    save, in the same commit, so that a response that fails after it logs nobody out.
    """

    def __init__(self, session_key: str | None = None) -> None:
        """`session_key` is what a browser presents; it counts only if it was issued here."""
        self._session_cache: Values
        self._flag = False
        self._seen = 0
        self._unread = False
        self._sealed = False
        self._replaced: str | None = None
        self.others: tuple[str, ...] = ()
        """Further keys that the browser presents: the first valid one counts."""
        self.source: Source = NOWHERE
        """Where the request comes from."""
        self.required = True
        """Whether there is an error, rather than an empty session, while the store is down."""
        self.trouble: SojournError | None = None
        """Why the store could not be asked, if it could not."""
        self.unsaved = False
        """Whether something could not be stored."""
        self.issued: str | None = None
        """A key that is stored and that the browser has not been told yet."""
        super().__init__(session_key)

    def __repr__(self) -> str:
        """Show what it is, and nothing that is in it."""
        values = self._cached()
        return "<SessionStore>" if values is None else repr(values.web).replace("Web", "")

    # --- what Django's base builds on ----------------------------------------------------------

    def _cached(self) -> Values | None:
        return cast("Values | None", self.__dict__.get("_session_cache"))

    @property
    def modified(self) -> bool:
        """Whether there is something to save. Changes inside a value count as well."""
        values = self._cached()
        if self._flag or values is None:
            return self._flag
        return values.writes > self._seen or values.changed_inside or values.web.plan is not None

    @modified.setter
    def modified(self, value: bool) -> None:
        values = self._cached()
        self._flag = value
        self._seen = 0 if values is None else values.writes

    def _get_session(self, no_load: bool = False) -> Values:  # noqa: FBT001, FBT002 - the shape is Django's
        """Return the values, loaded when they are first asked for."""
        self.accessed = True
        values = self._cached()
        if values is None:
            unknown = self.session_key is None or no_load
            values = self._session_cache = self._fresh() if unknown else self.load()
            self._keep_sealed(values)
        return values

    async def _aget_session(self, no_load: bool = False) -> Values:  # noqa: FBT001, FBT002 - the shape is Django's
        self.accessed = True
        values = self._cached()
        if values is None:
            unknown = self.session_key is None or no_load
            values = self._session_cache = self._fresh() if unknown else await self.aload()
            self._keep_sealed(values)
        return values

    def seal(self) -> None:
        """Note that the response has begun: no key is issued from then on."""
        self._sealed = True
        values = self._cached()
        if values is not None:
            values.web.seal()

    def _keep_sealed(self, values: Values) -> None:
        if self._sealed:  # by a stream, which is the first that looks
            values.web.seal()

    _session = property(_get_session)

    def _held_values(self) -> Values:
        return self._get_session()

    def _run(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        try:
            return opened.get().run(work)
        except WouldBlock as error:
            raise WouldBlock("request.session", AWAIT) from error

    async def _awaited(self, work: Callable[[Admission], Awaitable[T]]) -> T:
        return await opened.get().awaited(work)

    def _fresh(self) -> Values:
        return Values(WebSession(opened.get().here, self.source), _LENIENT)

    def _has_expiry(self, values: Values) -> Expiry:
        """Return how long the session is to last from now on."""
        custom = values.get(EXPIRY_KEY)
        age = self.get_expiry_age(expiry=custom)
        if isinstance(custom, str):
            return Expiry(absolute=age)
        absolute = setting("ABSOLUTE_AGE", max(ABSOLUTE_SECONDS, self.get_session_cookie_age()))
        held = values.web.held
        if held is not None and held.stored and held.header.absolute_at is not None:
            left = (held.header.absolute_at - opened.get().here.sessions.now()) / 1_000_000
            login = values.web.plan is not None and values.web.plan.user is not None
            absolute = absolute if login else max(left, SHORTEST_SECONDS)
        return Expiry(idle=age, absolute=absolute)

    # --- loading -------------------------------------------------------------------------------

    def load(self) -> Values:  # type: ignore[override]  # there it is a dict
        """Return the values. A key that opens nothing is dropped, and none is stored for it."""
        try:
            return self._loaded(self._run(self._admitted))
        except WouldBlock:
            raise
        except SojournError as error:
            return self._unavailable(error)

    async def aload(self) -> Values:  # type: ignore[override]  # there it is a dict
        """Do the same in an event loop."""
        try:
            return self._loaded(await self._awaited(self._admitted))
        except SojournError as error:
            return self._unavailable(error)

    async def _admitted(self, admission: Admission) -> WebSession:
        first = [] if self.session_key is None else [self.session_key]
        return await admission.admit([*first, *self.others], self.source)

    def _loaded(self, web: WebSession) -> Values:
        token = web.token
        self._session_key = None if token is None else opened.get().here.tokens.write(token)
        return Values(web, _LENIENT)

    def _unavailable(self, error: SojournError) -> Values:
        self._note(error)
        web = opened.get().here.unavailable(self.source)
        self._session_cache = Values(web, _LENIENT)  # whoever shows the error page looks again
        if self.required:
            raise error
        return self._session_cache

    def _note(self, error: SojournError) -> None:
        self.trouble = error
        opened.get().note_trouble(error, self.source)

    def exists(self, session_key: str | None) -> bool:
        """Return whether a key opens a session. One that the next save replaces does not."""
        return self._run(partial(self._opens, session_key=session_key))

    async def aexists(self, session_key: str | None) -> bool:
        """Do the same in an event loop."""
        return await self._awaited(partial(self._opens, session_key=session_key))

    async def _opens(self, admission: Admission, session_key: str | None) -> bool:
        if session_key is None or session_key == self._replaced:
            return False
        return await admission.opened_by(session_key) is not None

    # --- saving --------------------------------------------------------------------------------

    def create(self) -> None:
        """Store a new session, with a key of its own and the values that are at hand."""
        self._run(self._created)

    async def acreate(self) -> None:
        """Do the same in an event loop."""
        await self._awaited(self._created)

    async def _created(self, admission: Admission) -> None:
        values = self._cached()
        fresh = self._fresh()
        self._session_cache = fresh if values is None else values.moved_to(fresh.web)
        self._session_key = None
        await self._saved(admission, must_create=True)
        self.modified = True

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - the shape is Django's
        """Store what changed.

        Raises `UpdateError` when the session was ended meanwhile (nothing is stored), or when its
        key was replaced meanwhile by another request (what changed is stored, but the browser must
        not be told the old key again); `CreateError` when `must_create` and it is stored already.
        """
        given = self.session_key
        self._get_session(no_load=must_create)
        self._check_known(given, must_create=must_create)
        self._run(partial(self._saved, must_create=must_create))

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - the shape is Django's
        """Do the same in an event loop."""
        given = self.session_key
        await self._aget_session(no_load=must_create)
        self._check_known(given, must_create=must_create)
        await self._awaited(partial(self._saved, must_create=must_create))

    def _check_known(self, given: str | None, *, must_create: bool) -> None:
        if given is not None and self.session_key is None and not must_create:
            raise UpdateError(GONE)

    async def _saved(self, admission: Admission, *, must_create: bool) -> None:
        if self._unread:
            await self._read(admission)
        values = self._session_cache
        if must_create and not values.web.new:
            raise CreateError
        expires_anew = values.wrote(EXPIRY_KEY)
        values = await self._bound(admission, values)
        web = values.flushed()
        web.begun()
        if (expires_anew or web.new) and self.get_expiry_age(expiry=values.get(EXPIRY_KEY)) <= 0:
            await self._expire(admission, web)
            return
        if expires_anew or web.new or (web.plan is not None and web.plan.user is not None):
            web.expiry = self._has_expiry(values)
        self._flag = self._flag or web.modified
        try:
            await admission.save(web)
        except NotFound as error:
            self.issued = web.issued = None
            admission.notify("lost", web.held, source=self.source, reason=error.reason)
            raise UpdateError(GONE) from error
        finally:  # also where only what comes after a login has failed
            self.issued = admission.reply(web).token or self.issued
        if not await admission.is_current(web):
            self.issued = None
            raise UpdateError(RENEWED)
        assert web.token is not None  # it is stored
        self._session_key = admission.tokens.write(web.token)

    async def _expire(self, admission: Admission, web: WebSession) -> None:
        """End a session that was given a deadline in the past; a new one is not even stored."""
        assert web.held is not None  # it was begun
        assert web.token is not None  # as above
        self._session_key = admission.tokens.write(web.token)
        if web.held.stored:
            await admission.end(web, web.held, "its deadline was set to the past")

    async def _read(self, admission: Admission) -> None:
        """Open the session that was cleared without a look at it."""
        web = await self._admitted(admission)
        if web.held is None:
            self._session_key = None
            raise UpdateError(GONE)
        self._session_cache = self._session_cache.moved_to(web)
        self._unread = False

    async def _bound(self, admission: Admission, values: Values) -> Values:
        """Make the session that of whom `django.contrib.auth` says; a former user's is ended."""
        wanted = values.get(SESSION_KEY)
        user = None if wanted is None else str(wanted)
        before, web = values.web, values.web
        if before.held is not None and before.held.stored and before.held.user not in (None, user):
            web = WebSession(admission, self.source)
            values = self._session_cache = values.moved_to(web)
            await before.logout(reason="another user logs in" if user else "logout")
        if user is not None and (values.wrote(SESSION_KEY) or web.user != user):
            token = None if web.plan is None else web.plan.token
            method = str(values.get(BACKEND_SESSION_KEY, "")).rpartition(".")[2]
            await web.login(user, auth=method or ())
            assert web.plan is not None  # a login makes one
            web.plan = web.plan._replace(token=token)
        return values

    def settle(self) -> bool:
        """Store what changed by itself: what comes too late is dropped, and notice given.

        Return whether the browser may be told the key again. `unsaved` says whether the store
        failed.
        """
        try:
            self.save()
        except UpdateError:
            return False
        except Unavailable as error:
            self._fail(error)
            return False
        return True

    async def asettle(self) -> bool:
        """Do the same in an event loop."""
        try:
            await self.asave()
        except UpdateError:
            return False
        except Unavailable as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: Unavailable) -> None:
        self._note(error)
        self.unsaved = True

    # --- renewing and ending -------------------------------------------------------------------

    def clear(self) -> None:
        """Drop the values; the session stays."""
        values = self._cached()
        if values is None:
            values = self._session_cache = self._fresh()
            self._unread = self.session_key is not None
        values.clear()
        self.accessed = True
        self.modified = True

    def cycle_key(self) -> None:
        """Give the session a new key with the next save; the old one opens nothing then."""
        self._cycle(self._get_session())

    async def acycle_key(self) -> None:
        """Do the same in an event loop."""
        self._cycle(await self._aget_session())

    def _cycle(self, values: Values) -> None:
        web, tokens = values.web, opened.get().here.tokens
        self._replaced = self.session_key
        web.rotate()
        if web.new:
            token = web.token
        else:
            token = tokens.issue(web.id)
            assert web.plan is not None  # a rotation makes one
            web.plan = web.plan._replace(token=token)
        assert token is not None  # it was begun
        self._session_key = tokens.write(token)
        self.modified = True

    def delete(self, session_key: str | None = None) -> None:
        """End the session of a key, this one's by default, for every request."""
        self._run(partial(self._ended, session_key=session_key or self.session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """Do the same in an event loop."""
        await self._awaited(partial(self._ended, session_key=session_key or self.session_key))

    async def _ended(self, admission: Admission, session_key: str | None) -> None:
        if session_key is None:
            return
        values = self._cached()
        session = None
        if values is not None and session_key == self.session_key and not values.web.new:
            session = values.web.held
        else:
            session = await admission.opened_by(session_key)
        if session is not None:
            web = WebSession(admission, self.source)
            await admission.end(web, session, "logout")

    def flush(self) -> None:
        """End the session, and begin a new one, without a key until something is saved."""
        self.delete()
        self._begin_anew()

    async def aflush(self) -> None:
        """Do the same in an event loop."""
        await self.adelete()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._session_cache = self._fresh()
        self._session_key = self.issued = None
        self._unread = False
        self.accessed = True
        self.modified = True

    @classmethod
    def clear_expired(cls) -> None:
        """Remove what is expired: `manage.py clearsessions`. It is done by itself as well."""
        opened.get().run(_swept)

    @classmethod
    async def aclear_expired(cls) -> None:
        """Do the same in an event loop."""
        await opened.get().awaited(_swept)

    # --- the user's sessions, and atomic changes, in an event loop ------------------------------

    async def _averb(self, work: Callable[[WebSession], Awaitable[T]]) -> T:
        web = (await self._aget_session()).flushed()
        try:
            return await self._awaited(lambda _admission: work(web))
        finally:
            self._session_cache.forget()

    async def adevices(self) -> list[DeviceSession]:
        """Return the user's sessions, the one used last first."""
        return await self._averb(lambda web: web.devices())

    async def arevoke(self, id: str, *, reason: str = "revoked by the user") -> bool:
        """End one of the user's sessions; `False` when there is none of theirs with this id."""
        return await self._averb(lambda web: web.revoke(id, reason=reason))

    async def arevoke_others(self, *, reason: str = "revoked by the user") -> int:
        """End all of the user's sessions but this one; return how many."""
        return await self._averb(lambda web: web.revoke_others(reason=reason))

    async def aincr(self, key: str, by: float = 1) -> Any:
        """Add to a number, in the store, and return it. Of many at once, each counts."""
        return await self._averb(lambda web: web.incr(key, by))

    async def acompare_and_set(self, key: str, old: Any, new: Any) -> bool:
        """Set a key, in the store, if its value is `old` (`None` for missing); say if it was."""
        return await self._averb(lambda web: web.compare_and_set(key, old, new))


async def _swept(admission: Admission) -> int:
    return await Reaper(admission.sessions).sweep()
