"""From Django's settings to the admission of this process."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.sessions.serializers import JSONSerializer
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from sojourn.errors import InvalidSetting, WouldBlock
from sojourn.web.admission import (
    DEFAULT_EXPIRY,
    GRACE_SECONDS,
    TIMEOUT_SECONDS,
    Admission,
)
from sojourn.web.blocking import Admissions, Devices
from sojourn.web.caps import Cap
from sojourn.web.notices import Notices
from sojourn.web.tokens import Tokens


class _Opened:
    """The admissions of this process's settings: made when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._admissions: Admissions | None = None

    def get(self) -> Admissions:
        """Return them. Raises `ImproperlyConfigured`."""
        admissions = self._admissions
        if admissions is None:
            with self._lock:
                admissions = self._admissions = self._admissions or _admissions()
        return admissions

    def forget(self) -> None:
        """Make them anew when they are next needed: a setting is another one."""
        with self._lock:
            admissions, self._admissions = self._admissions, None
        if admissions is not None:
            try:
                admissions.close()
            except WouldBlock:  # in an event loop: it is stopped when nobody holds it any more
                return


opened = _Opened()


def _changed(**facts: Any) -> None:
    if facts["setting"].startswith(("SOJOURN_", "SESSION_")):
        opened.forget()


setting_changed.connect(_changed)


def _admissions() -> Admissions:
    sessions = setting("SESSIONS", None) or setting("URL", None)
    if not sessions:
        raise ImproperlyConfigured("SOJOURN_URL is not set: say where sessions are stored")
    if import_string(settings.SESSION_SERIALIZER) is not JSONSerializer:
        raise ImproperlyConfigured(
            "SESSION_SERIALIZER has no effect here: sessions are stored key by key, as JSON"
        )
    listeners = [import_string(each) if isinstance(each, str) else each for each in _notices()]
    make = partial(
        Admission,
        tokens=Tokens(setting("KEYS", ())),
        expiry=DEFAULT_EXPIRY,  # each session is given its own
        renew_after=setting("RENEW_AFTER", None),
        grace=setting("GRACE", GRACE_SECONDS),
        timeout=setting("TIMEOUT", TIMEOUT_SECONDS),
        cap=_cap(),
        keep_device=setting("KEEP_DEVICE", True),
        notices=Notices(listeners, setting("NOTICE_KEY", None)),
    )
    if isinstance(sessions, str):
        return Admissions(
            sessions, make, app=setting("APP", "default"), clock=setting("CLOCK", None)
        )
    return Admissions(sessions, make)


def _cap() -> Cap | None:
    most = setting("SESSIONS_PER_USER", None)
    try:
        return None if most is None else Cap(most)
    except InvalidSetting as error:
        raise ImproperlyConfigured(f"SOJOURN_SESSIONS_PER_USER: {error}") from error


def setting(name: str, default: Any) -> Any:
    """Return the setting `SOJOURN_<name>`."""
    return getattr(settings, f"SOJOURN_{name}", default)


def _notices() -> list[Any]:
    return list(setting("ON_NOTICE", ()))


def devices() -> Devices:
    """Return all users' sessions, for administrators: list them, end them."""
    return Devices(opened.get())
