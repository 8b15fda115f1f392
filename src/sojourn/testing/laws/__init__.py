"""What every store keeps: the contract as laws, one function each, told apart by their names.

A law is a sentence. Its function takes a corner of an open store and raises `Broken` when the store
does otherwise. Every module here is imported, and whatever `@law` marks in it is registered: there
is no list to keep.
"""

from __future__ import annotations

import importlib
import pkgutil

from sojourn.testing.laws.law import REGISTRY, Law

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

LAWS: dict[str, Law] = dict(sorted(REGISTRY.items(), key=lambda item: (item[1].noun, item[0])))
"""Every law by its name, ordered by what it is about."""


def law_names() -> tuple[str, ...]:
    """Return the names of all laws, ordered by what they are about."""
    return tuple(LAWS)
