"""Checkpoints: saved bytes of a session, each with the one that it came from."""

from __future__ import annotations

from sojourn.checkpoints.record import Checkpoint
from sojourn.checkpoints.removal import Pruned
from sojourn.checkpoints.verbs import Checkpoints

__all__ = ["Checkpoint", "Checkpoints", "Pruned"]
