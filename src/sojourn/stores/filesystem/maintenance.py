"""Copying a folder while it is in use, and checking it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import Corrupt, NewerSchema, PathTaken
from sojourn.stores.filesystem import folder
from sojourn.stores.filesystem.frames import CHUNK
from sojourn.stores.filesystem.replica import Replica, generation_of, load
from sojourn.stores.filesystem.snapshots import UNFINISHED, remove_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn.model import StoredDocument
    from sojourn.stores.filesystem.disk import Disk
    from sojourn.vault.log import Log


class _Taken(NamedTuple):
    """A file of an app that is part of a backup: open, and how much of it counts."""

    shard: str
    name: str
    file: int
    size: int


class Backup:
    """A copy of a store at another path: `take` inside the gate, then `write`."""

    def __init__(self, disk: Disk, path: str, target: str) -> None:
        """Nothing is done yet. Raises `PathTaken` if there is something at the target."""
        self._disk = disk
        self._path = path
        self._target = target
        if os.path.lexists(target):
            raise PathTaken(target, "there is a file already; a backup does not overwrite it")

    def take(self) -> list[_Taken]:
        """Open every file as it is at this moment. They only grow, or lose their names."""
        taken: list[_Taken] = []
        try:
            for shard in folder.shard_folders(self._disk, self._path):
                for name in self._disk.names(shard):
                    if generation_of(name) is not None:
                        file = self._disk.open(os.path.join(shard, name))
                        taken.append(
                            _Taken(os.path.basename(shard), name, file, self._disk.size(file))
                        )
        except BaseException:
            _close(taken)
            raise
        return taken

    def write(self, taken: list[_Taken]) -> None:
        """Write the copy; it has its name when all of it is on the disk."""
        making = self._target + UNFINISHED
        try:
            try:
                self._disk.make_folder(making)
            except FileExistsError:
                reason = "it may be a backup that was not finished; remove it"
                raise PathTaken(making, reason) from None
            try:
                self._copy(taken, making)
                self._disk.rename(making, self._target)
                self._disk.sync_folder(os.path.dirname(os.path.abspath(self._target)))
            except BaseException:
                self._remove(making)
                raise
        finally:
            _close(taken)

    def _copy(self, taken: list[_Taken], making: str) -> None:
        folder.make(self._disk, making)
        apps = os.path.join(making, folder.APPS)
        for one in taken:
            shard = os.path.join(apps, one.shard)
            if not os.path.isdir(shard):
                self._disk.make_folder(shard)
            file = self._disk.open(os.path.join(shard, one.name), create=True)
            try:
                for offset in range(0, one.size, CHUNK):
                    part = self._disk.read(one.file, min(CHUNK, one.size - offset), offset)
                    self._disk.write(file, part, offset)
                self._disk.sync(file)
            finally:
                os.close(file)
        for shard in folder.shard_folders(self._disk, making):
            self._disk.sync_folder(shard)
        self._disk.sync_folder(apps)

    def _remove(self, making: str) -> None:
        """Remove what was written of a copy that failed."""
        apps = os.path.join(making, folder.APPS)
        if os.path.isdir(apps):
            for shard in folder.shard_folders(self._disk, making):
                remove_folder(self._disk, shard)
            self._disk.remove_folder(apps)
        remove_folder(self._disk, making)


def _close(taken: list[_Taken]) -> None:
    for one in taken:
        os.close(one.file)


class _Owner(NamedTuple):
    """What has a log, or documents, or both."""

    name: str
    log: Log | None
    documents: Iterator[StoredDocument]


def check(disk: Disk, place: str) -> list[str]:
    """Return what is wrong with the files of an app, in words: every byte of them is read."""
    try:
        replica = load(disk, place)
        return list(_problems(replica))
    except (Corrupt, NewerSchema) as error:
        return [str(error)]


def _problems(replica: Replica) -> Iterator[str]:
    vault = replica.vault
    size = replica.journal.size()
    if replica.position.offset < size and not replica.is_torn_at(size):
        yield f"{replica.journal.path}: the frame at byte {replica.position.offset} is damaged"
    owners: list[_Owner] = [_Owner("the app", None, vault.app_documents())]
    for slot in vault.in_order():
        header = slot.header
        name = f"session {header.id!r}"
        if header.parent is not None and not vault.has(header.parent):
            yield f"{name}: its parent {header.parent!r} is not there"
        if slot.log is not None and max(slot.log.tail(1), default=0) > header.seq:
            yield f"{name}: an event's number is above its last"
        documents = slot.documents.everything() if slot.documents is not None else iter(())
        owners.append(_Owner(name, slot.log, documents))
    for name, log, documents in owners:
        try:
            if log is not None:
                vault.files.entries(log.all())
            for document in documents:
                vault.files.document(document)
        except Corrupt as error:
            yield f"{name}: {error}"
