"""Moving sessions between stores and files: `export`, `import` and `copy`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from sojourn.cli.call import Call
from sojourn.cli.failures import ExitCode, Refusal
from sojourn.cli.options import Json, Url
from sojourn.cli.streams import bytes_from, bytes_to
from sojourn.errors import Corrupt, ForeignFile, NewerSchema, StorageFull, Unavailable
from sojourn.names import check_name
from sojourn.ports import SystemClock
from sojourn.settings import OPTION_OF_URL, masked
from sojourn.store import Query, place_of
from sojourn.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from sojourn.cli.output import Output
    from sojourn.store import Store
    from sojourn.transfer import Copied, Exported, Imported
    from sojourn.transfer import Refusal as Refused

STREAM = "-"
"""The file that stands for the standard streams."""

Apps = Annotated[
    list[str] | None,
    typer.Option("--app", metavar="NAME", help="Only this app; may be given more than once."),
]


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.command("export")(export)
    program.command("import")(import_)
    program.command("copy")(copy)


def export(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A new file, compressed for .gz. - is stdout."),
    ],
    *,
    app: Apps = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Write all sessions of a store to a file: JSON, one line for each, with checksums.

    The store can be in use meanwhile. The file appears once it is whole.
    """
    if json and file == STREAM:
        raise typer.BadParameter("the export itself goes to stdout: no --json with -")
    call = Call(context, url=url, json=json)
    call.run(_export(call, file, _chosen(call, app)))


async def _export(call: Call, file: str, apps: Sequence[str] | None) -> None:
    from sojourn.transfer import export_sessions

    await call.check_there()
    sink: Any = bytes_to(sys.stdout) if file == STREAM else file
    async with _opened(call.url) as store:
        with _file_told(file), Bars(call.output) as bars:
            exported = await export_sessions(store, sink, apps=apps, progress=bars)
        await _note_missing(call, store, apps)
    _tell(call, _export_facts(exported), quiet=file == STREAM)
    for error in exported.corrupt:
        call.output.note(str(error))
    if exported.corrupt_count:
        things = "sessions or things that they share can not be read and are not in the export"
        reason = f"{exported.corrupt_count} {things}"
        raise Refusal(ExitCode.FAILED, reason, "sojourn doctor")


def import_(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An export, plain or .gz. - is stdin.")
    ],
    *,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Also take older revisions forward, and replace what sessions share.",
        ),
    ] = False,
    app: Apps = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Put the sessions of an export into a store, exactly as they were. Again is harmless.

    The store is made if there is none. What is there stays: another session with the same id, and
    whatever moved on since.
    """
    if file != STREAM and not Path(file).exists():
        raise Refusal(ExitCode.USAGE, f"there is no file {file}", "check the path")
    call = Call(context, url=url, json=json)
    call.run(_import(call, file, _chosen(call, app), replace=replace))


async def _import(call: Call, file: str, apps: Sequence[str] | None, *, replace: bool) -> None:
    from sojourn.transfer.importing import Lines, import_lines

    lines = Lines(_input() if file == STREAM else file)
    try:
        with _file_told(lines.name):
            await lines.begin()  # what is no export makes no store
            async with _opened(call.url) as store:
                with Bars(call.output) as bars:
                    imported = await import_lines(
                        store, lines, replace=replace, apps=apps, progress=bars
                    )
    finally:
        lines.close()
    _tell(call, _import_facts(imported))
    _note_refusals(call, imported.refusals)
    if apps and not (imported.restored or imported.unchanged or imported.refused):
        call.output.note(f"no sessions of {', '.join(map(repr, apps))} in the file")
    if imported.refused:
        reason = f"{imported.refused} sessions were not imported"
        raise Refusal(ExitCode.CONFLICT, reason, "--replace for older revisions, else sojourn show")


def _input() -> Any:
    """Return the bytes of stdin. Raises `Refusal` where that is closed."""
    if sys.stdin is None:
        raise Refusal(ExitCode.USAGE, "there is nothing to read: stdin is closed", "a file")
    return bytes_from(sys.stdin)


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help="The URL of the store to copy.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="The URL of the store to copy to; made if missing.")
    ],
    *,
    final: Annotated[
        bool,
        typer.Option("--final", help="No copy follows: drop what is noted in DST for the next."),
    ] = False,
    app: Apps = None,
    json: Json = False,
) -> None:
    """Make one store have every session of another, of whatever kind, and compare checksums.

    SRC can be in use meanwhile. Interrupted or not, the same again goes on from what DST has,
    brings what changed, and removes what was copied and SRC has deleted since.
    """
    call = Call(context, url=source, json=json)
    call.run(_copy(call, target, _chosen(call, app), final=final))


async def _copy(call: Call, target: str, apps: Sequence[str] | None, *, final: bool) -> None:
    from sojourn.transfer import copy as copy_sessions

    await call.check_there()
    places = [place_of(store) for store in (open_store(call.url), open_store(target))]
    if places[0] == places[1]:
        reason = f"{masked(target)} is the store to copy from"
        raise Refusal(ExitCode.USAGE, reason, "another URL for DST")
    async with _opened(call.url) as ours, _opened(target) as theirs:
        with Bars(call.output) as bars:
            copied = await copy_sessions(ours, theirs, apps=apps, final=final, progress=bars)
        await _note_missing(call, ours, apps)
    _tell(call, _copy_facts(copied))
    _note_refusals(call, copied.refusals)
    if copied.different:
        things = "sessions or things that they share are not the same in"
        reason = f"{copied.different} {things} {masked(target)}"
        raise Refusal(ExitCode.CONFLICT, reason, "sojourn show ID --url of both")
    if copied.behind:
        reason = f"{copied.behind} sessions changed while they were compared"
        raise Refusal(ExitCode.FAILED, reason, "the same again, once SRC is quiet")


# --- what they share ---------------------------------------------------------------------------


@contextmanager
def _file_told(name: str) -> Iterator[None]:
    """Raise `Refusal` for trouble with the file of this name: a store is not to blame for it."""
    try:
        yield
    except Corrupt as damage:
        step = "the same with a file that is whole"
        raise Refusal(ExitCode.FAILED, str(damage), step) from damage
    except (ForeignFile, NewerSchema, StorageFull):
        raise  # what to try is the same for stores and files
    except Unavailable as error:
        if error.store != name:
            raise
        raise Refusal(ExitCode.UNAVAILABLE, str(error), "check the path") from error


def _chosen(call: Call, apps: Sequence[str] | None) -> Sequence[str] | None:
    """Return the apps that were named, behind the command, before it or in the URL; `None` for all.

    What is set in the environment or a file chooses none, and a remark says so: it is there for
    other commands, and a backup that lacks apps would be noticed when it is needed. Raises
    `InvalidId` or `InvalidSetting`, before any store is opened.
    """
    if apps:
        for app in apps:
            check_name("app", app)
        return apps
    app, source = call.app, call.settings.sources["app"]
    if source.startswith(OPTION_OF_URL):
        call.output.note(f"only app {app!r}, as the URL says")
    elif source not in ("argument", "default"):
        call.output.note(f"all apps, not only {app!r} of {source}. try: --app {quote(app)}")
        return None
    return None if source == "default" else [app]


async def _note_missing(call: Call, store: Store, apps: Sequence[str] | None) -> None:
    """Note which of the apps that were named have no session: the name may be mistyped."""
    for app in apps or ():
        found = await store.list(Query(app=app, now=SystemClock().now(), limit=1, expired=True))
        if not found.records and not found.corrupt:
            call.output.note(f"no sessions in app {app!r}")


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Store]:
    """Open a store and close it again."""
    store = open_store(url)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


class Bars:
    """A progress bar for each thing that is done, one after the other."""

    def __init__(self, output: Output) -> None:
        """Nothing is shown before the first call."""
        self._output = output
        self._stack = ExitStack()
        self._what = ""
        self._done = 0
        self._advance: Callable[[int], None] = _ignore

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that so many of about so many sessions are done."""
        if what != self._what:
            self._stack.close()
            self._what, self._done = what, 0
            self._advance = self._stack.enter_context(self._output.progress(what, total))
        self._advance(done - self._done)
        self._done = done


def _ignore(_: int) -> None:
    """Stand in for a bar before there is one."""


def _tell(call: Call, facts: dict[str, int], *, quiet: bool = False) -> None:
    if quiet:
        return
    if call.output.json:
        call.output.document(facts)
    else:
        call.output.facts([(name, f"{number:,}") for name, number in facts.items()])


def _note_refusals(call: Call, refusals: Sequence[Refused]) -> None:
    for app, _, error, line in refusals:
        where = "" if line is None else f"line {line}, "
        call.output.note(f"{where}app {app!r}: {error}")


def _export_facts(exported: Exported) -> dict[str, int]:
    names = ("sessions", "tiers", "documents", "lines", "bytes")
    facts = {name: getattr(exported, name) for name in names}
    return {**facts, "corrupt": exported.corrupt_count}


def _import_facts(imported: Imported) -> dict[str, int]:
    names = ("restored", "unchanged", "refused", "tiers", "documents", "lines")
    return {name: getattr(imported, name) for name in names}


def _copy_facts(copied: Copied) -> dict[str, int]:
    names = ("put", "removed", "shared", "verified", "behind", "different")
    return {name: getattr(copied, name) for name in names}
