"""Is the store well: `doctor`. It makes nothing, and changes nothing unless told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sojourn.cli import findings
from sojourn.cli.call import Call
from sojourn.cli.columns import Column
from sojourn.cli.failures import ExitCode, Refusal
from sojourn.cli.findings import Finding
from sojourn.cli.options import App, Json, StoreUrl, Url, Wide
from sojourn.cli.places import folder_of, outlives_program, path_of
from sojourn.errors import Unavailable
from sojourn.lifecycle import Phase
from sojourn.limits import MAX_PAGE
from sojourn.ports import SystemClock
from sojourn.settings import masked
from sojourn.store import Due, SupportsCheck
from sojourn.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from sojourn.manager import SessionManager
    from sojourn.stores.summary import AppSummary

MARKS = {"ok": "ok", "warning": "LOOK", "wrong": "WRONG"}
COLUMNS = (
    Column("CHECK", least=11, middle=True),
    Column("", least=5),
    Column("FOUND", least=30),
)


def register(program: typer.Typer) -> None:
    """Add the command."""
    program.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    store: StoreUrl = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read all of the store to check it.")
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Bring an older file to the newest version.")
    ] = False,
    json: Json = False,
    wide: Wide = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Examine a store, and say what to do: versions, permissions, integrity, what is due.

    A store that is not there is not made. The exit code is 1 if something is wrong.
    """
    call = Call(context, url=url if store is None else store, app=app, json=json, wide=wide)
    call.run(_examine(call, quick=quick, upgrade=upgrade))


async def _examine(call: Call, *, quick: bool, upgrade: bool) -> None:
    try:
        call.check_kept(version=False)  # what a server has not is a finding
    except Unavailable as error:
        raise Refusal(ExitCode.UNAVAILABLE, str(error), findings.step_after(error)) from error
    found = [findings.versions()]
    apps: list[dict[str, Any]] = []
    path, folder = path_of(call.url), folder_of(call.url)
    with call.output.progress("examining"):
        found += [] if path is None else _file_findings(path)
        found += [] if folder is None else _folder_findings(folder)
        if findings.is_postgres(call.url):
            found += await findings.postgres(call.url)
        if findings.is_redis(call.url):
            found += await findings.redis(call.url)
        usable = _usable(found, upgrade=upgrade)
        if usable:
            async for finding in _store_findings(call, quick=quick):
                found.append(finding)
    if usable and path is not None:
        found = [findings.sqlite_file(path) if one.check == "file" else one for one in found]
    if usable and not any(one.check == "opening" and one.verdict == "wrong" for one in found):
        await _add_apps(call, path or folder, apps, found)
    _report(call, found, apps)


def _file_findings(path: Path) -> list[Finding]:
    return [
        findings.sqlite_library(),
        findings.sqlite_file(path),
        *findings.permissions(path),
        findings.space(path),
        findings.log_size(path),
    ]


def _folder_findings(folder: Path) -> list[Finding]:
    return [
        findings.folder_of_files(folder),
        *findings.folder_permissions(folder),
        findings.space(folder),
    ]


def _usable(found: list[Finding], *, upgrade: bool) -> bool:
    """Return whether the store can be opened without changing what must not be changed."""
    places = [one for one in found if one.check in ("file", "schema")]
    return all(one.verdict == "ok" or (one.verdict == "warning" and upgrade) for one in places)


async def _store_findings(call: Call, *, quick: bool) -> AsyncIterator[Finding]:
    """Open the store, have it check itself, and count."""
    try:
        async with call.sessions(upgrade=True) as sessions:
            yield Finding("opening", "ok", sessions.store.name)
            if not quick:
                async for finding in _integrity(sessions):
                    yield finding
            if not _has_summaries(call.url):
                yield await _counts(sessions)
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        yield findings.troubled("opening", error)


async def _integrity(sessions: SessionManager) -> AsyncIterator[Finding]:
    store = sessions.store
    if not isinstance(store, SupportsCheck):
        yield Finding("integrity", "ok", "this kind of store has no check of its own")
        return
    try:
        damage = await store.check()
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        yield findings.troubled("integrity", error)
        return
    if not damage:
        yield Finding("integrity", "ok", "sessions, events, documents and counts agree")
    for words in damage:
        yield Finding("integrity", "wrong", words, "keep a copy, restore a backup")


async def _counts(sessions: SessionManager) -> Finding:
    """Count what one app has in a store that can not say what all have."""
    phases = {phase: await sessions.count(phase=phase) for phase in Phase}
    waiting = Due(app=sessions.app, now=sessions.now(), limit=MAX_PAGE)
    due = await sessions.store.due(waiting)
    counted = [f"{number} {phase}" for phase, number in phases.items() if number]
    text = f"{', '.join(counted) or 'no sessions'}; {len(due)} wait for the reaper"
    return Finding(f"app {sessions.app}", "ok", text)


def _has_summaries(url: str) -> bool:
    """Return whether a store of this URL can say what each app has."""
    return outlives_program(url)


async def _add_apps(
    call: Call, path: Path | None, apps: list[dict[str, Any]], found: list[Finding]
) -> None:
    """Add what the store holds of each app, or of the one that was named with the call."""
    if not _has_summaries(call.url):
        return
    now, named = SystemClock().now(), call.named_app
    try:
        held = await _summaries(call.url, path, now, named)
    except Exception as error:  # noqa: BLE001 - the trouble is the finding
        found.append(findings.troubled("counting", error))
        return
    if named is not None:
        held = [one for one in held if one.app == named]
        if not held:
            found.append(Finding(f"app {named}", "ok", "no sessions"))
            apps.append({"app": named, "sessions": 0, "phases": {}, "due": 0})
    _tell_apps(held, now, apps, found)


async def _summaries(
    url: str, path: Path | None, now: int, named: str | None
) -> Sequence[AppSummary]:
    """Return what the file, the folder, or the server holds of each app, or at least of one."""
    if path is not None:
        return _summaries_of_place(path, now)
    store: Any = open_store(url)
    only = {"apps": [named]} if named is not None and findings.is_redis(url) else {}
    try:
        held: Sequence[AppSummary] = await store.summaries(now, **only)
    finally:
        await store.close()
    return held


def _summaries_of_place(path: Path, now: int) -> Sequence[AppSummary]:
    if path.is_dir():
        from sojourn.stores.filesystem import inspection as files

        return files.summaries(str(path), now)
    from sojourn.stores.sqlite.inspection import summaries

    return summaries(str(path), now)


def _tell_apps(
    held: Sequence[AppSummary], now: int, apps: list[dict[str, Any]], found: list[Finding]
) -> None:
    """Add what is held of each app, and whether a reaper seems to run."""
    for one in held:
        counted = ", ".join(f"{number} {phase}" for phase, number in sorted(one.phases.items()))
        found.append(Finding(f"app {one.app}", "ok", counted or "no sessions"))
        found.append(findings.due(one.app, one.due, one.due_since, now))
        apps.append(
            {"app": one.app, "sessions": one.sessions, "phases": one.phases, "due": one.due}
        )


def _report(call: Call, found: list[Finding], apps: list[dict[str, Any]]) -> None:
    wrong = [one for one in found if one.verdict == "wrong"]
    if call.output.json:
        checks = [
            {"check": one.check, "verdict": one.verdict, "found": one.found, "try": one.step}
            for one in found
        ]
        document = {"url": masked(call.url), "ok": not wrong, "checks": checks, "apps": apps}
        call.output.document(document)
    else:
        call.output.table(COLUMNS, [(one.check, MARKS[one.verdict], one.found) for one in found])
        for line in _advice(found):
            call.output.line(line)
    if wrong:
        raise Refusal(ExitCode.FAILED, f"{len(wrong)} of {len(found)} checks: wrong", wrong[0].step)


def _advice(found: list[Finding]) -> Iterator[str]:
    """Yield what to do about what was found, in whole sentences: a table may cut them."""
    for one in found:
        if one.verdict != "ok":
            yield ""
            yield f"{one.check}: {one.found}"
            yield f"  try: {one.step}"
