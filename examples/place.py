"""Where an example runs: a folder with its SQLite file, a port of the loopback, and a server."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

HOST = "127.0.0.1"

PORT = 8_000

FOLDER = Path("example-run")
"""Holds a folder for each example, below the current one."""


class Place(NamedTuple):
    """A folder, the URL of the store in it, and a socket that listens."""

    folder: Path
    store: str
    listener: socket.socket


def prepare(name: str) -> Place:
    """Read the command line, make the folder, and listen."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}")
    parser.add_argument("--port", type=int, default=PORT, help="0: any that is free")
    parser.add_argument("--folder", type=Path, default=FOLDER / name, help="keeps the sessions")
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        listener = socket.create_server((HOST, given.port))
    except OSError as error:
        sys.exit(f"port {given.port} is taken ({error.strerror}): try --port 0")
    return Place(folder, f"sqlite:///{folder / 'shop.db'}", listener)


def announce(place: Place) -> None:
    """Say where it is: there is an application, and whoever connects from now on is served."""
    print(f"The example shop: http://localhost:{place.listener.getsockname()[1]}/", flush=True)
    print(f"Its sessions:     {place.folder / 'shop.db'}", flush=True)


def serve_asgi(application: Any, place: Place) -> None:
    """Run an ASGI application until it is told to stop."""
    import uvicorn  # noqa: PLC0415 - WSGI examples do without it

    announce(place)
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[place.listener])


def serve_wsgi(application: Any, place: Place) -> None:
    """Run a WSGI application, a thread for each request, until it is told to stop."""
    from werkzeug.serving import make_server  # noqa: PLC0415 - ASGI examples do without it

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    port = place.listener.getsockname()[1]
    server = make_server(HOST, port, application, threaded=True, fd=place.listener.fileno())
    announce(place)
    try:
        server.serve_forever()
    finally:
        server.server_close()
