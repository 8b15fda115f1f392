"""The example shops as their users run them, and a bank that answers when a test says so."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sojourn import blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = TypeVar("Answer")

ROOT = Path(__file__).resolve().parents[2]

WAIT_SECONDS = 30.0
"""Longest wait for something that is to happen, on a busy machine."""

START_SECONDS = 60.0
"""Longest wait for an example to say where it is."""


class Bank:
    """A server that examples ask to charge; a request waits there until it is let go."""

    def __init__(self) -> None:
        """Listen on a free port; `serving` serves."""
        bank = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bank._asked.set()
                bank._approved.wait(WAIT_SECONDS)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._asked = threading.Event()
        self._approved = threading.Event()
        self._approved.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[Bank]:
        """Serve, in a thread of its own."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._approved.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    @contextmanager
    def thinking(self) -> Iterator[Bank]:
        """Let nobody go until the end of the block."""
        self._asked.clear()
        self._approved.clear()
        try:
            yield self
        finally:
            self._approved.set()

    def wait_until_asked(self) -> None:
        """Wait until a request has come: the example's handler is in the midst of its work."""
        assert self._asked.wait(WAIT_SECONDS), "nobody asked the bank"


class Shop:
    """An example that runs: `url` is where, `store` the URL of its sessions."""

    def __init__(self, name: str, folder: Path, bank: Bank) -> None:
        """Start it, and wait until it says where it is."""
        self.name = name
        self.store = f"sqlite:///{folder / 'shop.db'}"
        self.bank = bank
        # Django's users have a number; the example makes them in this order.
        self._ids = {"ada": "1", "grace": "2"} if name == "django" else {}
        self._log = folder / "errors.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"examples.{name}", "--port", "0", "--folder", str(folder)],
                cwd=ROOT,
                env=os.environ | {"EXAMPLE_BANK": bank.address},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None  # it is a pipe
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        first = self._process.stdout.readline() if ready else ""
        if "http://" not in first:
            self.stop()
            raise AssertionError(f"{name} did not start:\n{self.said()}")
        self.url = first.split()[-1].rstrip("/")

    def said(self) -> str:
        """Return what it wrote to its error output."""
        return self._log.read_text()

    def sessions_of(self, user: str) -> int:
        """Return how many sessions of a user are stored."""
        return self._asked(lambda sessions: sessions.count(user=self._ids.get(user, user)))

    def forget(self, *users: str) -> None:
        """Remove all sessions of users."""

        def forget(sessions: blocking.SessionManager) -> None:
            for user in users:
                sessions.forget(self._ids.get(user, user))

        self._asked(forget)

    def _asked(self, question: Callable[[blocking.SessionManager], Answer]) -> Answer:
        """Ask the store, in a thread: Playwright's event loop runs in this one."""

        def ask() -> Answer:
            with blocking.SessionManager.open(self.store) as sessions:
                return question(sessions)

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask).result(WAIT_SECONDS)

    def stop(self) -> int:
        """Stop it as a service manager does, and return its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            assert self._process.stdout is not None  # it is a pipe
            self._process.stdout.close()
