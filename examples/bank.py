"""The bank of the example shop: it takes its time, so that there is a slow request to play with."""

from __future__ import annotations

import os
import time
from http.client import HTTPConnection

SECONDS = 4.0
"""How long it thinks: enough to log out in another tab."""


def charge(pence: int) -> None:
    """Take the money; it may last.

    With `EXAMPLE_BANK=host:port` in the environment, a server there is asked instead, and answers
    whenever it likes. Raises `OSError` when it does not answer at all.
    """
    bank = os.environ.get("EXAMPLE_BANK")
    if bank is None:
        time.sleep(SECONDS)
        return
    connection = HTTPConnection(bank, timeout=60)
    try:
        connection.request("POST", f"/charge/{pence}")
        connection.getresponse().read()
    finally:
        connection.close()
