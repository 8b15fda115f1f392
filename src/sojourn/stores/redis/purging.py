"""Taking out of the indexes what can not be read, and so does not say where it is listed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sojourn.stores.redis import routes
from sojourn.stores.redis.client import Call, check
from sojourn.stores.redis.keys import RETURNING
from sojourn.stores.redis.request import Request
from sojourn.stores.redis.spots import spot_in

if TYPE_CHECKING:
    from sojourn.stores.planning import Key
    from sojourn.stores.redis.client import Client
    from sojourn.stores.redis.keys import Keys
    from sojourn.stores.redis.rows import Unreadable

SCANNED = 1_000
"""Keys that a server looks at before it answers other calls."""

_SPECIAL = re.compile(r"([*?\[\]\\^-])")


async def purge(client: Client, keys: Keys, key: Key, found: Unreadable, deadline: float) -> None:
    """Remove a session that is gone from every order of its route, and its note.

    This walks through all keys of a server, so it is only for what could not be read.
    """
    app, id = key
    route, head = found.route, keys.head(found.route)
    pattern = _SPECIAL.sub(r"\\\1", head) + "*"
    cursor: bytes | int = 0
    while True:
        call = Call(route, ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED, "TYPE", "zset"))
        ((cursor, names),) = await client.ask([call], deadline)
        request = Request(route)
        for name in names:
            _unlist(request, name.decode(), head, found.place + id, id)
        if request.commands:
            check(await client.run([request.call()], deadline, lane="write"))
        if int(cursor) == 0:
            break
    home = routes.of_id(app, id)
    note = keys.note(home, app, id)
    (text,) = await client.ask([Call(home, ("GET", note))], deadline)
    if text is not None and spot_in(text).route == route:
        request = Request(home)
        request.do("strike", note, text)
        check(await client.run([request.call()], deadline, lane="write"))


def _unlist(request: Request, name: str, head: str, member: str, id: str) -> None:
    """Add what removes a session from one order."""
    kind = name.removeprefix(head).partition(":")[0]
    if kind == "list":
        tally, phase, _ = name.rsplit(":", 2)
        if name.endswith(":created"):
            request.do_on("unlist", (name, tally), member, phase)
        else:
            request.do("ZREM", name, member)
    elif kind in ("due", "overdue"):
        request.do("ZREM", name, member)
    elif kind in ("children", "docdue"):
        request.do("ZREM", name, id, f"{RETURNING}{id}")
