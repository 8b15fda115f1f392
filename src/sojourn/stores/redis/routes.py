"""Routes: which of 256 fixed hash tags a session, a tier or a claim belongs to.

All keys of a route have its tag in braces, so they share a slot of a cluster and one script can
change them all at once. The slots of the tags lie evenly, so that up to some dozens of masters get
equal shares. Neither the tags nor how they are chosen may ever change: data would not be found.
"""

from __future__ import annotations

import binascii
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sojourn.stores.planning import Claim

Route: TypeAlias = int
"""The number of a tag."""

ROUTES = 256
"""How many tags there are: few enough to look at all of them for a list, enough for 32 masters."""

SLOTS = 16_384
"""Slots of a cluster."""

ROUTES_REMEMBERED = 65_536
"""Routes that need not be worked out again: a program uses the same users and ids all the time."""

TAGS = """
021 4zp xbg 8fn 21g csv cj9 z1 1d8 5hq 556 90g 3gn baw 7rh f0y 06q a0h id7 0k6 06p6 69n cny gb0
uh8 qdq 51v 1y7 wkn be7 b8p 3za 4z4 02u eeb 00bb 6yb v9c zu kce 5h5 9md d3k 55r 7kc fmz ft5 jqd
i94 f 0kr amk c3z gz gbt 6dm qd5 0hbm 1ys 512 bes 3cj fpu 72d emk 4kr 465 83d 6t cbt 65c k3 112
5ys hct 9em 32d bpu 7cj fes 8jc aeb 42u 0z4 24 cf4 k2k 2yb 15r qus hg4 1h5 nqd bt5 bmz 3kc 4k6
8ng e0h 46q cb0 60 kw krg 5y7 11v dfa hc0 7za f8p fe7 skn pg6 0ahv 0zp 421 cfp 2p gsv 61g qu7
156 1hq 5d8 b0y 3rh faw 7gn bn 6x6 6ay 2m0 e9q a58 iag 0nf ne6 7j7 77p f1i umh 5ia h7n 91w 247
rt6 6e9 2ip 07a a1x xg7 min fhn 7nw 730 nx9 1ah hni 50f 957 6xr 203 2mt ckm aqt 03e edr 4bk 7js
ner n85 774 hjm 05du 913 54b c2j fj 2i4 kf5 au4 8z5 0jb iec 7n3 3bz f5m 73t 5me 9h4 1xc h3j 7d
6i4 64s g2j mec 4jb i4m 82t 33t b5m 7bz 3n3 u8b 5xc hbd 1me gkm 6mt 603 nc 0bk adr 43e 864 374
j85 jer 3js 14b q0k yd4 dcu 6ip 2e9 jg 647 iin 04gv 820 47a jx9 330 3nw bhn qpg 10f 9d9 5ah 6m0
wh 2x6 60w 4nf 8k7 86p a9q b1i 37p 3j7 je6 y97 9y6 1ia qmh
""".split()  # noqa: SIM905 - 256 lines would say no more
"""The tag of route n has the slot 64 n + 32."""


def slot_of(tag: str) -> int:
    """Return the slot of a cluster that keys with this tag belong to."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


@lru_cache(maxsize=ROUTES_REMEMBERED)
def _route(*names: str) -> Route:
    """Return the route of names, spread evenly. No name holds a control character."""
    return blake2b("\x00".join(names).encode(), digest_size=1).digest()[0]


def of_app(app: str) -> Route:
    """Return where an app's tier and documents are."""
    return _route("app", app)


def of_user(app: str, user: str) -> Route:
    """Return where a user's tier is, and the sessions that began as this user's."""
    return _route("user", app, user)


def of_id(app: str, id: str) -> Route:
    """Return the home of an id: where a session of no user is, or a note says where it is."""
    return _route("id", app, id)


def of_claim(app: str, claim: Claim) -> Route:
    """Return where it is noted who holds an exclusive claim."""
    return _route("claim", app, *(part for pair in claim for part in pair))
