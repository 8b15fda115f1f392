"""Sweeps in a process of its own, at the instants that it is told: one line in, one line out.

Arguments: URL, app. Each line in is an instant in seconds since the epoch; the answer is how many
sessions a sweep at that instant ended.
"""

from __future__ import annotations

import asyncio
import sys

from sojourn import Reaper, SessionManager
from sojourn.testing import FakeClock


async def main(url: str) -> None:
    clock = FakeClock()
    async with SessionManager.open(url, clock=clock) as sessions:
        print("ready", flush=True)  # noqa: T201 - this is how it speaks
        for line in sys.stdin:
            clock.advance(float(line) - clock.now() / 1_000_000)
            print(await Reaper(sessions).sweep(), flush=True)  # noqa: T201 - this is how it speaks


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
