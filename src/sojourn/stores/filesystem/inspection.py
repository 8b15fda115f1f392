"""Looking at a folder without opening it as a store: its version, whose sessions, what is due.

Nothing here makes or changes a file, or waits for the gate. What a crash left half-written is not
looked at.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sojourn.lifecycle import Phase
from sojourn.mounts import refuse_unsafe_place
from sojourn.store import Due
from sojourn.stores.filesystem import folder
from sojourn.stores.filesystem.disk import Disk, mapped
from sojourn.stores.filesystem.files import unplaced
from sojourn.stores.filesystem.replica import load
from sojourn.stores.filesystem.shard import shard_name
from sojourn.stores.summary import AppSummary

if TYPE_CHECKING:
    from sojourn.model import StoredDocument
    from sojourn.stores.filesystem.keeping import KeepingVault

MOST_DUE = 1_000_000
"""Sessions that are due are counted up to here."""


def is_there(path: str) -> bool:
    """Return whether there is a store at a path, `False` for nothing or an empty folder.

    Raises `ForeignFile`, `NewerSchema` or `Unavailable` as opening it would.
    """
    if not os.path.lexists(path):
        return False
    try:
        return folder.check(Disk(), path)
    except OSError as error:
        raise mapped(error, path) from error


def version_of(path: str) -> int:
    """Return the version of a store.

    Raises `UnsupportedFilesystem`, `ForeignFile`, `NewerSchema` or `Unavailable`.
    """
    refuse_unsafe_place(path)
    try:
        folder.check(Disk(), path)
        return folder.version_of(Disk(), path)
    except OSError as error:
        raise mapped(error, path) from error


def size_of(path: str) -> int:
    """Return how many bytes the files of all apps are together."""
    try:
        return sum(
            os.stat(os.path.join(place, name)).st_size
            for place in folder.shard_folders(Disk(), path)
            for name in os.listdir(place)
        )
    except OSError as error:
        raise mapped(error, path) from error


def summaries(path: str, now: int) -> list[AppSummary]:
    """Return what is kept of each app, by name. `now` is an instant in microseconds.

    Raises `Corrupt`, `NewerSchema` or `Unavailable`.
    """
    try:
        vaults = [load(Disk(), place).vault for place in folder.shard_folders(Disk(), path)]
    except OSError as error:
        raise mapped(error, path) from error
    kept = [vault for vault in vaults if not vault.is_empty()]
    return sorted(_summary(vault, now) for vault in kept)


def _summary(vault: KeepingVault, now: int) -> AppSummary:
    phases = {phase.value: 0 for phase in Phase}
    for slot in vault.in_order():
        phases[slot.header.phase.value] += 1
    due = vault.due(Due(app=vault.app, now=now, limit=MOST_DUE))
    since = min((header.due_at for header in due if header.due_at is not None), default=None)
    counted = {phase: number for phase, number in phases.items() if number}
    return AppSummary(vault.app, counted, len(due), since)


def documents_of(
    path: str, app: str, id: str, now: int, limit: int
) -> tuple[list[StoredDocument], int]:
    """Return the first documents of a session in any collection, without bodies; and how many.

    Raises as `summaries` does.
    """
    place = os.path.join(path, folder.APPS, shard_name(app))
    if not os.path.isdir(place):
        return [], 0
    try:
        found = load(Disk(), place).vault.documents_of(id, now)
    except OSError as error:
        raise mapped(error, path) from error
    found.sort(key=lambda document: (document.collection, document.key))
    return [unplaced(document, None) for document in found[:limit]], len(found)


def is_empty(path: str) -> bool:
    """Return whether a folder holds no session, no document and no shared state.

    Raises as `summaries` does.
    """
    return not summaries(path, 0)
