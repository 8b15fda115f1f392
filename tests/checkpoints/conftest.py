"""What the tests of checkpoints share: bounds so small that every body is a large one."""

from __future__ import annotations

import pytest

CHUNK = 64
INLINE = 16


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut bodies into chunks of 64 bytes, and keep only 16 with the facts."""
    monkeypatch.setattr("sojourn.checkpoints.keeping.CHUNK_BYTES", CHUNK)
    monkeypatch.setattr("sojourn.checkpoints.keeping.INLINE_BYTES", INLINE)
