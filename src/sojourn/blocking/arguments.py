"""Arguments that block when they are used, as the async manager takes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, TypeAlias, cast

from sojourn.blocking.hooks import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sojourn.checkpoints.keeping import Source as AsyncSource

Source: TypeAlias = "bytes | bytearray | memoryview | Iterable[bytes]"
"""A body that is at hand, or one that comes piece by piece."""


def pieces_of(body: Source) -> AsyncSource:
    """Return a body whose pieces are taken in a thread: they may come from a file or a socket."""
    at_hand = isinstance(body, bytes | bytearray | memoryview | str | AsyncIterable)
    if at_hand or not isinstance(body, Iterable):  # what is no body is refused where it is used
        return cast("AsyncSource", body)
    return _pulled(cast("Iterable[bytes]", body))


async def _pulled(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    source = iter(pieces)
    end = object()
    pull = in_thread(lambda: next(source, end))
    while (piece := await pull()) is not end:
        yield piece
