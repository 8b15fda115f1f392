"""Policies: what a route does while the store can not be asked, and what a client is told then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sojourn.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

Policy = Literal["required", "optional", "skip"]
"""What a route does while the store is down: refuse (503), go on with an empty read-only session;
or have no session at all."""

FAILURE = 500
"""From this status on a response says that the request failed: nothing of it is stored."""

UNAVAILABLE = 503
"""The status of a refusal."""

REFUSAL = b"Sessions are unavailable. Please try again in a moment.\n"

RETRY_AFTER = b"5"
"""Seconds after which a client may ask again while the store is down."""


class Policies:
    """One policy for all paths, or one by prefix of the path, the longest that fits.

    A prefix fits whole segments: `/static` is for `/static` and `/static/a.css`, not for
    `/static-admin`. One that ends in `/` is for what is below it, `/` for everything.
    """

    def __init__(self, policy: Policy | Mapping[str, Policy]) -> None:
        """Raises `InvalidSetting` for a word that is none, and for a prefix that fits no path.

        What no prefix fits is required.
        """
        by_prefix = {"/": policy} if isinstance(policy, str) else dict(policy)
        for prefix, word in by_prefix.items():
            if word not in ("required", "optional", "skip"):
                reason = f"{word!r} (for {prefix!r}) is none of required, optional, skip"
                raise InvalidSetting("policy", "sessions of the web", reason)
            if prefix and not prefix.startswith("/"):
                reason = f"the prefix {prefix!r} fits no path: it begins with /"
                raise InvalidSetting("policy", "sessions of the web", reason)
        self._only = policy if isinstance(policy, str) else None
        self._longest_first = [
            (prefix, prefix.rstrip("/") + "/", by_prefix[prefix])
            for prefix in sorted(by_prefix, key=len, reverse=True)
        ]

    def of(self, path: str) -> Policy:
        """Return the policy of a path."""
        if self._only is not None:
            return self._only
        for prefix, below, policy in self._longest_first:
            if path == prefix or path.startswith(below) or below == "/":
                return policy
        return "required"
