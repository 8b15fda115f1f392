"""Facets: the groups of an app's sessions whose counts are kept, and how a write changes them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from sojourn.model import Header
    from sojourn.store import Query

ALL = "all"
"""The facet of every session."""

_encode = msgspec.json.Encoder().encode


def user_facet(user: str | None) -> str:
    """Return the facet of a user's sessions, or of the anonymous ones."""
    return "anonymous" if user is None else f"user {user}"


def label_facet(name: str, value: str) -> str:
    """Return the facet of the sessions with a label."""
    return f"label {_encode((name, value)).decode()}"


def facets_of(header: Header) -> list[str]:
    """Return the facets under which a session is counted."""
    labels = [label_facet(name, value) for name, value in header.labels.items()]
    return [ALL, user_facet(header.user), *labels]


def counted(old: Header | None, new: Header | None) -> dict[tuple[str, str], int]:
    """Return by how much each count, by (facet, phase), changes from one header to another."""
    if old is not None and new is not None and _counts_alike(old, new):
        return {}
    changes: Counter[tuple[str, str]] = Counter()
    for header, by in ((old, -1), (new, 1)):
        for facet in facets_of(header) if header is not None else ():
            changes[facet, header.phase.value] += by  # type: ignore[union-attr]  # it has facets
    return {place: by for place, by in changes.items() if by}


def _counts_alike(old: Header, new: Header) -> bool:
    return old.phase is new.phase and old.user == new.user and old.labels == new.labels


def kept_facet(query: Query) -> str | None:
    """Return the facet whose count is kept for exactly these filters, `None` if none is."""
    by_user = query.user is not None or query.anonymous
    labels = query.labels or {}
    if query.parent is not None or len(labels) + by_user > 1:
        return None
    if by_user:
        return user_facet(query.user)
    for name, value in labels.items():
        return label_facet(name, value)
    return ALL
