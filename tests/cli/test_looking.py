"""`ls`, `show` and `tail` through pipes: what they say in JSON, and that they write nothing."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from tests.cli.conftest import HOSTILE, LONG
from tests.cli.terminals import piped

from sojourn import Event, SessionManager, open_store
from sojourn.stores.sqlite import schema

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Runner

IMPOSSIBLE = 999_999_999_999_999_999
"""Microseconds far behind the year 9999, and far before the year 1 where they are negative."""

HERE = ("-u", "sqlite:///app.db", "--app", "shop")
SESSION_KEYS = [
    "app", "id", "user", "lifecycle", "phase", "reason", "revision", "epoch", "events",
    "created_at", "active_at", "expires_at", "parent", "forked_from", "labels", "exclusive",
]  # fmt: skip
READS = [("ls",), ("show", "s-1"), ("tail", "s-1"), ("doctor",)]


def ids_of(out: str) -> list[str]:
    """Return the ids of a document of sessions."""
    return [session["id"] for session in json.loads(out)["sessions"]]


# --- ls -------------------------------------------------------------------------------------------


def test_ls_is_one_document_with_stable_keys(database: Path, sojourn: Runner) -> None:
    done = sojourn("ls", "--json", *HERE)
    assert done.code == 0
    assert not done.err
    document = json.loads(done.out)
    assert list(document) == ["sessions", "cursor", "corrupt"]
    assert all(list(session) == SESSION_KEYS for session in document["sessions"])
    assert {"s-1", "agent-1", LONG} < set(ids_of(done.out))


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--user", "u-1"], {"s-1"}),
        (["--phase", "active"], {"agent-1"}),
        (["--phase", "ACTIVE", "--phase", "OPEN", "--parent", "s-1"], {"agent-1"}),
        (["--label", "channel=web"], {"s-1"}),
        (["--label", "channel=web", "--label", "place=[red]"], {"s-1"}),
        (["--label", "channel=web", "--label", "channel=web"], {"s-1"}),
        (["--label", "channel=none"], set()),
        (["--app", "other"], set()),
    ],
)
def test_ls_filters(database: Path, sojourn: Runner, options: list[str], ids: set[str]) -> None:
    assert set(ids_of(sojourn("ls", "--json", *HERE, *options).out)) == ids


def test_ls_goes_on_page_by_page(database: Path, sojourn: Runner) -> None:
    seen: list[str] = []
    more: list[str] = []
    while True:
        done = sojourn("ls", "--json", "--limit", "2", "--order", "created", *HERE, *more)
        seen += ids_of(done.out)
        cursor = json.loads(done.out)["cursor"]
        if cursor is None:
            break
        more = ["--cursor", cursor]
    assert len(seen) == len(set(seen)) == 6
    lines = sojourn("ls", "--json", "--all", "--order", "created", *HERE).out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == seen


def test_ls_says_that_there_is_more(database: Path, sojourn: Runner) -> None:
    done = sojourn("ls", "--limit", "2", *HERE)
    assert re.fullmatch(r"sojourn: there are more\. try: --cursor \S+, or --all\n", done.err)


def test_ls_in_a_pipe_has_whole_ids_and_times(database: Path, sojourn: Runner) -> None:
    out = sojourn("ls", *HERE).out
    assert LONG in out
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", out)


def test_ls_of_nothing_says_so(database: Path, sojourn: Runner) -> None:
    done = sojourn("ls", "-u", "sqlite:///app.db", "--app", "none")
    assert (done.code, done.out) == (0, "")
    assert "no sessions in app 'none' match" in done.err


def test_a_damaged_record_does_not_hide_the_others(database: Path, sojourn: Runner) -> None:
    with apsw.Connection(str(database)) as db:
        db.execute("UPDATE sessions SET state = 'no JSON' WHERE id = 'agent-1'")
    done = sojourn("ls", *HERE)
    assert done.code == 1
    assert "s-1 " in done.out
    assert "try: sojourn doctor" in done.err
    assert len(json.loads(sojourn("ls", "--json", *HERE).out)["corrupt"]) == 1


def test_a_time_that_is_no_date_hides_nothing_else(database: Path, sojourn: Runner) -> None:
    with apsw.Connection(str(database)) as db:
        db.execute("UPDATE sessions SET active_at = ? WHERE id = 'agent-1'", (-IMPOSSIBLE,))
    done = sojourn("ls", *HERE)
    assert done.code == 1
    assert "s-1 " in done.out
    damage = "session 'agent-1' is corrupt: one of its times is outside the years 1 to 9999"
    assert f"sojourn: {damage}\n" in done.err
    assert len(json.loads(sojourn("ls", "--json", *HERE).out)["corrupt"]) == 1
    done = sojourn("show", "agent-1", *HERE)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"sojourn: {damage}. try: sojourn doctor\n"


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("UPDATE sessions SET holder = 'h', leased_until = ? WHERE id = 's-1'", "session 's-1'"),
        ("UPDATE documents SET updated_at = ?", "document 'one' of 'notes'"),
        ("UPDATE events SET at = ? WHERE seq = 11", "event 11"),
    ],
)
def test_a_time_of_a_part_that_is_no_date_is_told(
    database: Path, sojourn: Runner, statement: str, key: str
) -> None:
    with apsw.Connection(str(database)) as db:
        db.execute(statement, (IMPOSSIBLE,))
    for arguments in ((), ("--json",)):
        done = sojourn("show", "s-1", *arguments, *HERE)
        assert done.code == 1
        assert f"{key} is corrupt: one of its times is outside" in done.err


# --- show -----------------------------------------------------------------------------------------


def test_show_has_everything_in_one_document(database: Path, sojourn: Runner) -> None:
    shown: dict[str, Any] = json.loads(sojourn("show", "s-1", "--json", *HERE).out)
    assert list(shown)[: len(SESSION_KEYS)] == SESSION_KEYS
    assert shown["state"]["session"]["cart"] == ["tea", {"price": 10**30}]
    assert shown["state"]["session"]["note"] == HOSTILE
    assert shown["state"]["user"] == {"theme": "dark"}
    assert shown["state"]["app"] == {"motd": "hi"}
    assert [event["seq"] for event in shown["last_events"]] == list(range(3, 13))
    assert shown["last_events"][-1]["changes"] == {"turn": 11}
    assert shown["children"]["count"] == 1
    assert shown["children"]["first"][0]["id"] == "agent-1"
    assert shown["lease"] == {"held": False, "until": None, "token": 0}
    assert shown["expired"] is False
    (document,) = shown["documents"]["first"]
    assert (document["key"], document["size"]) == ("one", 4)


def test_nothing_that_is_not_printable_is_written_raw(database: Path, sojourn: Runner) -> None:
    for command in (["show", "s-1"], ["tail", "s-1", "--no-follow"], ["ls"]):
        for form in ([], ["--json"]):
            out = sojourn(*command, *form, *HERE).out
            assert out
            assert all(char.isprintable() or char == "\n" for char in out)


def test_show_an_expired_one_only_when_asked(database: Path, sojourn: Runner) -> None:
    assert sojourn("show", "old-1", *HERE).code == 3
    done = sojourn("show", "old-1", "--expired", *HERE)
    assert done.code == 0
    assert "past its deadline" in done.out


def test_show_names_the_first_of_many_and_counts_all(tmp_path: Path, sojourn: Runner) -> None:
    async def fill() -> None:
        async with SessionManager.open(f"sqlite:///{tmp_path / 'app.db'}") as sessions:
            await sessions.create(id="s-1", exclusive=("role",), labels={"role": "lead"})
            documents = sessions.documents("s-1")
            for number in range(21):
                await sessions.create(parent="s-1")
                await documents.put("notes", f"n-{number:02}", b"text", ttl=1000)

    asyncio.run(fill())
    out = sojourn("show", "s-1", "-u", "sqlite:///app.db").out
    assert "documents (21)" in out
    assert "children (21)" in out
    assert out.count("and 1 more") == 2
    assert "exclusive    role" in out
    shown = json.loads(sojourn("show", "s-1", "--json", "-u", "sqlite:///app.db").out)
    assert shown["documents"]["count"] == 21
    assert len(shown["documents"]["first"]) == len(shown["children"]["first"]) == 20


def test_show_says_nothing_of_documents_that_it_can_not_list(sojourn: Runner) -> None:
    kept = open_store("memory://shown")  # such a store lives as long as somebody has it

    async def fill() -> None:
        await kept.open()
        await SessionManager(kept).create(id="s-1")

    asyncio.run(fill())
    assert "documents" not in sojourn("show", "s-1", "-u", "memory://shown").out
    shown = json.loads(sojourn("show", "s-1", "--json", "-u", "memory://shown").out)
    assert shown["documents"] is None


def test_show_who_holds_the_lease(database: Path, sojourn: Runner) -> None:
    async def hold() -> None:
        url = f"sqlite:///{database}"
        async with (
            SessionManager.open(url, app="shop") as sessions,
            sessions.lease("agent-1", ttl=1000),
        ):
            show = ("show", "agent-1", "--json", *HERE)
            done = await asyncio.to_thread(piped, database.parent, *show)
            assert json.loads(done.out)["lease"]["held"]

    asyncio.run(hold())


# --- tail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], list(range(3, 13))),
        (["-n", "2"], [11, 12]),
        (["-n", "0"], []),
        (["--after", "0"], list(range(1, 13))),
        (["--after", "11"], [12]),
        (["--after", "12"], []),
    ],
)
def test_tail_begins_where_it_is_told(
    database: Path, sojourn: Runner, options: list[str], numbers: list[int]
) -> None:
    lines = sojourn("tail", "s-1", "--no-follow", "--json", *HERE, *options).out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == numbers
    assert all(
        list(event) == ["seq", "id", "kind", "author", "at", "body", "changes", "deleted"]
        for event in events
    )


def test_tail_of_a_session_that_is_over_ends(database: Path, sojourn: Runner) -> None:
    assert sojourn("end", "s-1", "--yes", "--retain", "1000", *HERE).code == 0
    done = sojourn("tail", "s-1", "--json", *HERE)
    assert done.code == 0
    assert len(done.out.splitlines()) == 10
    assert "is over" in done.err


# --- reading writes nothing -----------------------------------------------------------------------


@pytest.mark.parametrize("command", READS, ids=lambda command: command[0])
def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, sojourn: Runner, command: tuple[str, ...]
) -> None:
    done = sojourn(*command, "-u", "sqlite:///mistyped.db")
    assert done.code == 5
    assert done.err == "sojourn: there is no store at mistyped.db. try: check the path\n"
    assert sojourn(*command, "-u", "sqlite:///none/mistyped.db").code == 5
    assert not list(tmp_path.iterdir())


def test_a_path_that_leads_nowhere_is_unavailable(tmp_path: Path, sojourn: Runner) -> None:
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    done = sojourn("ls", "-u", "sqlite:///loop.db")
    assert done.code == 5
    assert "try: sojourn doctor" in done.err


@pytest.mark.parametrize("command", READS, ids=lambda command: command[0])
def test_an_empty_file_stays_empty(
    tmp_path: Path, sojourn: Runner, command: tuple[str, ...]
) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert sojourn(*command, "-u", "sqlite:///empty.db").code == 5
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "command", [("ls",), ("show", "s-1"), ("tail", "s-1", "--no-follow")], ids=lambda c: c[0]
)
def test_looking_leaves_every_byte_as_it_was(
    database: Path, sojourn: Runner, command: tuple[str, ...]
) -> None:
    before = database.read_bytes()
    assert sojourn(*command, *HERE).code == 0
    assert database.read_bytes() == before


@pytest.mark.parametrize("command", [*READS, ("reap",)], ids=lambda command: command[0])
def test_an_older_file_is_not_upgraded_by_the_way(
    tmp_path: Path, sojourn: Runner, command: tuple[str, ...]
) -> None:
    path = tmp_path / "older.db"
    with apsw.Connection(str(path)) as db:
        schema.migrate(db, "older", schema.MIGRATIONS[:1])
    before = path.read_bytes()
    done = sojourn(*command, "-u", "sqlite:///older.db")
    if command[0] == "doctor":
        assert done.code == 0
        assert "LOOK" in done.out
    else:
        assert done.code == 5
        assert "has version 1" in done.err
    assert "doctor --upgrade" in done.out + done.err
    assert path.read_bytes() == before
    assert sojourn("doctor", "--upgrade", "-u", "sqlite:///older.db").code == 0
    assert sojourn("ls", "-u", "sqlite:///older.db").code == 0


def test_a_reader_that_goes_away_ends_it_quietly(database: Path) -> None:
    import subprocess

    from tests.cli.terminals import PROGRAM, surroundings

    with subprocess.Popen(
        [*PROGRAM, "tail", "s-1", "--after", "0", "--json", *HERE],
        cwd=database.parent,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        asyncio.run(_append_until_gone(database, process))
        assert process.stderr.read() == b""
        assert process.wait() == 141


async def _append_until_gone(database: Path, process: Any) -> None:
    from sojourn import Event

    async with SessionManager.open(f"sqlite:///{database}", app="shop") as sessions:
        session = await sessions.require("s-1")
        while process.poll() is None:
            await sessions.append(session, Event(kind="message", body="more"))


def test_the_last_number_is_no_count(sojourn: Runner, tmp_path: Path) -> None:
    """Events that were taken back have had their numbers."""

    async def made() -> None:
        async with SessionManager.open(f"sqlite:///{tmp_path}/app.db") as sessions:
            events = [Event(kind="note", body=number) for number in range(20)]
            session = await sessions.create(id="s-1", events=events)
            await sessions.truncate(session, after=0)

    asyncio.run(made())
    url = ("-u", "sqlite:///app.db")
    assert "\nevents (0, last number 20)\n" in sojourn("show", "s-1", *url).out
    assert "(OPEN, event 20). try: " in sojourn("delete", "s-1", *url).err
    head, row = sojourn("ls", *url).out.splitlines()
    assert row.split()[head.split().index("LAST")] == "20"
