"""What was probably meant: the end of a message about a name that nobody knows."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_COMPARED = 64
"""Characters of a name that is compared with the known ones: longer ones are no typing errors."""


def known_names(name: str, known: Iterable[str]) -> str:
    """Return the known names in words, after the one that `name` looks most like, if any."""
    names = sorted(known)
    if not names:
        return "known are: none"
    lowered = {each.lower(): each for each in names}
    near = get_close_matches(name[:LONGEST_COMPARED].lower(), lowered, n=1)
    meant = f"did you mean {lowered[near[0]]!r}? " if near else ""
    return f"{meant}known are: {', '.join(names)}"
