"""Where the store of a URL is: whether it is there, and how to make a throw-away one like it."""

from __future__ import annotations

import secrets
import tempfile
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from sojourn.cli.failures import ExitCode, Refusal
from sojourn.errors import InvalidQuery, SojournError, Unavailable
from sojourn.settings import masked
from sojourn.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from urllib.parse import SplitResult

FILE_SCHEME = "sqlite"
"""The scheme of stores that are one file; what is said of files here and elsewhere is SQLite's."""

SCHEMA_SCHEMES = ("postgres", "postgresql")
"""The schemes of stores that are a schema of a server's database."""

FOLDER_SCHEME = "file"
"""The scheme of stores that are a folder of plain files."""


def _parts(url: str) -> SplitResult:
    """Return the parts of a URL. Raises `InvalidQuery` for one that can not be taken apart."""
    try:
        return urlsplit(url)
    except ValueError:  # whose message may hold a password
        reason = "it is malformed: a bracket or a character that no host has"
        raise InvalidQuery("store URL", reason) from None


def path_of(url: str) -> Path | None:
    """Return the file that is the store of a URL, `None` if it is none.

    Raises `InvalidQuery` for a URL that no store has.
    """
    scheme = _parts(url).scheme
    if scheme != FILE_SCHEME:
        return None
    return Path(open_store(url).name.removeprefix(f"{FILE_SCHEME}:///"))


def folder_of(url: str) -> Path | None:
    """Return the folder that is the store of a URL, `None` if it is none.

    Raises `InvalidQuery` for a URL that no store has.
    """
    if _parts(url).scheme != FOLDER_SCHEME:
        return None
    return Path(open_store(url).name.removeprefix(f"{FOLDER_SCHEME}://"))


def outlives_program(url: str) -> bool:
    """Return whether what a store of this URL keeps is there for the next program."""
    return _parts(url).scheme != "memory"


def is_served(url: str) -> bool:
    """Return whether a store of this URL is on a server."""
    return outlives_program(url) and path_of(url) is None and folder_of(url) is None


async def is_there(url: str) -> bool:
    """Return whether the store of a server is there; what has no schema always is."""
    if _parts(url).scheme not in SCHEMA_SCHEMES:
        return True
    facts = await open_store(url).facts()  # type: ignore[attr-defined]  # it is PostgreSQL's
    return bool(facts.version)


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
    if _parts(url).scheme not in SCHEMA_SCHEMES:
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


@asynccontextmanager
async def throwaway(url: str) -> AsyncIterator[Callable[[], str]]:
    """Yield a function that returns the URL of a new, empty store of this kind, each time another.

    They are beside the one of the URL, on the same disk or server, and are removed at the end. The
    store of the URL is not touched. Raises `InvalidQuery` for a URL that no store has, `Refusal`
    for a kind of which there is no throw-away store.
    """
    parts = _parts(url)
    store = open_store(url)
    path = path_of(url) or folder_of(url)
    if path is not None:
        with _folder_beside(path) as folder:
            # A folder's URL has two slashes before the path, a file's has three.
            start = "sqlite:///" if parts.scheme == FILE_SCHEME else "file://"
            query = f"?{parts.query}" if parts.query else ""
            numbers = count(1)
            yield lambda: f"{start}{quote(str(folder / f'{next(numbers)}.db'))}{query}"
    elif parts.scheme == "memory":
        yield lambda: "memory://"
    elif not hasattr(store, "drop"):
        raise Refusal(
            ExitCode.USAGE,
            f"no throw-away store can be made of {masked(url)}",
            "sojourn.testing.check_store",
        )
    else:
        async with _served(parts) as make:
            yield make


@asynccontextmanager
async def _served(parts: SplitResult) -> AsyncIterator[Callable[[], str]]:
    """Yield what `throwaway` does, on a server: schemas, or keys with prefixes of their own."""
    option = "schema" if parts.scheme in SCHEMA_SCHEMES else "prefix"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    start = f"sojourn_try_{secrets.token_hex(4)}"
    made: list[str] = []

    def make() -> str:
        query = urlencode({**options, option: f"{start}_{len(made) + 1}"})
        made.append(urlunsplit(parts._replace(query=query)))
        return made[-1]

    try:
        yield make
    finally:
        failed = [error for url in made if (error := await _dropped(url)) is not None]
        if failed:
            raise failed[0]


async def _dropped(url: str) -> SojournError | None:
    """Remove a store; return what was in the way: whoever has several goes on with the next."""
    store = open_store(url)
    try:
        await store.drop()  # type: ignore[attr-defined]  # it was asked whether it can
    except SojournError as error:
        return error
    finally:
        await store.close()
    return None


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
