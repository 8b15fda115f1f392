"""Copies one store to another and says how far it is: `copier SRC DST`."""

from __future__ import annotations

import asyncio
import sys

from tests.transfer.contents import opened

from sojourn.transfer import copy


def progress(what: str, done: int, total: int) -> None:
    """Say a line at once."""
    sys.stdout.write(f"{what} {done} {total}\n")
    sys.stdout.flush()


async def main(source: str, target: str) -> None:
    """Copy."""
    async with opened(source) as ours, opened(target) as theirs:
        await copy(ours, theirs, progress=progress)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
