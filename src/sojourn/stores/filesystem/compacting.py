"""Compaction: what is kept is written anew, and what was removed is nowhere any more.

The long part, a snapshot from the files as they were, goes on beside readers and writers. The short
part, inside the gate, copies what was written meanwhile and seals the old journal.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sojourn.errors import Corrupt
from sojourn.gate import Gate
from sojourn.stores.filesystem import effects
from sojourn.stores.filesystem.deciding import Noted
from sojourn.stores.filesystem.replica import (
    Position,
    Replica,
    generation_of,
    journal_path,
    load,
    snapshot_path,
)
from sojourn.stores.filesystem.snapshots import UNFINISHED, write_journal, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sojourn.stores.filesystem.disk import Disk
    from sojourn.stores.filesystem.shard import Shard

GUARD = "compacting"
"""The file that one process has locked while it writes a snapshot, so that others do not too."""


class Compaction:
    """One compaction of one shard: `prepare`, then `finish` inside the gate, then `close`."""

    def __init__(self, disk: Disk, shard: Shard) -> None:
        """Nothing is done yet."""
        self._disk = disk
        self._shard = shard
        self._guard: Gate | None = None
        self._loaded: Replica | None = None

    def prepare(self) -> bool:
        """Write the snapshot; return `False` if another process is at it already."""
        self._guard = Gate(os.path.join(self._shard.folder, ""), GUARD)
        if not self._guard.acquire_at_once():
            return False
        self._loaded = load(self._disk, self._shard.folder)
        write_snapshot(self._disk, self._new(snapshot_path), self._loaded.vault)
        return True

    def _new(self, path: Callable[[str, int], str]) -> str:
        assert self._loaded is not None  # it was prepared
        return path(self._shard.folder, self._loaded.position.generation + 1) + UNFINISHED

    def finish_in_turn(self) -> None:
        """Finish, while nothing is decided."""
        with self._shard.turn:
            self.finish()

    def finish(self) -> None:
        """Copy what was written meanwhile, seal the old journal, and remove the old files."""
        shard, loaded = self._shard, self._loaded
        assert loaded is not None  # it was prepared
        shard.settle()
        replica = shard.replica
        assert replica is not None  # it has files
        if replica.position.generation != loaded.position.generation:
            return  # somebody else was faster
        generation = loaded.position.generation + 1
        offset = write_journal(self._disk, self._new(journal_path), self._since(loaded, replica))
        for path in (snapshot_path, journal_path):
            name = path(shard.folder, generation)
            self._disk.rename(name + UNFINISHED, name)
        self._disk.sync_folder(shard.folder)
        sealed = effects.Sealed(next=generation, offset=offset)
        noted = Noted(effects.encode(sealed), (), sealed)
        shard.seal(replica, noted, Position(generation, offset))
        self._remove_older(generation)

    def _since(self, loaded: Replica, replica: Replica) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield the frames behind those that are in the snapshot."""
        journal, offset = loaded.journal, loaded.position.offset
        for frame in journal.reader().frames(offset, replica.position.offset):
            attached = journal.read(frame.attached, frame.attached_at) if frame.attached else b""
            yield frame.text, [attached] if attached else []
            offset = frame.end
        if offset != replica.position.offset:
            raise Corrupt(journal.path, f"the frame at byte {offset} is damaged; restore a backup")

    def _remove_older(self, generation: int) -> None:
        """Remove the files of older generations: nobody opens them any more."""
        folder = self._shard.folder
        for name in self._disk.names(folder):
            number = generation_of(name.removesuffix(UNFINISHED))
            if number is not None and number < generation:
                self._disk.remove(os.path.join(folder, name))
        self._disk.sync_folder(folder)

    def close(self) -> None:
        """Remove what is unfinished and let others do it."""
        if self._loaded is not None:
            for path in (snapshot_path, journal_path):
                with contextlib.suppress(OSError):
                    self._disk.remove(self._new(path))
            self._loaded.close()
        if self._guard is not None:
            self._guard.close()
