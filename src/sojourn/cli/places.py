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

SCHEMA_SCHEMES = ("postgres", "postgresql")
"""The schemes of stores that are a schema of a server's database."""

FOLDER_SCHEME = "file"
"""The scheme of stores that are a folder of plain files."""


def path_of(url: str) -> Path | None:
    """Return the file that is the store of a URL, `None` if it is none.

    Raises `InvalidQuery` for a URL that no store has.
    """
    scheme = urlsplit(url).scheme
    if scheme != FILE_SCHEME:
        return None
    return Path(open_store(url).name.removeprefix(f"{FILE_SCHEME}:///"))


def folder_of(url: str) -> Path | None:
    """Return the folder that is the store of a URL, `None` if it is none.

    Raises `InvalidQuery` for a URL that no store has.
    """
    if urlsplit(url).scheme != FOLDER_SCHEME:
        return None
    return Path(open_store(url).name.removeprefix(f"{FOLDER_SCHEME}://"))


def is_kept(url: str) -> bool:
    """Return whether what a store of this URL keeps is on this machine's disk."""
    return path_of(url) is not None or folder_of(url) is not None


def check_there(url: str) -> None:
    """Raise `Refusal` if opening the store would make it: a mistyped path must not become a store.

    Raises `InvalidQuery` for a URL that no store has.
    """
    folder = folder_of(url)
    if folder is not None:
        _check_folder(folder)
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


async def check_served(url: str, *, version: bool) -> None:
    """Raise `Refusal` if opening the store of a server would make it there.

    With `version` also if opening it would bring its schema to a newer version. Raises what opening
    would for a place that is not one of ours.
    """
    if urlsplit(url).scheme not in SCHEMA_SCHEMES:
        return
    store = open_store(url)
    from sojourn.stores.postgres.inspection import NEWEST_VERSION

    found: int = (await store.facts()).version  # type: ignore[attr-defined]  # it is PostgreSQL's
    if not found:
        raise Refusal(
            ExitCode.UNAVAILABLE,
            f"there is no store at {store.name}: its schema is missing, or empty",
            "check the URL; the first application that opens it makes the store",
        )
    if version and found < NEWEST_VERSION:
        raise Refusal(
            ExitCode.UNAVAILABLE,
            f"{store.name} has version {found}, and this Sojourn would make it {NEWEST_VERSION}",
            "sojourn doctor --upgrade, when no older program uses it",
        )


def _check_folder(folder: Path) -> None:
    """Raise `Refusal` if there is no store in a folder; what else it may be, opening says."""
    from sojourn.stores.filesystem.inspection import is_there

    if not is_there(str(folder)):
        raise Refusal(ExitCode.UNAVAILABLE, f"there is no store at {folder}", "check the path")


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
    path = path_of(url) or folder_of(url)
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
                # A folder's URL has two slashes before the path, a file's has three.
                start = "sqlite:///" if parts.scheme == FILE_SCHEME else "file://"
                place = quote(str(folder / f"{made}.db"))
                return f"{start}{place}" + (f"?{parts.query}" if parts.query else "")

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
