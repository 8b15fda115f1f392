"""Runs Django's own tests of sessions, from its source distribution, against our engine.

`python -m tests.web.django_own_tests FOLDER URL`: the folder is that of Django's tests. It is a
program because Django is configured once in a process.
"""

from __future__ import annotations

import sys
import unittest
from typing import Any

import django
from django.conf import settings

DESELECTED: dict[str, str] = {
    "test_empty_session_saved": "it looks for the row in the table of Django's own model",
    "test_session_update_error_redirect": "it puts Django's own database session in our place",
}
"""Tests of Django's middleware that are about Django's own rows. Of the mixin all are run."""

LEAST = 70
"""There are more tests than this; fewer would mean that some were not found."""


def configure(url: str) -> None:
    """Set Django up, with our engine on a store."""
    settings.configure(
        SECRET_KEY="for tests only, and of some length",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "sessions_tests",
        ],
        SESSION_ENGINE="sojourn.web.django",
        SOJOURN_URL=url,
        USE_TZ=True,
    )
    django.setup()


def suite() -> unittest.TestSuite:
    """Return Django's tests, with our engine in place of its own."""
    from django.test import SimpleTestCase
    from sessions_tests.tests import (  # type: ignore[import-not-found]  # in that folder
        SessionMiddlewareTests,
        SessionTestsMixin,
    )

    from sojourn.web.django import SessionStore

    class EngineTests(SessionTestsMixin, SimpleTestCase):  # type: ignore[misc]  # not typed in there
        """Every test of the mixin that Django runs on each of its engines."""

        backend = SessionStore

        def test_clearsessions(self) -> None:
            """Of a session past its deadline and one before it, one is left."""
            from django.core.management import call_command

            over, live = SessionStore(), SessionStore()
            over.set_expiry(-3600)
            for session in (over, live):
                session["foo"] = "bar"
                session.save()
            call_command("clearsessions")
            assert live.exists(live.session_key)
            assert not over.exists(over.session_key)

    class MiddlewareTests(SessionMiddlewareTests):  # type: ignore[misc]  # not typed in there
        """Those of Django's middleware, with our engine behind it."""

    load = unittest.defaultTestLoader
    found = unittest.TestSuite([load.loadTestsFromTestCase(EngineTests)])
    names = [name for name in load.getTestCaseNames(MiddlewareTests) if name not in DESELECTED]
    found.addTests(MiddlewareTests(name) for name in names)
    return found


def main(folder: str, url: str) -> int:
    """Run them; return 0 if all passed."""
    sys.path.insert(0, folder)
    configure(url)
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    result: Any = unittest.TextTestRunner(verbosity=1).run(suite())
    return 0 if result.wasSuccessful() and result.testsRun > LEAST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
