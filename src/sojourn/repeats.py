"""Repeats, pure: what an operation that was applied before is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sojourn import commit
from sojourn.store import Committed, Create

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Draft, Header
    from sojourn.store import Fork

Reached = Literal["memory", "relaxed", "durable"]
"""How safe an answer says that its commit is."""


def created_before(header: Header, create: Create | Fork, reached: Reached) -> Committed:
    """Return what a create first led to, by the header that is there now.

    Raises `AlreadyExists` if another operation made that session.
    """
    known = commit.recall(header, create.op)
    if known is None:
        raise commit.exists(header, create.header.active_at)
    events = create.events if isinstance(create, Create) else ()
    seqs, _ = first_numbers(events)
    return Committed(
        header=commit.apart(header),
        revision=known[0],
        seqs=seqs,
        durability=reached,
        repeated=True,
    )


def committed_before(
    header: Header, known: tuple[int, int], seqs: tuple[int, ...], reached: Reached
) -> Committed:
    """Return what a change first led to; `known` is what `recall` said of it."""
    revision, before = known
    return Committed(
        header=commit.apart(header),
        revision=revision,
        seqs=seqs,
        before=before,
        durability=reached,
        repeated=True,
    )


def first_numbers(events: Sequence[Draft]) -> tuple[tuple[int, ...], int]:
    """Return the number of each event of a new session, and how many there are without repeats."""
    return commit.sequence(events, 0, _not_stored)


def _not_stored(_draft: Draft) -> None:
    """Nothing is in the log of a new session."""
