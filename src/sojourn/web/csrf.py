"""Forgery: what a request has to send back to prove that one of our own pages sent it."""

from __future__ import annotations

CSRF_HEADER = "x-csrf-token"
"""Where a script sends `WebSession.csrf_token` back."""

CSRF_FIELD = "csrf_token"
"""The field of a form that sends it back."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing, so that nobody has to prove where they come from."""

PLAIN_FORM = "application/x-www-form-urlencoded"
"""A form without files, which is read whole in any case."""

FORMS = (PLAIN_FORM, "multipart/form-data")
"""What a body is that may hold the field."""

CSRF_REFUSAL = "the CSRF token is missing or old: load the page again"
"""What a request without it is told, with a 403."""


def may_hold_field(content_type: str) -> bool:
    """Return whether a body of this type is a form."""
    return content_type.strip().lower().startswith(FORMS)


def is_plain_form(content_type: str) -> bool:
    """Return whether a body of this type is a form without files."""
    return content_type.strip().lower().startswith(PLAIN_FORM)
