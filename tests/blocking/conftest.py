"""A manager of the sync face on a store of each kind, and an end to tests that hang."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from sojourn.blocking import SessionManager

if TYPE_CHECKING:
    from collections.abc import Iterator

TEST_SECONDS = 90
"""A test that takes longer hangs, and says so instead."""


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Interrupt a test that hangs, wherever it waits."""

    def give_up(_number: int, _frame: object) -> None:
        pytest.fail(f"it took longer than {TEST_SECONDS} s")

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are for the main thread only
        return
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def sessions(url: str) -> Iterator[SessionManager]:
    """A manager on a store of each kind."""
    with SessionManager.open(url) as manager:
        yield manager
