"""Chance, from a seed and a name: each part of a simulation draws from a stream of its own."""

from __future__ import annotations

from random import Random


class Draw(Random):
    """Random numbers that are the same whenever the seed and the name are."""

    def __init__(self, seed: int, name: str) -> None:
        """Begin the stream of this name."""
        super().__init__(f"{name} {seed}")

    def likely(self, chance: float) -> bool:
        """Return true with a chance from 0 to 1."""
        return self.random() < chance
