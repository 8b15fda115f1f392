"""Where an export is written to and read from: a file or a stream, plain or compressed.

What is written is compressed if its name says so, what is read if it begins so. A file appears
under its name only once it is whole and on the disk. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import tempfile
import zlib
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeVar

from sojourn.errors import PathTaken, StorageFull, Unavailable
from sojourn.exiting import called_in_thread
from sojourn.transfer.lines import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Place: TypeAlias = str | os.PathLike[str] | IO[bytes]
"""A path, written compressed with gzip if it ends in `.gz`, or an open binary stream."""

GZIP = b"\x1f\x8b"
"""What begins everything that gzip has compressed."""

T = TypeVar("T")

MAX_LINE = 256 * 1024 * 1024
"""Bytes of one line: the largest document and the largest state, escaped, with room to spare."""

COMPRESSION = 6
"""Level of gzip: beyond it, size hardly falls and time grows."""


def name_of(place: Place) -> str:
    """Return what errors call a place."""
    if isinstance(place, str | os.PathLike):
        return os.fspath(place)
    return str(getattr(place, "name", "the stream"))


@contextmanager
def trouble_told(name: str) -> Iterator[None]:
    """Turn what the file system raises into our errors."""
    try:
        yield
    except BrokenPipeError:  # whoever read the stream went away: that is no trouble with a place
        raise
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
        raise kind(name, error.strerror or str(error)) from error


async def in_thread(call: Callable[..., T], *arguments: object, ours: bool = True) -> T:
    """Return what a call returns that blocks. Cancelled, it is waited for: it holds the file.

    A call with a stream of the caller's, which is not `ours`, is not: the other end of a pipe may
    never do its part, and a program has to end all the same.
    """
    if not ours:
        return await called_in_thread(partial(call, *arguments), "sojourn stream")
    work = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):  # the first one is raised
                await asyncio.wait((work,))
        if not work.cancelled():
            work.exception()  # nobody is left to be told
        raise


class Sink:
    """Takes the bytes of an export. A file stays hidden until `finish`."""

    def __init__(self, place: Place) -> None:
        """Name the place; `begin` opens it."""
        self._name = name_of(place)
        self._path: Path | None = None
        self._hidden: Path | None = None
        self._raw: IO[bytes] | None = None
        self._out: IO[bytes] | gzip.GzipFile | None = None
        if isinstance(place, str | os.PathLike):
            self._path = Path(place)
        else:
            self._raw = self._out = place

    @property
    def ours(self) -> bool:
        """Whether it is a file that is opened here."""
        return self._path is not None

    def begin(self) -> None:
        """Open. Raises `PathTaken` for a path where something is, `Unavailable`."""
        if self._path is None:
            return
        self._refuse_taken()
        with trouble_told(self._name):
            descriptor, hidden = tempfile.mkstemp(
                prefix=f".{self._path.name}.", suffix=".partial", dir=self._path.parent
            )
        self._hidden = Path(hidden)
        self._raw = self._out = os.fdopen(descriptor, "wb")
        if self._path.suffix == ".gz":
            # No name and no time inside: equal exports are equal files.
            self._out = gzip.GzipFile("", "wb", COMPRESSION, self._raw, mtime=0)

    def _refuse_taken(self) -> None:
        if self._path is not None and os.path.lexists(self._path):
            raise PathTaken(self._name, "there is a file already; an export does not overwrite")

    def write(self, data: bytes) -> None:
        """Write. Raises `StorageFull`, `Unavailable`."""
        assert self._out is not None  # `begin` was called
        with trouble_told(self._name):
            self._out.write(data)

    def finish(self) -> None:
        """Have everything on the disk and show the file. Raises as `write` and as at the start."""
        assert self._raw is not None  # `begin` was called
        assert self._out is not None  # as above
        with trouble_told(self._name):
            if self._out is not self._raw:
                self._out.close()
            self._raw.flush()
            if self._path is None or self._hidden is None:
                return
            os.fsync(self._raw.fileno())
            self._raw.close()
            self._refuse_taken()
            self._hidden.rename(self._path)
            self._hidden = None
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def abandon(self) -> None:
        """Remove what was written and not finished. Twice is fine, and after `finish`."""
        if self._path is None or self._raw is None or self._out is None:
            return
        for file in (self._out, self._raw):  # gzip leaves open what it was given
            with suppress(OSError):
                file.close()
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
            self._hidden = None


class Source:
    """Gives the lines of an export."""

    def __init__(self, place: Place) -> None:
        """Name the place; `begin` opens it."""
        self.name = name_of(place)
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._in: IO[bytes] | gzip.GzipFile | None = None
        if isinstance(place, str | os.PathLike):
            self._path = Path(place)
        else:
            self._in = place

    @property
    def ours(self) -> bool:
        """Whether it is a file that is opened here."""
        return self._path is not None

    def begin(self) -> None:
        """Open, and look whether it is compressed. Raises `Unavailable`."""
        with trouble_told(self.name):
            if self._path is not None:
                self._in = self._file = self._path.open("rb")
            assert not isinstance(self._in, gzip.GzipFile | None)  # it is begun once
            start = _start_of(self._in)
            named = self._path is not None and self._path.suffix == ".gz"
            if start == GZIP or (named and not start.startswith(b"{")):  # else it was unpacked
                self._in = gzip.GzipFile(fileobj=self._in, mode="rb")

    def line(self, number: int) -> bytes:
        """Return the next line, empty behind the last. Raises `Corrupt`, naming it."""
        assert self._in is not None  # `begin` was called
        try:
            with trouble_told(self.name):
                line = self._in.readline(MAX_LINE + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise broken(self.name, number, f"it was damaged while compressed: {error}") from error
        except Unavailable as error:
            if isinstance(error.__cause__, gzip.BadGzipFile):
                reason = f"it was damaged while compressed: {error.reason}"
                raise broken(self.name, number, reason) from error
            raise
        if len(line) > MAX_LINE:
            raise broken(self.name, number, f"it is longer than {MAX_LINE} bytes")
        return line

    def close(self) -> None:
        """Close what was opened here. Twice is fine."""
        if not self.ours:  # a call may be under way in it, and to unpack is to read: it is let go
            self._in = None
            return
        if isinstance(self._in, gzip.GzipFile):  # which leaves open what it was given
            with suppress(OSError):
                self._in.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _start_of(stream: IO[bytes]) -> bytes:
    """Return the first two bytes of a stream without taking them; nothing if it can not be done."""
    if isinstance(stream, io.BufferedReader):
        return stream.peek(len(GZIP))[: len(GZIP)]
    try:
        if not stream.seekable():
            return b""
        here = stream.tell()
    except (OSError, AttributeError):  # it only goes forward
        return b""
    start = stream.read(len(GZIP))
    stream.seek(here)
    return start
