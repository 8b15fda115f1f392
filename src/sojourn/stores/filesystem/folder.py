"""The folder of a store: what marks it as ours, and whose shards are in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from sojourn.errors import ForeignFile, NewerSchema, Unavailable
from sojourn.stores.filesystem.frames import VERSION
from sojourn.stores.filesystem.replica import app_of
from sojourn.stores.filesystem.snapshots import MAKING, UNFINISHED, remove_folder

if TYPE_CHECKING:
    from sojourn.stores.filesystem.disk import Disk

MARK = "sojourn.json"
"""The file that says that a folder is a store, and of which version."""

FORMAT = "sojourn files"
"""What the mark calls the format."""

GATE = "gate"
"""The file that a process has locked while it writes."""

APPS = "apps"
"""The folder that has a folder for each app."""

_OURS = frozenset({MARK, MARK + UNFINISHED, GATE, APPS})


class Mark(msgspec.Struct, frozen=True):
    """What the mark says."""

    format: str
    version: int


def check(disk: Disk, path: str) -> bool:
    """Return whether a folder is a store, `False` if one can be made there.

    Raises `ForeignFile` for anything else, `NewerSchema` for a store of a later version,
    `Unavailable` if there is no folder to make it in.
    """
    try:
        names = disk.names(path)
    except NotADirectoryError:
        raise ForeignFile(path, "it is a file, not a folder of Sojourn's") from None
    except FileNotFoundError:
        parent = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(parent):
            raise Unavailable(path, f"its folder {parent!r} does not exist") from None
        return False
    if MARK not in names:
        foreign = sorted(set(names) - _OURS)
        if not foreign and APPS in names and shard_folders(disk, path):
            foreign = [APPS]
        if foreign:
            raise ForeignFile(path, f"the folder has other things in it ({foreign[0]!r})")
        return False
    version = version_of(disk, path)
    if version > VERSION:
        reason = f"the folder has version {version}, this Sojourn knows up to {VERSION}"
        raise NewerSchema(path, f"{reason}; upgrade Sojourn to open it")
    return True


def version_of(disk: Disk, path: str) -> int:
    """Return the version of a store. Raises `ForeignFile` if the mark is none of ours."""
    name = os.path.join(path, MARK)
    file = disk.open(name)
    try:
        text = disk.read(file, 4_096, 0)
    finally:
        os.close(file)
    try:
        mark = msgspec.json.decode(text, type=Mark)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ForeignFile(path, f"its {MARK} is not one of Sojourn's ({error})") from error
    if mark.format != FORMAT or mark.version < 1:
        raise ForeignFile(path, f"its {MARK} is not one of Sojourn's")
    return mark.version


def make(disk: Disk, path: str) -> None:
    """Make a store of a folder that is empty, inside the gate; the mark comes last."""
    apps, name = os.path.join(path, APPS), os.path.join(path, MARK)
    if not os.path.isdir(apps):
        disk.make_folder(apps)
    file = disk.open(name + UNFINISHED, create=True)
    try:
        disk.write(file, msgspec.json.encode(Mark(FORMAT, VERSION)) + b"\n", 0)
        disk.sync(file)
    finally:
        os.close(file)
    disk.rename(name + UNFINISHED, name)
    disk.sync_folder(path)


def clean(disk: Disk, path: str) -> None:
    """Remove shards that a crash left half-made; inside the gate, where they are made."""
    apps = os.path.join(path, APPS)
    for name in disk.names(apps):
        if name.startswith(MAKING):
            remove_folder(disk, os.path.join(apps, name))


def app_names(disk: Disk, path: str) -> list[str]:
    """Return the names of all apps that have files. Raises `Corrupt` where one has no beginning."""
    return [app_of(disk, folder) for folder in shard_folders(disk, path)]


def shard_folders(disk: Disk, path: str) -> list[str]:
    """Return the folders of all apps."""
    apps = os.path.join(path, APPS)
    return [os.path.join(apps, name) for name in disk.names(apps) if not name.startswith(MAKING)]
