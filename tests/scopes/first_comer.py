"""Gets or makes sessions in a process of its own, as fast as it can: JSON lines out, words in.

Arguments: URL. Each line in is a round: the arguments of `get_or_create`. The answer is the epochs
of what ten calls at once got, and the next round is waited for.
"""

from __future__ import annotations

import asyncio
import json
import sys

from sojourn import SessionManager


async def main(url: str) -> None:
    async with SessionManager.open(url) as sessions:
        print("ready", flush=True)  # noqa: T201 - this is how it speaks
        for line in sys.stdin:
            by = json.loads(line)
            found = await asyncio.gather(*(sessions.get_or_create(**by) for _ in range(10)))
            print(json.dumps([session.epoch for session in found]), flush=True)  # noqa: T201 - this is how it speaks


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
