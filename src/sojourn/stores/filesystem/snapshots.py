"""Snapshots: all that is kept of one app in one file, and the journal that begins with it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from sojourn.errors import Unavailable
from sojourn.stores.filesystem import effects
from sojourn.stores.filesystem.disk import mapped
from sojourn.stores.filesystem.effects import DocumentsLine
from sojourn.stores.filesystem.files import UnreadDocument
from sojourn.stores.filesystem.frames import HEAD_BYTES, frame_size, framed, head_line, new_salt
from sojourn.stores.filesystem.keeping import KeepingVault
from sojourn.stores.filesystem.replica import journal_path, snapshot_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sojourn.model import StoredDocument
    from sojourn.stores.filesystem.disk import Disk
    from sojourn.stores.filesystem.log import PlacedLog
    from sojourn.vault.slot import Slot

UNFINISHED = ".new"
"""What the name of a file ends with that is still being written."""

MAKING = "new-"
"""What the name of a folder begins with that is still being made."""

PIECE_BYTES = 4 * 1024 * 1024
"""Bytes of events, or of bodies, in one frame of a snapshot: so much is held in memory."""

WRITE_BYTES = 1024 * 1024
"""Bytes gathered before they are handed to the system."""


class FrameFile:
    """A new file of frames, written from its beginning to its end."""

    def __init__(self, disk: Disk, path: str) -> None:
        """Make the file, with its first line."""
        self._disk = disk
        self._file = disk.open(path, create=True)
        self._salt = new_salt()
        self._waiting = [head_line(self._salt)]
        self._size = HEAD_BYTES
        self._written = 0
        self.offset = HEAD_BYTES
        self.frames = 0

    def add(self, text: bytes, attachments: Sequence[bytes] = ()) -> None:
        """Append a frame."""
        # Nothing of this file counts before all of it is synced.
        pieces = framed(text, attachments, salt=self._salt, offset=self.offset, lag=0)
        size = frame_size(text, attachments)
        self._waiting += pieces
        self._size += size
        self.offset += size
        self.frames += 1
        if self._size > WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._disk.write(self._file, data, self._written)
        self._written += len(data)
        self._waiting, self._size = [], 0

    def finish(self) -> None:
        """Return once everything is on the disk."""
        self._flush()
        self._disk.sync(self._file)

    def close(self) -> None:
        """Close the file. Twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def write_snapshot(disk: Disk, path: str, vault: KeepingVault) -> None:
    """Write everything that a vault keeps to a new file. Returns once it is on the disk."""
    with contextlib.closing(FrameFile(disk, path)) as file:
        begun = effects.Begun(app=vault.app, rows=vault.rows, places=vault.places)
        file.add(effects.encode(begun))
        for tier in vault.tier_lines():
            file.add(effects.encode(effects.Shared(tiers=(tier,))))
        for documents in _bundles(vault, vault.app_documents()):
            line = DocumentsLine(put=tuple(map(effects.document_line, documents)))
            _add(file, effects.Shared(documents=line), documents)
        for slot in vault.in_order():
            _write_session(file, vault, slot)
        _write_staged(file, vault)
        file.add(effects.encode(effects.Finished(frames=file.frames)))
        file.finish()


def _add(file: FrameFile, effect: effects.Effect, documents: list[StoredDocument]) -> None:
    file.add(effects.encode(effect), [document.body or b"" for document in documents])


def _write_session(file: FrameFile, vault: KeepingVault, slot: Slot) -> None:
    """Write a session: with its first events, then with its documents and more events."""
    events = _event_bundles(vault, slot.log)
    first = next(events, [])
    header = slot.header
    file.add(
        effects.encode(
            effects.Kept(
                id=header.id, row=slot.row, header=header, state=Raw(slot.state), events=first
            )
        )
    )
    for more in events:
        file.add(effects.encode(effects.Kept(id=header.id, more=True, events=more)))
    if slot.documents is not None:
        for documents in _bundles(vault, slot.documents.everything()):
            line = DocumentsLine(put=tuple(map(effects.document_line, documents)))
            _add(file, effects.Kept(id=header.id, more=True, documents=line), documents)


def _write_staged(file: FrameFile, vault: KeepingVault) -> None:
    """Write the restores in progress, each part anew."""
    for staged in vault.staged():
        facts: dict[str, Any] = {
            "op": staged.op,
            "abandoned_at": staged.abandoned_at,
            "header": staged.header,
        }
        # Only that they are in order counts: the last frame says which part is the next.
        parts: list[tuple[dict[str, Any], list[StoredDocument]]] = [
            ({"events": events}, []) for events in _event_bundles(vault, staged.log)
        ]
        for documents in _bundles(vault, staged.placed.everything()):
            line = DocumentsLine(put=tuple(map(effects.document_line, documents)))
            parts.append(({"documents": line}, documents))
        first = effects.Staged(part=0, state=Raw(staged.text), **facts)
        file.add(effects.encode(first))
        for contents, documents in parts:
            part = effects.Staged(part=staged.next - 1, more=True, **facts, **contents)
            _add(file, part, documents)
        file.add(effects.encode(effects.Staged(part=staged.next - 1, more=True, **facts)))


def _event_bundles(vault: KeepingVault, log: Any) -> Iterator[list[Raw]]:
    """Yield the events of a log as they stand on the disk, so many bytes at a time."""
    if log is None:
        return
    bundle: list[Raw] = []
    size = 0
    placed: PlacedLog = log
    for unread, text in vault.files.texts(placed.all()):
        if bundle and size + unread.size > PIECE_BYTES:
            yield bundle
            bundle, size = [], 0
        bundle.append(Raw(text))
        size += unread.size
    if bundle:
        yield bundle


def _bundles(
    vault: KeepingVault, documents: Iterator[StoredDocument]
) -> Iterator[list[StoredDocument]]:
    """Yield documents with their bodies, so many bytes at a time."""
    bundle: list[StoredDocument] = []
    size = 0
    for document in documents:
        assert isinstance(document, UnreadDocument)  # a vault over files keeps no others
        if bundle and size + document.size > PIECE_BYTES:
            yield bundle
            bundle, size = [], 0
        bundle.append(vault.files.document(document))
        size += document.size
    if bundle:
        yield bundle


def write_journal(disk: Disk, path: str, frames: Iterator[tuple[bytes, list[bytes]]]) -> int:
    """Write a new journal that begins with frames; return where the next one goes."""
    with contextlib.closing(FrameFile(disk, path)) as file:
        for text, attachments in frames:
            file.add(text, attachments)
        file.finish()
        return file.offset


def make_shard(disk: Disk, apps: str, folder: str, app: str) -> None:
    """Make the folder of an app, with an empty snapshot and journal: all of it, or nothing.

    Raises `StorageFull`, `ReadOnly` or `Unavailable`.
    """
    making = os.path.join(apps, MAKING + os.path.basename(folder))
    vault = KeepingVault()
    vault.app = app
    try:
        remove_folder(disk, making)
        disk.make_folder(making)
        write_snapshot(disk, snapshot_path(making, 1), vault)
        write_journal(disk, journal_path(making, 1), iter(()))
        disk.sync_folder(making)
        disk.rename(making, folder)
        disk.sync_folder(apps)
    except OSError as error:
        with contextlib.suppress(OSError):
            remove_folder(disk, making)
        raise mapped(error, folder) from error
    if not os.path.isdir(folder):
        raise Unavailable(folder, "it went away while it was made")


def remove_folder(disk: Disk, folder: str) -> None:
    """Remove a folder with the files in it, if it is there."""
    try:
        names = disk.names(folder)
    except FileNotFoundError:
        return
    for name in names:
        disk.remove(os.path.join(folder, name))
    disk.remove_folder(folder)
