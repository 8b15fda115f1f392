"""A replica: what the files of one app say up to a point, and how it follows when they grow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import Corrupt, Unavailable
from sojourn.stores.filesystem import effects
from sojourn.stores.filesystem.files import DataFile
from sojourn.stores.filesystem.frames import HEAD_BYTES, Frame
from sojourn.stores.filesystem.keeping import KeepingVault, Known

if TYPE_CHECKING:
    from sojourn.stores.filesystem.disk import Disk

SNAPSHOT = "snapshot-"
"""What stands before the generation in the name of a snapshot."""

JOURNAL = "journal-"
"""What stands before the generation in the name of a journal."""

ATTEMPTS = 20
"""Tries at reading files of one generation while other processes put newer ones in their place."""


class Position(NamedTuple):
    """A point in the history of an app: an offset in the journal of a generation."""

    generation: int
    offset: int


def snapshot_path(folder: str, generation: int) -> str:
    """Return where the snapshot of a generation is."""
    return os.path.join(folder, f"{SNAPSHOT}{generation:08d}")


def journal_path(folder: str, generation: int) -> str:
    """Return where the journal of a generation is."""
    return os.path.join(folder, f"{JOURNAL}{generation:08d}")


def generation_of(name: str) -> int | None:
    """Return the generation that a file belongs to, `None` if it is neither of the two."""
    for prefix in (SNAPSHOT, JOURNAL):
        number = name.removeprefix(prefix)
        if number != name and number.isdecimal():
            return int(number)
    return None


class Replica:
    """A vault, the journal that it follows, and how far it has come.

    `is_outdated` says that it still reads files of an older generation, which have no names any
    more; `is_at_rest` that the last frame proves all before it; `changed` are the sessions that
    changed since it was last taken.
    """

    def __init__(self, disk: Disk, folder: str, generation: int) -> None:
        """Read the files of a generation. Raises `FileNotFoundError` if they are gone."""
        self._disk = disk
        self._folder = folder
        self.vault = KeepingVault()
        self.is_outdated = False
        self.is_sealed = False
        self.is_at_rest = True
        self.changed: set[str] = set()
        try:
            snapshot = DataFile.opened(disk, snapshot_path(folder, generation))
            number = self.vault.files.add(snapshot)
            self._follow(generation, HEAD_BYTES)
            self._read_snapshot(snapshot, number)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files. Whoever still reads from them meets an error."""
        self.vault.files.close()

    def _follow(self, generation: int, offset: int) -> None:
        """Go on in another journal."""
        self.journal = DataFile.opened(self._disk, journal_path(self._folder, generation))
        self._number = self.vault.files.add(self.journal)
        self._reader = self.journal.reader()
        self.position = Position(generation, offset)

    def _read_snapshot(self, snapshot: DataFile, number: int) -> None:
        size, end, count = snapshot.size(), HEAD_BYTES, 0
        self.snapshot_size = size
        last: effects.Effect | None = None
        for frame in snapshot.reader().frames(HEAD_BYTES, size, attachments=False):
            last = effects.decode(frame.text, snapshot.path)
            self.vault.apply(last, frame, number)
            end, count = frame.end, count + 1
        whole = isinstance(last, effects.Finished) and last.frames == count - 1
        if end != size or not whole:
            raise Corrupt(snapshot.path, f"the frame at byte {end} is damaged")
        self.vault.purgeable = False

    def advance(self, end: int | None = None) -> None:
        """Follow the journal up to `end`, or as far as there are whole frames.

        Where it is sealed, this stops: `cross` goes on in the next one.
        """
        size = self.journal.size() if end is None else end
        for frame in self._reader.frames(self.position.offset, size):
            effect = effects.decode(frame.text, self.journal.path)
            self.take(effect, frame)
            if self.is_sealed:
                return

    def take(self, effect: effects.Effect, frame: Frame, known: Known | None = None) -> None:
        """Become what the next frame of the journal says; see `KeepingVault.apply`."""
        self.changed.update(self.vault.apply(effect, frame, self._number, known))
        self.position = Position(self.position.generation, frame.end)
        self.is_at_rest = isinstance(effect, effects.Paused)
        if isinstance(effect, effects.Sealed):
            self.is_sealed = True
            self._next = Position(effect.next, effect.offset)

    def cross(self) -> None:
        """Go on in the journal behind the sealed one. `FileNotFoundError` if it is gone as well."""
        self._follow(*self._next)
        self.is_sealed, self.is_outdated = False, True

    def is_torn_at(self, size: int) -> bool:
        """Return whether what follows is what a crash left, to be cut off.

        `False` where the next frame is damaged although it was on the disk once.
        """
        return not self._reader.is_proven(self.position.offset, size)

    def forget_buffer(self) -> None:
        """Read what follows from the file: it may have been written anew."""
        self._reader = self.journal.reader()


def app_of(disk: Disk, folder: str) -> str:
    """Return whose files are in a folder. Raises `Corrupt` if they do not say."""
    for _ in range(ATTEMPTS):
        newest = max(filter(None, map(generation_of, disk.names(folder))), default=0)
        try:
            file = DataFile.opened(disk, snapshot_path(folder, newest))
        except FileNotFoundError:  # a newer one is there, or will be
            continue
        frame = file.reader().frame_at(HEAD_BYTES, file.size())
        begun = effects.decode(frame.text, file.path) if frame is not None else None
        if not isinstance(begun, effects.Begun):
            raise Corrupt(file.path, "it does not say whose it is")
        return begun.app
    raise Corrupt(folder, "it has no snapshot")


def load(disk: Disk, folder: str) -> Replica:
    """Read what the files of an app say, up to the last whole frame.

    Raises `Corrupt` or `NewerSchema` for files that can not be read, `Unavailable` if they are
    replaced faster than they can be read.
    """
    for _ in range(ATTEMPTS):
        try:
            replica = _current(disk, folder)
        except FileNotFoundError:  # they were replaced meanwhile
            continue
        if replica is not None:
            return replica
    raise Unavailable(folder, "its files are replaced faster than they can be read")


def _current(disk: Disk, folder: str) -> Replica | None:
    """Return the replica of the generation that is in use, `None` if it went meanwhile.

    A generation counts from when the journal before it is sealed: a later one without that is what
    an unfinished compaction left.
    """
    names = set(disk.names(folder))
    generations = sorted(
        generation
        for generation in {generation_of(name) for name in names}
        if generation is not None
        and os.path.basename(snapshot_path(folder, generation)) in names
        and os.path.basename(journal_path(folder, generation)) in names
    )
    if not generations:
        raise Corrupt(folder, "it has no snapshot with its journal")
    for generation in generations:
        replica = Replica(disk, folder, generation)
        try:
            replica.advance()
        except BaseException:
            replica.close()
            raise
        if not replica.is_sealed:
            return replica
        replica.close()
    return None
