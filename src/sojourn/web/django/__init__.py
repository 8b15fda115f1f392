"""Django: `SESSION_ENGINE = "sojourn.web.django"`, and `request.session` is Sojourn's.

`pip install "sojourn[django]"`. It is a session engine like Django's own, sync and async, with
`clearsessions`; the session key is the token, of which only a hash is stored. Login and logout are
those of `django.contrib.auth`; whoever is logged in can list and end their sessions:
`request.session.devices()`.

`sojourn.web.django.SojournMiddleware` takes the place of Django's `SessionMiddleware`. Django's own
works too. Ours notes devices, answers 503 while the store is down, keeps responses with a token out
of caches, and lets a request go on that comes too late to a session which was ended or renewed.

Settings, all but the first optional:

- `SOJOURN_URL`: the store, for example `"sqlite:///sessions.db"`.
- `SOJOURN_SESSIONS`: a `sojourn.blocking.SessionManager` of your own, in place of a store.
- `SOJOURN_APP`: the app whose sessions these are (`"default"`).
- `SOJOURN_ABSOLUTE_AGE`: seconds after which a session ends however much it is used; `None` for
  never. 30 days, or `SESSION_COOKIE_AGE` if that is longer, which is how long it lasts unused.
- `SOJOURN_KEYS`: keys that sign tokens, the newest first (see `sojourn.web.tokens`).
- `SOJOURN_POLICY`: `"required"` or `"optional"`, or one of them by prefix of the path.
- `SOJOURN_RENEW_AFTER`, `SOJOURN_GRACE`, `SOJOURN_TIMEOUT`: seconds, see `sojourn.web.Admission`.
- `SOJOURN_SESSIONS_PER_USER`: with one more, the one that was used longest ago is ended.
- `SOJOURN_KEEP_DEVICE`: whether user agent and address are kept, as a hint for their user (`True`).
- `SOJOURN_ON_NOTICE`: functions, or their dotted names, that are told what befalls sessions;
  `SOJOURN_NOTICE_KEY`: bytes that make the hashes in it the same in all processes.
- `SOJOURN_CLEAR_SITE_DATA`: whether a logout sends that header, with our middleware (`False`).
- `SOJOURN_CLOCK`: a clock, for tests.
"""

from __future__ import annotations

from sojourn.errors import MissingExtra

try:
    import django  # noqa: F401 - to say at once what is missing
except ImportError as error:
    raise MissingExtra("sojourn.web.django", "django") from error

from sojourn.web.django.configuration import devices
from sojourn.web.django.engine import SessionStore
from sojourn.web.django.middleware import SojournMiddleware

__all__ = ["SessionStore", "SojournMiddleware", "devices"]
