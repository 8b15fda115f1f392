"""Frames: lines of JSON text that say how long they are and prove that they are whole.

A file begins with a line that names its format and holds its salt. Each frame behind it is a line:
a checksum, the bytes of the JSON text, the bytes of what is attached and a checksum of that, how
far back the file was on the disk when this was written, and the text. What is attached (bodies of
documents) stands below it as it is. A checksum is of the text at its place in this one file: bytes
that were copied from elsewhere, or that somebody put into a document, are no frame.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

from sojourn.errors import Corrupt, NewerSchema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sojourn.stores.filesystem.disk import Disk

VERSION = 1
"""The newest version of the format, and the only one so far."""

MAX_FRAME = (1 << 31) - 1
"""Bytes of a frame's text, and of what is attached to it: no commit comes near it."""

CHUNK = 1024 * 1024
"""Bytes read at a time."""

_PREFIX = 45
_DIGITS = 8
_PREFIX_LIKE = re.compile(rb"(?:[0-9a-f]{8} ){5}")
_HEAD = b"sojourn files"
_SALT_BYTES = 8


class Frame(NamedTuple):
    """A frame in a file: its text, where that begins, and where and how long the attachment is."""

    offset: int
    text: bytes
    attached_at: int
    attached: int
    attached_sum: int
    lag: int

    @property
    def text_at(self) -> int:
        """Where the text begins in the file."""
        return self.offset + _PREFIX

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.attached_at + (self.attached + 1 if self.attached else 0)


def head_line(salt: bytes) -> bytes:
    """Return the first line of a new file."""
    return b"%s %d %s\n" % (_HEAD, VERSION, salt.hex().encode())


def new_salt() -> bytes:
    """Return the salt of a new file."""
    return os.urandom(_SALT_BYTES)


HEAD_BYTES = len(head_line(bytes(_SALT_BYTES)))
"""Bytes of the first line: where the first frame begins."""


def salt_of(head: bytes, path: str) -> bytes:
    """Return the salt from a file's first line.

    Raises `NewerSchema` for a later version, `Corrupt` if this is no such line.
    """
    words = head.rstrip(b"\n").split(b" ")
    try:
        name, version = b" ".join(words[:-2]), int(words[-2])
        salt = bytes.fromhex(words[-1].decode())
    except (ValueError, IndexError):
        raise Corrupt(path, "its first line is not one of Sojourn's") from None
    if name != _HEAD or version < 1 or len(salt) != _SALT_BYTES:
        raise Corrupt(path, "its first line is not one of Sojourn's")
    if version > VERSION:
        reason = f"it has version {version}, this Sojourn knows up to {VERSION}; upgrade Sojourn"
        raise NewerSchema(path, reason)
    return salt


def seed_at(salt: bytes, offset: int) -> int:
    """Return what the checksum of a frame at `offset` starts from."""
    return zlib.crc32(offset.to_bytes(8, "big"), zlib.crc32(salt))


def framed(
    text: bytes, attachments: Sequence[bytes], *, salt: bytes, offset: int, lag: int
) -> list[bytes]:
    """Return the pieces of a frame that is to stand at `offset`."""
    size = attached_sum = 0
    for part in attachments:
        size += len(part)
        attached_sum = zlib.crc32(part, attached_sum)
    facts = b"%08x %08x %08x %08x " % (len(text), size, attached_sum, min(lag, 0xFFFFFFFF))
    checksum = zlib.crc32(text, zlib.crc32(facts, seed_at(salt, offset)))
    pieces = [b"%08x " % checksum, facts, text, b"\n"]
    if size:
        pieces += [*attachments, b"\n"]
    return pieces


def frame_size(text: bytes, attachments: Sequence[bytes]) -> int:
    """Return how many bytes a frame takes in a file."""
    attached = sum(map(len, attachments))
    return _PREFIX + len(text) + 1 + (attached + 1 if attached else 0)


class Reader:
    """Reads the frames of a file one after the other."""

    def __init__(self, disk: Disk, file: int, salt: bytes) -> None:
        """`file` is open, and `salt` from its first line."""
        self._disk = disk
        self._file = file
        self._salt = salt
        self._buffer = b""
        self._start = 0

    def frames(self, offset: int, end: int, *, attachments: bool = True) -> Iterator[Frame]:
        """Yield whole frames from `offset` on, up to the first that is not whole or `end`.

        `attachments` says whether what is attached has to be whole as well.
        """
        while offset < end:
            frame = self.frame_at(offset, end, attachments=attachments)
            if frame is None:
                return
            yield frame
            offset = frame.end

    def frame_at(self, offset: int, end: int, *, attachments: bool = True) -> Frame | None:
        """Return the frame at `offset`, `None` if there is no whole one."""
        prefix = self._bytes(offset, _PREFIX, end)
        sizes = _sizes_of(prefix)
        if sizes is None:
            return None
        checksum, length, attached, attached_sum, lag = sizes
        text = self._bytes(offset + _PREFIX, length + 1, end)
        if len(text) != length + 1 or text[-1:] != b"\n":
            return None
        text = text[:-1]
        seed = seed_at(self._salt, offset)
        if zlib.crc32(text, zlib.crc32(prefix[_DIGITS + 1 :], seed)) != checksum:
            return None
        frame = Frame(offset, text, offset + _PREFIX + length + 1, attached, attached_sum, lag)
        if frame.end > end:
            return None
        return frame if not attachments or self._is_attached(frame) else None

    def _is_attached(self, frame: Frame) -> bool:
        """Return whether what is attached is whole."""
        checksum, at, left = 0, frame.attached_at, frame.attached
        while left:
            part = self._bytes(at, min(left, CHUNK), at + left)
            if not part:
                return False
            checksum = zlib.crc32(part, checksum)
            at += len(part)
            left -= len(part)
        return checksum == frame.attached_sum

    def _bytes(self, offset: int, size: int, end: int) -> bytes:
        """Return up to `size` bytes at `offset`, none from `end` on."""
        size = min(size, end - offset)
        at = offset - self._start
        if at < 0 or at + size > len(self._buffer):
            self._buffer = self._disk.read(self._file, max(CHUNK, size), offset)
            self._start, at = offset, 0
        return self._buffer[at : at + size]

    def is_proven(self, damage: int, end: int) -> bool:
        """Return whether a frame behind `damage` proves that the file was on the disk there.

        Then what is damaged was acknowledged once. Else it is what a crash left of writes that
        were on their way.
        """
        offset = damage + 1
        while (offset := self._next_prefix(offset, end)) < end:
            frame = self.frame_at(offset, end)
            if frame is not None and frame.offset - frame.lag > damage:
                return True
            offset = offset + 1 if frame is None else frame.end
        return False

    def _next_prefix(self, offset: int, end: int) -> int:
        """Return where something stands that looks like a frame, at `offset` or behind it.

        Not only at the beginning of a line: the end of the one before may be what is damaged.
        """
        while offset < end:
            part = self._bytes(offset, CHUNK, end)
            found = _PREFIX_LIKE.search(part)
            if found is not None:
                return offset + found.start()
            if len(part) < _PREFIX:
                break
            offset += len(part) - _PREFIX + 1
        return end


def _sizes_of(prefix: bytes) -> tuple[int, int, int, int, int] | None:
    """Return checksum, sizes and lag of a frame's prefix, `None` if it is none."""
    if len(prefix) != _PREFIX or prefix[_DIGITS :: _DIGITS + 1] != b" " * 5:
        return None
    try:
        checksum, length, attached, attached_sum, lag = [
            int(prefix[at : at + _DIGITS], 16) for at in range(0, _PREFIX, _DIGITS + 1)
        ]
    except ValueError:
        return None
    if max(length, attached) > MAX_FRAME:
        return None
    return checksum, length, attached, attached_sum, lag
