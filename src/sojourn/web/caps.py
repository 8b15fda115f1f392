"""Caps: how many sessions a user may have, and what becomes of one more."""

from __future__ import annotations

from typing import Literal

import msgspec

from sojourn.errors import InvalidSetting


class Cap(msgspec.Struct, frozen=True):
    """At most so many sessions for each user; one login more is refused, or ends the oldest login.

    Raises `InvalidSetting` for a number below 1 and for a rule that is none.
    """

    sessions: int
    rule: Literal["refuse", "end-oldest"] = "end-oldest"

    def __post_init__(self) -> None:
        if type(self.sessions) is not int or self.sessions < 1:
            reason = f"give a whole number from 1, not {self.sessions!r}"
            raise InvalidSetting("sessions", "Cap", reason)
        if self.rule not in ("refuse", "end-oldest"):
            raise InvalidSetting("rule", "Cap", f"{self.rule!r} is none of refuse, end-oldest")
