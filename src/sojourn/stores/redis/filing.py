"""Writes of documents: what puts and drops them, and notes when the first of them expires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.store import Put
from sojourn.stores.redis import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.planning import DocumentChange
    from sojourn.stores.redis.keys import Owned
    from sojourn.stores.redis.request import Request


def write_documents(
    request: Request, changes: Sequence[DocumentChange], owned: Owned, listed: tuple[str, str]
) -> None:
    """Add what puts and drops documents, in order.

    `listed` are the key of the owners of documents that expire, and the owner's name there.
    """
    keys = (owned.docs, owned.dockeys, owned.docplaces, owned.bodies)
    for change, seq, now in changes:
        prefix = rows.collection_prefix(change.collection)
        if isinstance(change, Put):
            expires = "null" if change.expires_at is None else change.expires_at
            facts = rows.facts_text(seq, len(change.body), change.content_type)
            body = rows.parts_of(change.body)
            request.size += len(change.body)
            request.do_on("put", keys, prefix, change.key, facts, now, now, expires, "", *body)
        elif change.key is None:
            request.do_on("drop", keys, prefix)
        else:
            request.do_on("drop", keys, prefix, change.key)
    puts = (change.change for change in changes if isinstance(change.change, Put))
    end = min((put.expires_at for put in puts if put.expires_at is not None), default=None)
    if end is not None:
        docdue, owner = listed
        request.do("ZADD", docdue, "LT", end, owner)
