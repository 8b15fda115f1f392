"""Where a store is, said in one way however its URL was spelled: `place` of the shipped stores."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_OWN = ("localhost", "127.", "::1", "/")
"""What the names of a machine's own servers begin with, the folders of their sockets too."""


def on_this_machine(scheme: str, path: str | os.PathLike[str]) -> str:
    """Return the place of a file or folder. Its path means another one on another machine."""
    return f"{scheme}://{socket.gethostname()}{os.path.realpath(path)}"


def on_servers(scheme: str, servers: Iterable[tuple[str, int | str]], rest: str) -> str:
    """Return the place of what `rest` names on servers (host and port), in whichever order."""
    return f"{scheme}://{','.join(sorted(_server(*server) for server in servers))}/{rest}"


def _server(host: str, port: int | str) -> str:
    host = host.lower()
    return f"{socket.gethostname()}|{host}:{port}" if host.startswith(_OWN) else f"{host}:{port}"
