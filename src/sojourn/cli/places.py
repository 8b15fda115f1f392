"""Where the store of a URL is: whether it is there, and how to make a throw-away one like it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from sojourn.cli.failures import ExitCode, Refusal
from sojourn.errors import Unavailable
from sojourn.settings import masked
from sojourn.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_SCHEME = "sqlite"
"""The scheme of stores that are one file; what is said of files here and elsewhere is SQLite's."""


def path_of(url: str) -> Path | None:
    """Return the file that is the store of a URL, `None` if it is none.

    Raises `InvalidQuery` for a URL that no store has.
    """
    scheme = urlsplit(url).scheme
    if scheme != FILE_SCHEME:
        return None
    return Path(open_store(url).name.removeprefix(f"{FILE_SCHEME}:///"))


def check_there(url: str) -> None:
    """Raise `Refusal` if opening the store would make it: a mistyped path must not become a store.

    Raises `InvalidQuery` for a URL that no store has.
    """
    path = path_of(url)
    if path is None:
        return
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal(
            ExitCode.UNAVAILABLE, f"there is no store at {path}", "check the path"
        ) from None
    except OSError as error:
        raise Unavailable(str(path), error.strerror or str(error)) from error
    if path.is_file() and not size and not Path(f"{path}-wal").exists():
        raise Refusal(
            ExitCode.UNAVAILABLE,
            f"there is no store in {path}, it is empty",
            "check the path",
        )


def check_version(url: str) -> None:
    """Raise `Refusal` if opening the store would bring its file to a newer version.

    A look must not shut out programs that know only the older one. Raises what opening would for a
    file that is not one of ours.
    """
    path = path_of(url)
    if path is None:
        return
    from sojourn.stores.sqlite.inspection import NEWEST_VERSION, version_of

    version = version_of(str(path))
    if version < NEWEST_VERSION:
        raise Refusal(
            ExitCode.UNAVAILABLE,
            f"{path} has version {version}, and this Sojourn would make it {NEWEST_VERSION}",
            "sojourn doctor --upgrade, when no older program uses it",
        )


@contextmanager
def throwaway(url: str) -> Iterator[Callable[[], str]]:
    """Yield a function that returns the URL of a new, empty store of this kind, each time another.

    They are beside the one of the URL, on the same disk, and are removed at the end. The store of
    the URL is never opened. Raises `Refusal` for a kind of which there is no throw-away store.
    """
    parts = urlsplit(url)
    path = path_of(url)
    if parts.scheme == "memory":
        open_store(url)  # raises for a wrong one
        yield lambda: "memory://"
    elif path is None:
        open_store(url)
        raise Refusal(
            ExitCode.USAGE,
            f"no throw-away store can be made of {masked(url)}",
            "sojourn.testing.check_store",
        )
    else:
        with _folder_beside(path) as folder:
            made = 0

            def make() -> str:
                nonlocal made
                made += 1
                place = quote(str(folder / f"{made}.db"))
                return f"{FILE_SCHEME}:///{place}" + (f"?{parts.query}" if parts.query else "")

            yield make


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise Refusal(ExitCode.UNAVAILABLE, f"there is no folder {parent}", "check the path")
    try:
        folder = tempfile.TemporaryDirectory(prefix=".sojourn-", dir=parent)
    except OSError as error:
        raise Unavailable(str(parent), error.strerror or str(error)) from error
    with folder as name:
        yield Path(name)
