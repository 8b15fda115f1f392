"""What a doctor finds: one line a check, what is wrong, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal, NamedTuple

from sojourn.cli.failures import DOCTOR, answer, told
from sojourn.cli.places import SCHEMA_SCHEMES
from sojourn.errors import Corrupt, ReadOnly
from sojourn.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sojourn.stores.postgres.inspection import Facts
    from sojourn.stores.redis.inspection import Facts as RedisFacts

Verdict = Literal["ok", "warning", "wrong"]

SPACE_LEAST = 256 * 1024 * 1024
"""Free bytes below which a disk is nearly full: a few times what the log may grow to."""

LOG_MOST = 256 * 1024 * 1024
"""Bytes of a write-ahead log that nobody moves into the file: four times what it is cut back to."""

DUE_MICROSECONDS = 600 * 1_000_000
"""How long a session may be due: ten rounds of a reaper. Longer, and none seems to run."""

CONNECTIONS_MOST = 0.8
"""Part of a server's connections in use above which the next ones may be refused."""

INSIDE_MOST = 100_000
"""Files and folders of a store that are looked at for who may get at them: a second's work."""

BESIDE = ("-wal", "-shm", "-gate")
"""What the files beside a SQLite file end with."""


class Finding(NamedTuple):
    """What came of one check. `step` is what to do, empty if nothing."""

    check: str
    verdict: Verdict
    found: str
    step: str = ""


def troubled(check: str, error: Exception) -> Finding:
    """Return a finding for a check that failed."""
    return Finding(check, "wrong", told(error), step_after(error))


def step_after(error: Exception) -> str:
    """Return what to try after trouble that a doctor found: not to ask the doctor."""
    if isinstance(error, Corrupt):
        return "keep a copy, restore a backup"
    if isinstance(error, ReadOnly):
        return "another user"
    step = answer(error)[1]
    return "check the URL, and what is there" if step == DOCTOR else step


def our_version() -> str:
    """Return the version of Sojourn."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sojourn")
    except PackageNotFoundError:  # it was never installed, not even in place
        return "of a source tree"


def versions() -> Finding:
    """Return which versions are at work."""
    text = f"sojourn {our_version()}, Python {platform.python_version()}"
    return Finding("versions", "ok", text)


def sqlite_library() -> Finding:
    """Return whether this SQLite is known to damage files."""
    from sojourn.stores.sqlite.inspection import SOUND_SQLITE, sqlite_version

    version, sound = sqlite_version(), ".".join(map(str, SOUND_SQLITE))
    text = "SQLite " + ".".join(map(str, version))
    if version < SOUND_SQLITE:
        reason = f"{text} can damage a file in WAL mode; {sound} is the first without that bug"
        return Finding("SQLite", "wrong", reason, "pip install --upgrade apsw")
    return Finding("SQLite", "ok", text)


def sqlite_file(path: Path) -> Finding:
    """Return whether the file is one of ours, on a local disk, and of the newest version."""
    from sojourn.stores.sqlite.inspection import NEWEST_VERSION, version_of

    try:
        version = version_of(str(path))
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        return troubled("file", error)
    text = f"{path}, version {version}, {path.stat().st_size} bytes"
    if version < NEWEST_VERSION:
        step = "stop older programs, make a copy, sojourn doctor --upgrade"
        return Finding("file", "warning", f"{text}; the newest is {NEWEST_VERSION}", step)
    return Finding("file", "ok", text)


def folder_of_files(path: Path) -> Finding:
    """Return whether the folder is a store of ours, on a local disk, and of a version we know."""
    from sojourn.stores.filesystem.inspection import size_of, version_of

    try:
        version, size = version_of(str(path)), size_of(str(path))
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        return troubled("file", error)
    return Finding("file", "ok", f"{path}, version {version}, {size} bytes")


def permissions(path: Path) -> Iterator[Finding]:
    """Yield who may read and write the file, its folder, and the files beside it."""
    try:
        about = path.stat()
    except OSError as error:
        yield troubled("permissions", error)
        return
    mode = stat.filemode(about.st_mode)
    if not os.access(path, os.R_OK | os.W_OK):
        step = "run this as the owner of the file"
        yield Finding("permissions", "wrong", f"{mode}: not readable and writable here", step)
    elif about.st_mode & stat.S_IWOTH:
        reason = f"{mode}: everybody on this machine can change it"
        yield Finding("permissions", "wrong", reason, f"chmod o-rw {quote(str(path))}")
    elif about.st_mode & stat.S_IROTH and not _closed(path.absolute().parent):
        reason = f"{mode}: everybody on this machine can read it"
        yield Finding("permissions", "warning", reason, f"chmod o-r {quote(str(path))}")
    else:
        yield Finding("permissions", "ok", mode)
    yield _folder(path.absolute().parent)
    yield from _beside(path, about)


def folder_permissions(path: Path) -> Iterator[Finding]:
    """Yield who may read and write the folder of a store, what is inside it, and its folder."""
    try:
        about = path.stat()
    except OSError as error:
        yield troubled("permissions", error)
        return
    yield _folder_of_store(path, about.st_mode)
    yield _folder(path.absolute().parent)


def _folder_of_store(path: Path, bits: int) -> Finding:
    """Return what others may do in the folder of a store.

    Its own mode does not say it all: who may only pass through it (x) opens every path inside that
    is open itself, and what is writable in there is, whatever the folder forbids.
    """
    mode = stat.filemode(bits)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        step = "run this as the owner of the folder"
        return Finding("permissions", "wrong", f"{mode}: not readable and writable here", step)
    step = f"chmod -R o-rwx {quote(str(path))}"
    if bits & stat.S_IWOTH:
        reason = f"{mode}: everybody on this machine can change it"
        return Finding("permissions", "wrong", reason, step)
    if not bits & (stat.S_IROTH | stat.S_IXOTH) or _closed(path.absolute().parent):
        return Finding("permissions", "ok", mode)
    inside = [] if not bits & stat.S_IXOTH else list(_open_to_others(path))
    changeable = [each for each, about in inside if about & stat.S_IWOTH]
    if changeable:
        reason = f"{mode}: everybody on this machine can change {_counted(changeable, path)}"
        return Finding("permissions", "wrong", reason, step)
    reading = "read" if bits & stat.S_IROTH else "get into"
    reason = f"{mode}: everybody on this machine can {reading} it"
    if inside:
        reason += f", and read {_counted([each for each, _ in inside], path)}"
    return Finding("permissions", "warning", reason, step)


def _counted(paths: list[str], top: Path) -> str:
    more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
    return f"{os.path.relpath(paths[0], top)}{more} inside"


def _open_to_others(top: Path) -> Iterator[tuple[str, int]]:
    """Yield the files and folders that others can read, list or change, and their modes."""
    folders, seen = [str(top)], 0
    while folders and seen < INSIDE_MOST:
        try:
            entries = sorted(os.scandir(folders.pop()), key=lambda entry: entry.name)
        except OSError:  # it has just been removed; what is in use changes
            continue
        for entry in entries[: INSIDE_MOST - seen]:
            seen += 1
            mode = _mode_of(entry)
            if mode & (stat.S_IROTH | stat.S_IWOTH):
                yield entry.path, mode
            if stat.S_ISDIR(mode) and mode & stat.S_IXOTH:
                folders.append(entry.path)


def _mode_of(entry: os.DirEntry[str]) -> int:
    """Return the mode of what is in a folder; 0 for a link, whose own says nothing."""
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError:  # it has just been removed
        return 0
    return 0 if stat.S_ISLNK(mode) else mode


def _closed(folder: Path) -> bool:
    """Return whether a folder lets nobody else in."""
    return not folder.stat().st_mode & stat.S_IXOTH


def _folder(folder: Path) -> Finding:
    about = folder.stat()
    mode = stat.filemode(about.st_mode)
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = f"{mode}: files can not be made in {folder} here"
        return Finding("folder", "wrong", reason, "run this as the owner of the folder")
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        reason = f"{mode}: everybody on this machine can replace files in {folder}"
        return Finding("folder", "warning", reason, f"chmod o-w {quote(str(folder))}")
    return Finding("folder", "ok", f"{mode} {folder}")


def _beside(path: Path, about: os.stat_result) -> Iterator[Finding]:
    """Yield the files beside that another user made: they lock out the owner of the file."""
    for suffix in BESIDE:
        beside = Path(f"{path}{suffix}")
        try:
            owner = beside.stat().st_uid
        except OSError:
            continue
        if owner != about.st_uid:
            reason = f"{beside} belongs to user {owner}, the file to {about.st_uid}"
            step = f"chown {about.st_uid} {quote(str(beside))}"
            yield Finding("owner", "warning", reason, step)


def space(path: Path) -> Finding:
    """Return how much room the disk has."""
    free = shutil.disk_usage(path.absolute().parent).free
    text = f"{free // 1024**2:,} MiB free"
    if free < SPACE_LEAST:
        return Finding("space", "warning", text, "make space before writes are refused")
    return Finding("space", "ok", text)


def log_size(path: Path) -> Finding:
    """Return how much of the data is still in the write-ahead log."""
    try:
        size = Path(f"{path}-wal").stat().st_size
    except OSError:
        return Finding("log", "ok", "everything is in the file")
    text = f"{size:,} bytes in {path.name}-wal, part of the data"
    if size > LOG_MOST:
        step = "end the reader that keeps it from being moved into the file"
        return Finding("log", "warning", text, step)
    return Finding("log", "ok", text)


def is_postgres(url: str) -> bool:
    """Return whether a URL names a PostgreSQL server."""
    return url.partition(":")[0] in SCHEMA_SCHEMES


async def postgres(url: str) -> list[Finding]:
    """Return what is known of a server, how it is set, and whether it has our schema."""
    try:
        found: Facts = await open_store(url).facts()  # type: ignore[attr-defined]  # it is PostgreSQL's
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        return [troubled("schema", error)]
    text = f"PostgreSQL {found.release}, encoding {found.encoding}"
    faults = "; ".join(found.faults(datetime.now(UTC).date()))
    server = Finding("server", "ok", text)
    if faults:
        server = Finding("server", "warning", f"{text}: {faults}", "upgrade the server")
    return [server, _durability(found), _connections(found), _schema(found)]


def _durability(found: Facts) -> Finding:
    """Return whether what is acknowledged is on the disk."""
    if not found.fsync:
        reason = "fsync is off: a crash of the machine loses acknowledged writes, or everything"
        return Finding("durability", "wrong", reason, "ALTER SYSTEM SET fsync = on, and reload")
    if not found.full_page_writes:
        reason = "full_page_writes is off: a crash of the machine can damage pages"
        step = "ALTER SYSTEM SET full_page_writes = on, and reload"
        return Finding("durability", "warning", reason, step)
    return Finding("durability", "ok", "what is acknowledged is on the server's disk")


def _connections(found: Facts) -> Finding:
    text = f"{found.connections} of {found.most_connections} connections are in use"
    if found.connections > found.most_connections * CONNECTIONS_MOST:
        step = "lower pool_size, put a pooler in between, or raise max_connections"
        return Finding("connections", "warning", text, step)
    return Finding("connections", "ok", text)


def _schema(found: Facts) -> Finding:
    """Return whether the schema is there and of the newest version."""
    from sojourn.stores.postgres.inspection import NEWEST_VERSION

    if not found.version:
        reason = "there is no store: the schema does not exist, or is empty"
        return Finding("schema", "wrong", reason, "check the URL; an application makes it")
    if found.version < NEWEST_VERSION:
        reason = f"version {found.version}; the newest is {NEWEST_VERSION}"
        return Finding("schema", "warning", reason, "sojourn doctor --upgrade")
    return Finding("schema", "ok", f"version {found.version}")


def is_redis(url: str) -> bool:
    """Return whether a URL names Redis or Valkey servers."""
    return url.partition(":")[0] in ("redis", "rediss", "redis+cluster")


async def redis(url: str) -> list[Finding]:
    """Return what is known of the servers, and how they are set."""
    store = open_store(url)
    try:
        found: RedisFacts = await store.facts()  # type: ignore[attr-defined]  # it is Redis's
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        return [troubled("server", error)]
    finally:
        await store.close()
    text = f"{found.release}, {found.masters} master{'s' * (found.masters > 1)}"
    server = Finding("server", "ok", text)
    if found.faults:
        reason = f"{text}: {'; '.join(found.faults)}"
        step = "upgrade it, unless your distribution has repaired it under this number"
        server = Finding("server", "warning", reason, step)
    return [server, _kept(found), _evicted(found)]


def _kept(found: RedisFacts) -> Finding:
    """Return what becomes of acknowledged writes when a server is lost."""
    if found.on_disk:
        return Finding("durability", "ok", "what is acknowledged is on the server's disk")
    if found.wanted and found.replicas <= found.wanted:
        reason = f"of {found.replicas} replicas of a master {found.wanted} have to confirm"
        step = "give each master one replica more, or no durable write goes on without one"
        return Finding("durability", "warning", reason, step)
    if found.wanted:
        text = f"{found.wanted} of {found.replicas} replicas confirm what is acknowledged"
        return Finding("durability", "ok", text)
    reason = "what is acknowledged is in a server's memory, and may be lost with it"
    step = "say ?replicas=1, or set appendonly yes and appendfsync always on a single server"
    return Finding("durability", "warning", reason, step)


def _evicted(found: RedisFacts) -> Finding:
    if found.eviction in ("", "noeviction"):
        return Finding("memory", "ok", "nothing is thrown away when memory is full")
    reason = f"maxmemory-policy is {found.eviction}: sessions are thrown away when memory is full"
    return Finding("memory", "wrong", reason, "CONFIG SET maxmemory-policy noeviction")


def due(app: str, number: int, since: int | None, now: int) -> Finding:
    """Return whether a reaper seems to run: nothing stays due for long then."""
    name = f"due in {app}"
    if not number or since is None:
        return Finding(name, "ok", "nothing waits for the reaper")
    seconds = (now - since) // 1_000_000
    text = f"{number} sessions wait for the reaper, the first one for {seconds} s"
    if now - since > DUE_MICROSECONDS:
        step = f"run a Reaper in the application, or sojourn reap --app {quote(app)}"
        return Finding(name, "warning", text, step)
    return Finding(name, "ok", text)
