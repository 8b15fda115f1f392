"""The shop that all examples are: what it sells, who may log in, what is in a session's cart."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Good(NamedTuple):
    """Something to buy. The price is in pence."""

    name: str
    price: int


GOODS = {"tea": Good("Tea", 450), "cup": Good("Cup", 1_200), "kettle": Good("Kettle", 3_900)}

MAX_NOTE = 200
"""Characters of a note that are kept: sessions are no place for novels."""

# A shop in earnest keeps a slow hash of each password (argon2, scrypt), and counts attempts.
PASSWORDS = {"ada": "engine", "grace": "compiler"}


def may_log_in(name: str, password: str) -> bool:
    """Return whether that is the user's password, in the same time for a wrong one."""
    return hmac.compare_digest(PASSWORDS.get(name, "").encode(), password.encode()) and bool(name)


def key(good: str) -> str:
    """Return the key of a session that counts a good.

    Each good has its own: two tabs that change two of them do not get into each other's way.
    """
    return f"cart.{good}"


def cart(session: Mapping[str, Any]) -> dict[str, int]:
    """Return how many of which good are in the cart."""
    counts = {good: session.get(key(good), 0) for good in GOODS}
    return {good: count for good, count in counts.items() if count > 0}


def total(counts: Mapping[str, int]) -> int:
    """Return what a cart costs, in pence."""
    return sum(GOODS[good].price * count for good, count in counts.items())


def price(pence: int) -> str:
    """Return an amount as people write it."""
    return f"£{pence // 100}.{pence % 100:02}"
