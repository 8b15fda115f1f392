"""What the demo wrote down outside the database: what was acknowledged, seen and promised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "demo.db"
LEDGER = "ledger.json"
_SIDE_FILES = ("", "-wal", "-shm", "-journal", "-gate")


class Acknowledged(msgspec.Struct, frozen=True):
    """A write whose `await` returned, as its process reported it over a pipe."""

    author: str
    what: Literal["message", "card"]
    number: int
    seq: int = 0


class Seen(msgspec.Struct, frozen=True):
    """An event that a watching process was given."""

    seq: int
    id: str


class Check(msgspec.Struct, frozen=True):
    """One line of the final table."""

    what: str
    expected: str
    found: str
    ok: bool


def compare(what: str, expected: object, found: object) -> Check:
    """Return a line of the table for two things that have to be the same."""
    return Check(what, str(expected), str(found), expected == found)


class Ledger(msgspec.Struct, kw_only=True):
    """Everything that the file is compared with. Kept beside it, so that it can be done again."""

    room: str = ""
    visitor: str = ""
    fork: str = ""
    forked_at: int = 0
    interrupted: str = ""
    acknowledged: list[Acknowledged] = []
    watched: list[list[Seen]] = []
    checks: list[Check] = []

    def save(self, folder: Path) -> None:
        """Write it beside the database."""
        (folder / LEDGER).write_bytes(msgspec.json.format(msgspec.json.encode(self)))


def load(folder: Path) -> Ledger:
    """Return what an earlier run wrote down. Raises `FileNotFoundError` if there was none."""
    return msgspec.json.decode((folder / LEDGER).read_bytes(), type=Ledger)


def database_url(folder: Path) -> str:
    """Return the URL of the demo's database."""
    return f"sqlite:///{folder / DATABASE}"


def start_over(folder: Path) -> Ledger:
    """Remove what an earlier run left and return an empty ledger, saved as the sign of a demo.

    Raises `FileExistsError` for a database that no demo made; it is not touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / DATABASE
    if database.exists() and not (folder / LEDGER).exists():
        raise FileExistsError(f"{database} was not made by this demo; choose another --folder")
    for suffix in _SIDE_FILES:
        (folder / (DATABASE + suffix)).unlink(missing_ok=True)
    ledger = Ledger()
    ledger.save(folder)
    return ledger
