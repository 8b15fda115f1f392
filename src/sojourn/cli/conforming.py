"""Does this kind of store keep the contract: `conform`, on throw-away stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sojourn.cli.call import Call
from sojourn.cli.failures import ExitCode, Refusal
from sojourn.cli.options import Json, StoreUrl, Url
from sojourn.cli.places import (
    folder_of,
    is_served,
    is_there,
    outlives_program,
    path_of,
    throwaway,
)
from sojourn.ports import SystemClock
from sojourn.settings import masked
from sojourn.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sojourn.store import Store
    from sojourn.testing.conformance import Outcome, Report

MARKS = {"kept": "kept", "broken": "BROKEN", "not applicable": "-"}


def register(program: typer.Typer) -> None:
    """Add the command."""
    program.command("conform")(conform)


def conform(
    context: typer.Context,
    store: StoreUrl = None,
    *,
    law: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this law; may be repeated."),
    ] = None,
    list_laws: Annotated[
        bool, typer.Option("--list", help="Name the laws and check nothing.")
    ] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Check every law of the contract on new stores of this kind, beside the one that is named.

    A store that holds anything is refused. The exit code is 1 if a law is broken.
    """
    call = Call(context, url=url if store is None else store, json=json)
    if list_laws:
        _list(call)
    else:
        call.run(_conform(call, law or ()))


def _list(call: Call) -> None:
    from sojourn.testing import LAWS

    if call.output.json:
        call.output.document(list(LAWS))
        return
    for name in LAWS:
        call.output.line(name)


async def _conform(call: Call, wanted: Iterable[str]) -> None:
    laws = _chosen(wanted)
    _refuse_data(call.url)
    if is_served(call.url):
        await _refuse_served(call.url)
    async with throwaway(call.url) as make:
        report = await _checked(call, make, laws)
    if call.output.json:
        _write_json(call, report)
    else:
        _write(call, report)
    if report.broken:
        raise Refusal(
            ExitCode.FAILED,
            f"{len(report.broken)} of {len(laws)} laws are broken",
            "the same with --law NAME, for one of them",
        )


def _chosen(wanted: Iterable[str]) -> list[str]:
    from sojourn.testing import LAWS

    for name in wanted:
        if name not in LAWS:
            raise Refusal(ExitCode.USAGE, f"there is no law {name!r}", "sojourn conform --list")
    return list(dict.fromkeys(wanted)) or list(LAWS)


def _refuse_data(url: str) -> None:
    """Raise `Refusal` if there is anything in the store that is named.

    It would not be opened; but whoever names it should not come to think that it is for trying.
    """
    folder = folder_of(url)
    if folder is not None:
        _refuse_folder(folder)
    path = path_of(url)
    if path is None or not path.exists() or path.stat().st_size == 0:
        return
    from sojourn.stores.sqlite.inspection import is_empty

    if not is_empty(str(path)):
        raise _taken(path, "laws.db")


def _refuse_folder(folder: Path) -> None:
    from sojourn.stores.filesystem import inspection

    if inspection.is_there(str(folder)) and not inspection.is_empty(str(folder)):
        raise _taken(folder, "laws")


async def _refuse_served(url: str) -> None:
    store = open_store(url)
    if not hasattr(store, "summaries") or not await is_there(url):
        return
    try:
        found = await store.summaries(SystemClock().now())
    finally:
        await store.close()
    if any(summary.phases for summary in found):
        reason = f"there are data in {masked(url)}; laws are checked beside an empty store or none"
        raise Refusal(
            ExitCode.FAILED, reason, "another ?schema= of PostgreSQL, or ?prefix= of Redis"
        )


def _taken(path: Path, other: str) -> Refusal:
    reason = f"there are data in {path}; laws are checked beside an empty store or none"
    return Refusal(ExitCode.FAILED, reason, f"a new name, for example {path.with_name(other)}")


async def _checked(call: Call, make: Callable[[], str], laws: list[str]) -> Report:
    from sojourn.testing.conformance import Report, check_store

    urls: dict[int, str] = {}

    def fresh() -> Store:
        url = make()
        made = open_store(url)
        urls[id(made)] = url
        return made

    def again(closed: Store) -> Store:
        url = urls[id(closed)]
        made = open_store(url)
        urls[id(made)] = url
        return made

    reopen = again if outlives_program(call.url) else None
    outcomes: list[Outcome] = []
    with call.output.progress("checking laws", len(laws)) as advance:
        for law in laws:
            report = await check_store(fresh, reopen=reopen, laws=[law])
            outcomes += report.outcomes
            advance(1)
    return Report(masked(call.url), outcomes)


def _write(call: Call, report: Report) -> None:
    noun = ""
    for outcome in report.outcomes:
        if outcome.noun != noun:
            noun = outcome.noun
            call.output.heading(noun)
        call.output.line(f"  {MARKS[outcome.verdict]:<6}  {outcome.law}")
        for line in outcome.reason.splitlines():
            call.output.line(f"            {line}")
    call.output.line()
    kept, other = len(report.kept), len(report.not_applicable)
    call.output.line(f"{kept} kept, {len(report.broken)} broken, {other} not applicable")


def _write_json(call: Call, report: Report) -> None:
    laws = [
        {
            "law": outcome.law,
            "about": outcome.noun,
            "verdict": outcome.verdict,
            "reason": outcome.reason,
        }
        for outcome in report.outcomes
    ]
    call.output.document({"store": report.store, "ok": report.ok, "laws": laws})
