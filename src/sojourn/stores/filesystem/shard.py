"""A shard: the files of one app, how this process follows them, and how it adds to them."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

from sojourn.errors import Corrupt, NewerSchema, SojournError, TooLarge, Unavailable
from sojourn.mounts import LOST
from sojourn.stores.filesystem import effects, snapshots
from sojourn.stores.filesystem.deciding import Noted
from sojourn.stores.filesystem.disk import FULL, mapped
from sojourn.stores.filesystem.frames import MAX_FRAME, Frame, frame_size, framed
from sojourn.stores.filesystem.keeping import KeepingVault
from sojourn.stores.filesystem.replica import Position, Replica, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.filesystem.disk import Disk

RELAXED_BYTES = 4 * 1024 * 1024
"""Bytes of relaxed writes after which the journal is synced all the same: what a power failure can
take of them stays bounded."""

HEAD = "head"
"""The file that says how far the journal is published and synced, for the processes that follow."""

_OFFSET_BITS = 40
_NUMBER = struct.Struct("<Q")


def shard_name(app: str) -> str:
    """Return the name of an app's folder: safe in any file system, and of no other app."""
    return sha256(app.encode()).hexdigest()[:32]


class Head:
    """How far the journal is published and synced, in memory that the processes share.

    Each is one aligned number, so it is never seen half-written. Only who is inside the gate
    writes. After a power failure it may say anything, so nothing on the disk depends on it.
    """

    SIZE = 2 * _NUMBER.size

    def __init__(self, path: str) -> None:
        """Map the file. One that is too short is filled up."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if (missing := self.SIZE - os.fstat(file).st_size) > 0:
                os.pwrite(file, bytes(missing), self.SIZE - missing)
            self._memory = mmap.mmap(file, self.SIZE)
        finally:
            os.close(file)

    def close(self) -> None:
        """Let go of it. Twice is fine."""
        self._memory.close()

    @property
    def published(self) -> Position:
        """How far everybody may read."""
        return _position(self._memory[: _NUMBER.size])

    @published.setter
    def published(self, position: Position) -> None:
        self._memory[: _NUMBER.size] = _packed(position)

    @property
    def synced(self) -> Position:
        """How far everything is on the disk."""
        return _position(self._memory[_NUMBER.size :])

    @synced.setter
    def synced(self, position: Position) -> None:
        self._memory[_NUMBER.size :] = _packed(position)


def _again(error: Corrupt | NewerSchema) -> SojournError:
    """Return the same error without what led to it: that would keep files open."""
    return type(error)(*error.args)


def _position(number: bytes) -> Position:
    value = int.from_bytes(number, "little")
    return Position(value >> _OFFSET_BITS, value & ((1 << _OFFSET_BITS) - 1))


def _packed(position: Position) -> bytes:
    return _NUMBER.pack(position.generation << _OFFSET_BITS | position.offset)


class Shard:
    """One app in this process. It may have no files yet.

    `lock` is held while the vault is read or moves on; `turn` while something is decided upon it,
    so that no other vault takes its place meanwhile. `settle` and `write` are called inside the
    gate, by one thread.
    """

    def __init__(self, disk: Disk, apps: str, app: str) -> None:
        """`apps` is the folder that has the folder of this app."""
        self.app = app
        self.folder = os.path.join(apps, shard_name(app))
        self.lock = threading.Lock()
        self.turn = threading.Lock()
        self.broken: SojournError | None = None
        self.poison: Unavailable | None = None
        self._apps = apps
        self._disk = disk
        self._nothing = KeepingVault()
        self._nothing.app = app
        self._replica: Replica | None = None
        self._head: Head | None = None
        self._unseen = False  # whether there were changes that were not followed one by one

    @property
    def vault(self) -> KeepingVault:
        """What is kept, as far as this process has followed."""
        return self._nothing if self._replica is None else self._replica.vault

    @property
    def is_outdated(self) -> bool:
        """Whether it still holds files that were replaced by newer ones."""
        return self._replica is not None and self._replica.is_outdated

    @property
    def replica(self) -> Replica | None:
        """What this process follows; `None` while there are no files."""
        return self._replica

    @property
    def is_broken(self) -> bool:
        """Whether its files can not be used any more."""
        return self.broken is not None or self.poison is not None

    def check(self) -> None:
        """Raise what is wrong with this shard, if anything is."""
        if self.broken is not None:
            raise type(self.broken)(*self.broken.args)
        if self.poison is not None:
            raise self.poison.with_traceback(None)  # else it grows with every raise

    def is_there(self) -> bool:
        """Return whether the app has files."""
        return os.path.isdir(self.folder)

    def close(self) -> None:
        """Close the files. Twice is fine."""
        with self.lock:
            replica, self._replica = self._replica, None
            if replica is not None:
                replica.close()
            if self._head is not None:
                self._head.close()

    # --- following -----------------------------------------------------------------------------

    def is_behind(self) -> bool:
        """Return whether there is more than this process has read. Costs no call of the system."""
        if self._replica is None or self._head is None:
            return self.is_there()
        return self._head.published > self._replica.position

    def is_far_behind(self, most: int) -> bool:
        """Return whether following would take more than a moment: over `most` bytes, or anew."""
        if self._replica is None or self._head is None:
            return True
        published, position = self._head.published, self._replica.position
        if published.generation != position.generation:
            return True
        return published.offset - position.offset > most

    def is_long(self, most: int) -> bool:
        """Return whether the journal is longer than `most`, and than the snapshot before it."""
        if self._replica is None:
            return False
        size = self._replica.position.offset
        return size > most and size > self._replica.snapshot_size

    def follow(self) -> None:
        """Read what other processes have published. Any thread may call this.

        Raises `Corrupt` if that is damaged.
        """
        if self._replica is None or self._head is None:
            self.load()
            return
        try:
            with self.lock:
                self._follow(self._replica, self._head)
        except FileNotFoundError:
            self.reload()
        except (Corrupt, NewerSchema) as error:
            self.broken = _again(error)
            raise

    def _follow(self, replica: Replica, head: Head) -> None:
        while (published := head.published) > replica.position:
            if published.generation == replica.position.generation:
                replica.advance(published.offset)
                if replica.position.offset < published.offset and not replica.is_sealed:
                    raise self._damaged(replica)
            else:
                replica.advance()
                if not replica.is_sealed:
                    raise self._damaged(replica)
            if replica.is_sealed:
                replica.cross()

    def _damaged(self, replica: Replica) -> Corrupt:
        reason = f"the frame at byte {replica.position.offset} is damaged; restore a backup"
        return Corrupt(replica.journal.path, reason)

    def load(self) -> None:
        """Read the files, if there are any. Raises as `replica.load` does."""
        if not self.is_there():
            return
        try:
            replica = load(self._disk, self.folder)
        except (Corrupt, NewerSchema) as error:
            self.broken = _again(error)
            raise
        if replica.vault.app != self.app:
            replica.close()
            raise Corrupt(self.folder, f"it holds the app {replica.vault.app!r}")
        head = Head(os.path.join(self.folder, HEAD))
        with self.turn, self.lock:
            if self._replica is None:
                self._replica, self._head = replica, head
                self._unseen = True
            else:
                replica.close()

    def reload(self) -> None:
        """Read the newest files and let go of the old ones. Not while something is decided."""
        replica = load(self._disk, self.folder)
        with self.turn, self.lock:
            old = self._replica
            assert old is not None  # it was loaded once
            if old.position > replica.position:
                self._catch_up(replica, old.position)
            if old.position <= replica.position:
                replica.changed |= old.changed
                self._unseen |= old.position.generation < replica.position.generation - 1
                self._replica = replica

    def _catch_up(self, replica: Replica, position: Position) -> None:
        if replica.position.generation == position.generation:
            replica.advance(position.offset)

    def take_changed(self) -> set[str] | None:
        """Return the sessions that changed since the last call, `None` if it may be any."""
        if self._replica is None or not (self._replica.changed or self._unseen):
            return set()
        with self.lock:
            changed, self._replica.changed = self._replica.changed, set()
            unseen, self._unseen = self._unseen, False
        return None if unseen else changed

    # --- inside the gate -----------------------------------------------------------------------

    def settle_in_turn(self) -> None:
        """Settle, while nothing is decided."""
        with self.turn:
            self.settle()

    def pause_in_turn(self) -> None:
        """Pause, while nothing is decided. What is wrong with this shard was told already."""
        with self.turn, contextlib.suppress(SojournError, OSError):
            self.check()
            self.pause()

    def settle(self) -> None:
        """Read everything that is there, and cut off what a crash has left half-written.

        What is whole but was never published becomes so, once it is on the disk for sure. Raises
        `Unavailable`, now and from now on, if these are no longer the files that others find.
        """
        if self._replica is None:
            if not self.is_there():
                return
            replica = load(self._disk, self.folder)
            head = Head(os.path.join(self.folder, HEAD))
            with self.lock:
                self._replica, self._head = replica, head
        assert self._head is not None  # it comes with the replica
        replica, head = self._replica, self._head
        with self.lock:
            self._read_all(replica)
        if replica.journal.is_lost():
            self.poison = Unavailable(replica.journal.path, LOST)
            raise self.poison
        if head.synced < replica.position:
            self._disk.sync(replica.journal.file)
            head.synced = replica.position
        if head.published != replica.position:
            head.published = replica.position

    def _read_all(self, replica: Replica) -> None:
        while True:
            size = replica.journal.size()
            if size == replica.position.offset:
                return
            replica.forget_buffer()
            replica.advance(size)
            if replica.is_sealed:
                replica.cross()
                continue
            if replica.position.offset < size:
                if not replica.is_torn_at(size):
                    self.broken = self._damaged(replica)
                    raise self._damaged(replica)
                self._disk.truncate(replica.journal.file, replica.position.offset)
                replica.forget_buffer()
                continue
            if size < replica.position.offset:
                raise Corrupt(replica.journal.path, "it was cut while it was in use")

    def write(self, noted: Sequence[Noted], *, durable: bool) -> None:
        """Append frames and become what they say: all of them, or none.

        Raises `StorageFull` or `Unavailable`; in both cases nothing was written. After an error of
        the disk the shard is poisoned.
        """
        if self._replica is None:
            snapshots.make_shard(self._disk, self._apps, self.folder, self.app)
            self.settle()
        assert self._replica is not None  # it has files now
        assert self._head is not None  # it comes with the replica
        replica, head = self._replica, self._head
        frames, data = self._framed(noted, replica, head)
        start = replica.position
        try:
            self._disk.write(replica.journal.file, data, start.offset)
        except OSError as error:
            self._undo(replica, start.offset, error)
        end = Position(start.generation, start.offset + len(data))
        if durable or end.offset - self._synced_offset(head, start) > RELAXED_BYTES:
            try:
                self._disk.sync(replica.journal.file)
            except OSError as error:
                self._undo(replica, start.offset, error, synced=False)
            head.synced = end
        with self.lock:
            head.published = end
            for frame, note in zip(frames, noted, strict=True):
                replica.take(note.effect, frame, note.known)

    def _framed(
        self, noted: Sequence[Noted], replica: Replica, head: Head
    ) -> tuple[list[Frame], bytes]:
        offset = replica.position.offset
        synced = self._synced_offset(head, replica.position)
        frames, pieces = [], []
        for note in noted:
            attached = sum(map(len, note.attachments))
            if max(len(note.text), attached) > MAX_FRAME:
                raise TooLarge("bytes of one write", max(len(note.text), attached), MAX_FRAME)
            pieces += framed(
                note.text,
                note.attachments,
                salt=replica.journal.salt,
                offset=offset,
                lag=offset - synced,
            )
            end = offset + frame_size(note.text, note.attachments)
            attached_at = end - (attached + 1 if attached else 0)
            frames.append(Frame(offset, note.text, attached_at, attached, 0, 0))
            offset = end
        return frames, b"".join(pieces)

    def _synced_offset(self, head: Head, position: Position) -> int:
        """Return how far this journal is on the disk for sure."""
        synced = head.synced
        return synced.offset if synced.generation == position.generation else 0

    def _undo(self, replica: Replica, offset: int, error: OSError, *, synced: bool = True) -> None:
        """Take back what was written of a batch, and raise why.

        A disk that fails is not asked again: a sync that is repeated may lie.
        """
        trouble = mapped(error, replica.journal.path)
        harmless = synced and error.errno in FULL
        try:
            self._disk.truncate(replica.journal.file, offset)
        except OSError:
            harmless = False
        replica.forget_buffer()
        if not harmless:
            reason = f"the disk failed ({error}); close the store, check the disk, open it again"
            trouble = self.poison = Unavailable(replica.journal.path, reason)
        raise trouble from error

    def pause(self) -> None:
        """Write a frame that proves all before it, unless the last one does.

        Without it, damage to what was written last would look like what a crash leaves.
        """
        self.settle()
        if self._replica is not None and not self._replica.is_at_rest:
            text = effects.encode(effects.Paused())
            self.write([Noted(text, (), effects.Paused())], durable=True)

    def seal(self, replica: Replica, noted: Noted, position: Position) -> None:
        """Write the last frame of a journal and go on at `position`."""
        self.write([noted], durable=True)
        assert self._head is not None  # it was written to
        with self.lock:
            replica.cross()
        self._head.synced = self._head.published = position
