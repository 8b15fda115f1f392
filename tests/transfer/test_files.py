"""Exports and imports: what comes back is what was there, and damage is found where it is."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.transfer.contents import CLOCK, contents, fill, ids_of, opened

from sojourn import Corrupt, Event, ForeignFile, InvalidId, NewerSchema, SessionManager, Unavailable
from sojourn.errors import AlreadyExists, Conflict, PathTaken, RoleTaken, StorageFull
from sojourn.model import Entry, Header
from sojourn.store import Restore, Snapshot
from sojourn.stores.memory import MemoryStore
from sojourn.transfer import checking, export_sessions, files, import_sessions
from sojourn.transfer.lines import DIGITS, sealed
from sojourn.transfer.records import End

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn.transfer import Exported, Imported
    from sojourn.transfer.walking import TransferStore

EMPTY = "memory://"


async def written(store: TransferStore, sink: Any, **options: Any) -> Exported:
    return await export_sessions(store, sink, clock=CLOCK, **options)


async def put(store: TransferStore, source: Any, **options: Any) -> Imported:
    return await import_sessions(store, source, clock=CLOCK, **options)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def exported(*apps: str) -> bytes:
    """Return an export of a store with something of everything."""
    async with opened(EMPTY) as store:
        for app in apps or ("shop",):
            await fill(store, app)
        stream = io.BytesIO()
        await written(store, stream)
        return stream.getvalue()


# -------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", ["export.jsonl", "export.jsonl.gz"])
@pytest.mark.parametrize("other", [EMPTY, "sqlite:///{}/other.db"])
async def test_what_is_imported_is_what_was_exported(
    url: str, other: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    async with opened(url) as source, opened(other.format(tmp_path)) as target:
        await fill(source, "shop")
        await fill(source, "多 app", seed=1)
        summary = await written(source, path)
        before = await contents(source)
        imported = await put(target, path)
        assert await contents(target) == before
        sessions = sum(len(app["sessions"]) for app in before.values())
        assert summary.sessions == imported.restored == sessions
        assert (imported.unchanged, imported.refused) == (0, 0)
        assert (imported.tiers, imported.documents) == (summary.tiers, summary.documents) == (6, 4)
        assert imported.lines == summary.lines
        again = await put(target, path)
        assert (again.restored, again.unchanged, again.refused) == (0, sessions, 0)
        assert await contents(target) == before


async def test_an_export_of_an_import_is_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "1.gz", tmp_path / "2.gz"
    async with opened(EMPTY) as source, opened(f"sqlite:///{tmp_path}/2.db") as target:
        await fill(source)
        await written(source, first)
        await put(target, first)
        await written(target, second)
    assert first.read_bytes() == second.read_bytes()


async def test_an_empty_store_is_exported_and_imported(url: str, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    async with opened(url) as store:
        summary = await written(store, path)
        assert (summary.sessions, summary.lines) == (0, 2)
        assert (await put(store, path)).restored == 0


async def test_a_large_session_travels_in_parts(url: str, tmp_path: Path) -> None:
    path = tmp_path / "export.gz"
    async with opened(url) as source, opened(f"sqlite:///{tmp_path}/b.db") as target:
        manager = SessionManager(source, app="shop", clock=CLOCK)
        large = await manager.create(id="large", state={"n": 1}, user="u")
        for number in range(5):
            await manager.append(large, Event(kind="k", body="é" * 250_000))
            await manager.documents(large.id).put("d", f"{number}", bytes(400_000))
        await manager.create(id="small")
        summary = await written(source, path)
        assert summary.sessions == 2
        assert summary.lines > 5
        before = await contents(source)
        for expected in ("restored", "unchanged"):
            assert getattr(await put(target, path), expected) == 2
            assert await contents(target) == before
        assert await target.check() == []  # type: ignore[attr-defined]  # a SQLite store can


async def test_the_file_is_json_that_people_can_read() -> None:
    lines = [json.loads(line) for line in (await exported()).splitlines()]
    assert [line["line"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["record"] == "export"
    assert lines[0]["at"] == "2026-01-01T00:00:00Z"
    assert lines[-1]["record"] == "end"
    sessions = {line["id"]: line for line in lines if line["record"] == "session"}
    assert lines[-1]["sessions"] == lines[0]["sessions"] == len(sessions)
    gapped = sessions["shop-gapped"]
    assert [event["seq"] for event in gapped["events"]] == [1, 4]
    assert gapped["created_at"] == "2026-01-01T00:00:00Z"
    bodies = sessions["shop-002"]["documents"]
    assert {body["key"]: body.get("text") for body in bodies} == {"text": "né\r\n\t", "bytes": None}
    users = {line.get("user") for line in lines if line["record"] == "tier"}
    assert users == {None, "u-1", "多"}


async def test_values_that_are_spelled_over_several_lines_stay_on_one(url: str) -> None:
    spelled = '{\n  "a":\r\n\t[1 , "b\\nc"]\n}'
    header = Header(app="shop", id="s", epoch="e", seq=1, created_at=0, active_at=0)
    entry = Entry(1, "e", "k", None, 0, spelled, '{"a":\n1}', '["b"\n]')
    snapshot = Snapshot(header=header, state={"n": msgspec.Raw(spelled)}, entries=(entry,))
    async with opened(url) as source, opened(EMPTY) as target:
        await source.restore(Restore(snapshot=snapshot, op=b"restore1", abandoned_at=0))
        stream = io.BytesIO()
        assert (await written(source, stream)).lines == len(stream.getvalue().splitlines())
        stream.seek(0)
        assert (await put(target, stream)).restored == 1
        assert await contents(target) == await contents(source)


async def test_apps_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "all"
    path.write_bytes(await exported("a", "b", "c"))
    async with opened(EMPTY) as store, opened(EMPTY) as other:
        imported = await put(store, path, apps=["b"])
        assert await store.apps("", 9) == ["b"]
        assert (imported.restored, imported.tiers, imported.documents) == (17, 3, 2)
        await put(store, path)
        await written(store, tmp_path / "two", apps=("c", "a", "ghost"))
        await put(other, tmp_path / "two")
        assert await contents(other) == await contents(store, "a", "c")
        with pytest.raises(InvalidId, match="app"):
            await written(store, tmp_path / "none", apps=["\x1f"])


async def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    async with opened(EMPTY) as store, opened(EMPTY) as other:
        await fill(store, sessions=600)
        await written(store, tmp_path / "file", progress=progress)
        total = len(await ids_of(store, "shop"))
        assert [done for _, done, _ in told] == [0, 256, 512, total]
        assert told[0] == ("exporting", 0, total)
        assert told[-1] == ("exporting", total, total)
        told.clear()
        await put(other, tmp_path / "file", progress=progress)
        assert told[0] == ("importing", 0, total)
        assert told[-1] == ("importing", total, total)


# ---------------------------------------------------------------------------- what is there already


async def test_what_is_there_stays(url: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with opened(EMPTY) as source, opened(url) as target:
        theirs = SessionManager(source, app="shop", clock=CLOCK)
        for id in ("older", "newer", "other", "role", "same"):
            labels = {"r": "w"} if id == "role" else {}
            await theirs.create(id=id, user="u", labels=labels, exclusive=tuple(labels))
        await written(source, tmp_path / "first")
        await put(target, tmp_path / "first")
        ours = SessionManager(target, app="shop", clock=CLOCK)
        await change(theirs, "older", {"n": 2, "user:x": 2, "app:x": 2, "app:y": 2})
        await written(source, path)
        await change(ours, "newer", {"n": 3, "app:x": 3})
        for id in ("other", "role"):
            await ours.delete(id)
        await ours.create(id="other")
        await ours.create(id="rival", labels={"r": "w"}, exclusive=("r",))
        before = await contents(target)
        imported = await put(target, path)
        kinds = {refusal.id: type(refusal.error) for refusal in imported.refusals}
        assert kinds == {
            "older": AlreadyExists,
            "newer": Conflict,
            "other": AlreadyExists,
            "role": RoleTaken,
        }
        assert (imported.restored, imported.unchanged, imported.refused) == (0, 1, 4)
        lines = path.read_bytes().splitlines()
        for refusal in imported.refusals:
            assert refusal.line is not None
            assert json.loads(lines[refusal.line - 1])["id"] == refusal.id
        after = await contents(target)
        assert after["shop"]["sessions"] == before["shop"]["sessions"]
        shared = (await ours.require("same", user="u")).state
        assert (shared["app:x"], shared["app:y"], shared["user:x"]) == (3, 2, 2)
        imported = await put(target, path, replace=True)
        assert (imported.restored, imported.unchanged, imported.refused) == (1, 1, 3)
        older = await ours.require("older")
        assert (older.state["n"], older.state["app:x"], older.revision) == (2, 2, 2)


async def change(manager: SessionManager, id: str, state: dict[str, Any]) -> None:
    """Commit once to a session."""
    session = await manager.require(id)
    session.state.update(state)
    await manager.save(session)


# ------------------------------------------------------------------------------------------- damage


async def test_a_damaged_line_is_named_and_nothing_behind_it_is_put(url: str) -> None:
    lines = (await exported()).splitlines(keepends=True)
    sessions = [at for at, line in enumerate(lines) if b'"record":"session"' in line]
    bad = sessions[5]
    wrongs = {
        "a byte": lines[bad].replace(b"shop", b"shap", 1),
        "missing": b"",
        "another line again": lines[bad - 1],
        "no JSON": b"{]\n",
        "empty": b"\n",
        "cut": lines[bad][:-9],
    }
    for what, wrong in wrongs.items():
        broken = b"".join([*lines[:bad], wrong, *([] if what == "cut" else lines[bad + 1 :])])
        async with opened(EMPTY) as store:
            with pytest.raises(Corrupt, match=f"the stream, line {bad + 1},") as caught:
                await put(store, io.BytesIO(broken))
            assert caught.value.key == f"the stream, line {bad + 1},"
            assert len(await ids_of(store, "shop")) == 5, what
            assert (await put(store, io.BytesIO(b"".join(lines)))).unchanged == 5
            assert len(await ids_of(store, "shop")) == len(sessions)


async def test_a_file_that_is_cut_anywhere_is_found_out() -> None:
    whole_file = await exported()
    for end in range(1, len(whole_file), 997):
        async with opened(EMPTY) as store:
            line = whole_file[:end].count(b"\n") + 1
            error = Corrupt if line > 1 else ForeignFile
            with pytest.raises(error) as caught:
                await put(store, io.BytesIO(whole_file[:end]))
            if isinstance(caught.value, Corrupt):
                assert f"line {line}," in caught.value.key


async def test_any_byte_that_changes_is_found_out() -> None:
    async with opened(EMPTY) as store:
        manager = SessionManager(store, app="a", clock=CLOCK)
        await manager.create(id="s", state={"n": 1})
        stream = io.BytesIO()
        await written(store, stream)
    good = stream.getvalue()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        async with opened(EMPTY) as store:
            with pytest.raises((Corrupt, ForeignFile, NewerSchema)):
                await put(store, io.BytesIO(bytes(bad)))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
async def test_a_compressed_file_that_is_cut_is_found_out(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    data = gzip.compress(await exported())
    path.write_bytes(data[: int(len(data) * keep)])
    async with opened(EMPTY) as store:
        with pytest.raises(ForeignFile if keep == 0 else Corrupt):
            await put(store, path)


async def test_a_compressed_file_that_is_damaged_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    data = bytearray(gzip.compress(await exported()))
    for at in (0, len(data) // 2, len(data) - 6):
        bad = bytearray(data)
        bad[at] ^= 0xFF
        path.write_bytes(bad)
        async with opened(EMPTY) as store:
            with pytest.raises(Corrupt, match="line"):
                await put(store, path)


async def test_a_file_without_its_last_line_was_cut_off() -> None:
    *lines, _ = (await exported()).splitlines(keepends=True)
    async with opened(EMPTY) as store:
        with pytest.raises(Corrupt, match=f"line {len(lines) + 1}, is corrupt: the file was cut"):
            await put(store, io.BytesIO(b"".join(lines)))


async def test_lines_behind_the_last_one_are_found_out() -> None:
    good = await exported()
    async with opened(EMPTY) as store:
        with pytest.raises(Corrupt, match="behind the last"):
            await put(store, io.BytesIO(good + b"x\n"))
        with pytest.raises(Corrupt, match="line"):
            await put(store, io.BytesIO(good + good))


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"\n",
        b"SQLite format 3\x00",
        b"\xff\xfe",
        b'{"record":"session"}\n',
        b'{"record":"session","version":1}\n',
        b"[1]\n",
    ],
)
async def test_a_file_that_is_no_export_is_foreign(beginning: bytes) -> None:
    async with opened(EMPTY) as store:
        with pytest.raises(ForeignFile):
            await put(store, io.BytesIO(beginning))


async def test_a_later_format_is_refused() -> None:
    async with opened(EMPTY) as store:
        line = b'{"line":1,"record":"export","version":2,"color":"blue"}\n'
        with pytest.raises(NewerSchema, match="format 2, this Sojourn knows up to 1"):
            await put(store, io.BytesIO(line))


async def test_an_end_that_counts_otherwise_is_found_out() -> None:
    *lines, _ = (await exported()).splitlines(keepends=True)
    end = sealed(End(sessions=1, tiers=0, documents=0), len(lines) + 1)
    async with opened(EMPTY) as store:
        with pytest.raises(Corrupt, match=f"line {len(lines) + 1},"):
            await put(store, io.BytesIO(b"".join([*lines, end])))


async def test_a_line_is_not_read_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 500)
    async with opened(EMPTY) as store:
        with pytest.raises(Corrupt, match="longer than 500 bytes"):
            await put(store, io.BytesIO(await exported()))


# ------------------------------------------------------------------------------ what is not allowed


def session_line(**fields: Any) -> dict[str, Any]:
    """Return the facts of a session as they stand in a line."""
    at = "2026-01-01T00:00:00Z"
    facts = {
        "record": "session",
        "app": "shop",
        "id": "s",
        "epoch": "e",
        "lifecycle": "open",
        "phase": "OPEN",
        "revision": 1,
        "created_at": at,
        "active_at": at,
        "seq": 1,
    }
    return {**facts, **fields}


def event_line(**fields: Any) -> dict[str, Any]:
    """Return the facts of an event as they stand in a line."""
    at = "2026-01-01T00:00:00Z"
    return {"seq": 1, "id": "e", "kind": "k", "at": at, "body": None, **fields}


def document_line(**fields: Any) -> dict[str, Any]:
    """Return the facts of a document as they stand in a line."""
    at = "2026-01-01T00:00:00Z"
    facts = {"collection": "c", "key": "k", "content_type": "text/plain", "text": "x"}
    return {**facts, "created_at": at, "updated_at": at, **fields}


def forged(*records: dict[str, Any]) -> io.BytesIO:
    """Return a file whose checksums are right."""
    from hashlib import sha256

    start = {"record": "export", "version": 1, "at": "2026-01-01T00:00:00Z"}
    sessions = sum(record["record"] == "session" for record in records)
    end = {"record": "end", "sessions": sessions, "tiers": 0, "documents": 0}
    data = b""
    for number, record in enumerate((start, *records, end), 1):
        text = json.dumps({"line": number, **record}, separators=(",", ":")).encode()[:-1]
        data += text + b',"sum":"' + sha256(text).hexdigest()[:DIGITS].encode() + b'"}\n'
    return io.BytesIO(data)


async def test_a_file_by_another_program_is_imported() -> None:
    line = session_line(events=[event_line(set={"a": 1})], documents=[document_line()])
    async with opened(EMPTY) as store:
        assert (await put(store, forged(line))).restored == 1
        session = await SessionManager(store, app="shop", clock=CLOCK).require("s", events=9)
        assert session.events[0].delta == {"a": 1}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


WRONG: dict[str, dict[str, Any]] = {
    "an app that is no name": session_line(app="a\n"),
    "an id that is no name": session_line(id=""),
    "an epoch that is no name": session_line(epoch=""),
    "a user that is no name": session_line(user="\x00"),
    "a parent that is no name": session_line(parent=" "),
    "an unknown lifecycle": session_line(lifecycle="strange"),
    "an unknown phase": session_line(phase="STRANGE"),
    "a revision below one": session_line(revision=0),
    "a negative number": session_line(seq=-1),
    "a label that is no name": session_line(labels={"": "x"}),
    "a label's value that is no name": session_line(labels={"x": ""}),
    "too many labels": session_line(labels={str(n): "x" for n in range(17)}),
    "a claim without a label": session_line(exclusive=["x"]),
    "state too deep": session_line(state={"a": nested(101)}),
    "a state key that is too long": session_line(state={"k" * 600: 1}),
    "events out of order": session_line(events=[event_line(), event_line()]),
    "an event behind the last": session_line(events=[event_line(seq=2)]),
    "an event's kind that is no name": session_line(events=[event_line(kind="")]),
    "an event's author that is no name": session_line(events=[event_line(author="")]),
    "a delta that is no object": session_line(events=[event_line(set=[1])]),
    "dropped keys that are no names": session_line(events=[event_line(dropped=[1])]),
    "a document without a collection": session_line(documents=[document_line(collection="")]),
    "a document without a type": session_line(documents=[document_line(content_type="")]),
    "base64 that is none": session_line(documents=[document_line(text=None, base64="%")]),
    "a time without a zone": session_line(created_at="2026-01-01T00:00:00"),
    "a member that nobody knows": session_line(color="blue"),
    "a record that nobody knows": {"record": "strange"},
    "a second beginning": {"record": "export", "version": 1, "at": "2026-01-01T00:00:00Z"},
    "a part of nothing": {"record": "part", "app": "shop", "id": "s", "part": 1},
    "a tier of nobody": {"record": "tier", "app": "shop", "user": "", "state": {"a": 1}},
    "a tier of no app": {"record": "tier", "app": "", "state": {"a": 1}},
    "a document of no name": {"record": "document", "app": "a", "document": document_line(key="")},
    "a document of no app": {"record": "document", "app": "", "document": document_line()},
}


@pytest.mark.parametrize("what", list(WRONG))
async def test_what_no_caller_could_have_stored_is_refused(what: str) -> None:
    async with opened(EMPTY) as store:
        source = forged(session_line(id="before"), WRONG[what], session_line(id="behind"))
        with pytest.raises(Corrupt, match="the stream, line 3,"):
            await put(store, source)
        assert await ids_of(store, "shop") == ["before"]


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        ("MAX_DOCUMENT", session_line(documents=[document_line(text="x" * 101)])),
        ("MAX_STATE", session_line(state={"a": "x" * 101})),
        ("MAX_VALUE", session_line(state={"a": "x" * 101})),
        ("MAX_VALUE", session_line(events=[event_line(body="x" * 101)])),
    ],
)
async def test_what_is_over_a_limit_is_refused(
    limit: str, line: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, limit, 100)
    async with opened(EMPTY) as store:
        with pytest.raises(Corrupt, match="the stream, line 2,"):
            await put(store, forged(line))


async def test_a_session_whose_parts_break_off_is_refused_and_reported() -> None:
    large = session_line(id="large", more=True)
    part = {"record": "part", "app": "shop", "id": "large", "part": 1, "more": True}
    source = forged(large, part, session_line(id="behind"))
    text = source.getvalue().splitlines(keepends=True)
    end = sealed(End(sessions=1, tiers=0, documents=0), len(text))
    async with opened(EMPTY) as store:
        imported = await put(store, io.BytesIO(b"".join([*text[:-1], end])))
        (refusal,) = imported.refusals
        assert (refusal.id, refusal.line, imported.restored) == ("large", 2, 1)
        assert await ids_of(store, "shop") == ["behind"]


@pytest.mark.parametrize("parts", [0, 1, 2])
async def test_a_session_of_another_app_whose_parts_break_off_is_passed_over(parts: int) -> None:
    large = session_line(app="other", id="large", more=True)
    some = [
        {"record": "part", "app": "other", "id": "large", "part": number, "more": True}
        for number in range(1, parts + 1)
    ]
    whole = session_line(app="other", id="whole", more=True)
    last = {"record": "part", "app": "other", "id": "whole", "part": 1}
    source = forged(whole, last, large, *some, session_line(id="behind"))
    text = source.getvalue().splitlines(keepends=True)
    end = sealed(End(sessions=2, tiers=0, documents=0), len(text))
    async with opened(EMPTY) as store:
        imported = await put(store, io.BytesIO(b"".join([*text[:-1], end])), apps=["shop"])
        assert (imported.restored, imported.refused) == (1, 0)
        assert await ids_of(store, "shop") == ["behind"]
        assert await ids_of(store, "other") == []


# ------------------------------------------------------------------------------------------- places


class OneWay(io.BytesIO):
    """A stream that can only be read on, like a socket's."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


async def test_a_compressed_export_is_seen_by_its_first_bytes(tmp_path: Path) -> None:
    plain = await exported()
    packed = gzip.compress(plain)
    (tmp_path / "packed").write_bytes(packed)
    (tmp_path / "plain.gz").write_bytes(plain)
    streams: list[Any] = [io.BytesIO(packed), io.BufferedReader(io.BytesIO(packed))]
    for place in (*streams, tmp_path / "packed", tmp_path / "plain.gz", OneWay(plain)):
        async with opened(EMPTY) as store:
            assert (await put(store, place)).restored > 0
    assert not any(stream.closed for stream in streams)
    async with opened(EMPTY) as store:
        with pytest.raises(ForeignFile, match="compressed: give it through zcat"):
            await put(store, OneWay(packed))


def test_a_compressed_export_comes_through_a_pipe(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.cli.terminals import surroundings

    packed = gzip.compress(asyncio.run(exported()))
    command = [sys.executable, "-m", "sojourn", "--url", "sqlite:///to.db", "import", "-"]
    done = subprocess.run(
        command, input=packed, cwd=tmp_path, env=surroundings(), check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("precious")
    async with opened(EMPTY) as store:
        with pytest.raises(PathTaken, match="taken: there is a file already"):
            await written(store, path)
    assert path.read_text() == "precious"
    assert names_in(tmp_path) == [path.name]


class Stumbling(MemoryStore):
    """Fails, or hangs, in the middle of an export."""

    def __init__(self, stumble: asyncio.Event | None = None) -> None:
        super().__init__()
        self.stumble = stumble

    async def shared(self, *_: object) -> Any:
        if self.stumble is None:
            raise Unavailable(self.name, "it stumbled")
        self.stumble.set()
        await asyncio.Event().wait()


async def test_a_failed_export_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor anything open: the collector would finish the compression, in a file that is closed."""
    made: list[gzip.GzipFile] = []

    class Noted(gzip.GzipFile):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            made.append(self)

    monkeypatch.setattr("sojourn.transfer.files.gzip.GzipFile", Noted)
    store = Stumbling()
    await fill(store)
    with pytest.raises(Unavailable, match="stumbled"):
        await export_sessions(store, tmp_path / "file.gz")
    assert names_in(tmp_path) == []
    assert [file.closed for file in made] == [True]


async def test_a_cancelled_export_leaves_no_file(tmp_path: Path) -> None:
    there = asyncio.Event()
    store = Stumbling(there)
    await fill(store)
    task = asyncio.create_task(export_sessions(store, tmp_path / "file"))
    await there.wait()
    (name,) = names_in(tmp_path)
    assert name.startswith(".file.")
    assert name.endswith(".partial")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert names_in(tmp_path) == []


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with opened(EMPTY) as store:
        await written(store, tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


async def test_a_place_that_is_none_is_unavailable(tmp_path: Path) -> None:
    async with opened(EMPTY) as store:
        with pytest.raises(Unavailable, match="No such file"):
            await written(store, tmp_path / "no folder" / "file")
        with pytest.raises(Unavailable, match="No such file"):
            await put(store, tmp_path / "no file")
        with pytest.raises(Unavailable, match="directory"):
            await put(store, tmp_path)


async def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: ASYNC230, PTH123 - a device that never blocks
        async with opened(EMPTY) as store:
            with pytest.raises(StorageFull, match="/dev/full"):
                await written(store, full)


async def test_a_reader_that_goes_away_is_told_as_such() -> None:
    import os

    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as pipe:  # noqa: ASYNC230, PTH123 - a pipe that nobody reads
        async with opened(EMPTY) as store:
            with pytest.raises(BrokenPipeError):
                await written(store, pipe)


async def test_a_store_without_transfer_says_so(tmp_path: Path) -> None:
    class Plain:
        name = "plain://"

    with pytest.raises(Unavailable, match="does not support transfer"):
        await export_sessions(Plain(), tmp_path / "file")  # type: ignore[arg-type]  # that is the point
