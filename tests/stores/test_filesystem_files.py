"""The files of the store: what a person reads in them, what damage is told, what is removed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.soak import count, scaled

from sojourn import (
    Corrupt,
    Event,
    ForeignFile,
    NewerSchema,
    NotFound,
    SessionManager,
    Unavailable,
    UnsupportedFilesystem,
)
from sojourn import mounts as mounting
from sojourn.errors import PathTaken
from sojourn.stores.filesystem import FilesystemStore, files, keeper
from sojourn.stores.filesystem.disk import Disk
from sojourn.stores.filesystem.frames import Reader, salt_of
from sojourn.stores.filesystem.shard import shard_name

if TYPE_CHECKING:
    from collections.abc import Iterator


STRIDE = count(11, 1)
"""Of so many bytes one is damaged."""


async def opened(path: Path, **options: Any) -> SessionManager:
    """Return a manager over an open store; close its store, not it."""
    store = FilesystemStore(path, **options)
    await store.open()
    return SessionManager(store)


def files_of(path: Path, app: str = "default") -> dict[str, Path]:
    """Return the files of an app by the beginning of their names."""
    shard = path / "apps" / shard_name(app)
    return {file.name.partition("-")[0]: file for file in shard.iterdir()}


def everything(path: Path) -> bytes:
    """Return the bytes of all files of a store, and their names."""
    parts = []
    for place, _, names in os.walk(path):
        for name in names:
            parts += [name.encode(), Path(place, name).read_bytes()]
    return b"\n".join(parts)


def frames_of(file: Path) -> list[Any]:
    """Return what the frames of a file say."""
    data = file.read_bytes()
    head = data[: data.index(b"\n") + 1]
    handle = os.open(file, os.O_RDONLY)
    try:
        reader = Reader(Disk(), handle, salt_of(head, str(file)))
        return [json.loads(frame.text) for frame in reader.frames(len(head), len(data))]
    finally:
        os.close(handle)


async def filled(path: Path, events: int = 5) -> None:
    """Make a store with a session that has some events."""
    sessions = await opened(path)
    await sessions.create(id="s", user="u", state={"n": 0})
    for number in range(events):
        await sessions.append("s", Event(kind="op", body=f"event {number}"), state={"n": number})
    await sessions.store.close()


# ------------------------------------------------------------------------------- what is written


async def test_a_person_can_read_the_journal(tmp_path: Path) -> None:
    """Each frame is a line whose last part is JSON; a text document stands below its line."""
    await filled(tmp_path / "s", 2)
    sessions = await opened(tmp_path / "s")
    await sessions.documents("s").put("notes", "one", b"plain words\n", content_type="text/plain")
    await sessions.store.close()
    file = files_of(tmp_path / "s")["journal"]
    lines = file.read_text().splitlines()
    assert lines[0].startswith("sojourn files 1 ")
    said = [json.loads(line[45:]) for line in lines[1:] if line[45:46] == "{"]
    assert [one["do"] for one in said] == ["create", "change", "change", "pause", "change", "pause"]
    assert said[1]["events"][0]["body"] == "event 0"
    assert said[1]["set"] == {"n": 0}
    assert "plain words" in lines
    assert json.loads((tmp_path / "s" / "sojourn.json").read_text()) == {
        "format": "sojourn files",
        "version": 1,
    }


async def test_an_app_that_is_only_read_leaves_no_files(tmp_path: Path) -> None:
    """Unknown ids and apps, refused writes: nothing is made for them."""
    sessions = await opened(tmp_path / "s")
    assert await sessions.get("nobody") is None
    assert await sessions.count() == 0
    assert await sessions.delete("nobody") is False
    assert os.listdir(tmp_path / "s" / "apps") == []  # noqa: PTH208 - the names are enough
    await sessions.store.close()


async def test_a_value_that_is_no_json_is_refused_alone(tmp_path: Path) -> None:
    """A broken caller can not write what could never be read again, and harms no neighbour."""
    from sojourn.errors import Unserializable
    from sojourn.model import Draft
    from sojourn.store import Change

    sessions = await opened(tmp_path / "s")
    await sessions.create(id="s")

    def change(n: int, body: str) -> Change:
        draft = Draft(id=f"e{n}", kind="k", author=None, at=n, body=body)
        return Change(app="default", id="s", op=b"op%06d" % n, now=10**15 + n, events=(draft,))

    bodies = ["1", '{"half', "2"]
    outcomes = await asyncio.gather(
        *(sessions.store.commit(change(n, body)) for n, body in enumerate(bodies)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes][1] is Unserializable
    assert [event.body for event in await sessions.events("s")] == [1, 2]
    await sessions.store.close()
    again = await opened(tmp_path / "s")
    assert [event.body for event in await again.events("s")] == [1, 2]
    await again.store.close()


async def test_a_session_is_exported_for_a_person(tmp_path: Path) -> None:
    """Lines of JSON: the session, its events, its documents; nothing is overwritten."""
    sessions = await opened(tmp_path / "s")
    store: Any = sessions.store
    await sessions.create(id="s", user="u", state={"cart": ["tea"]})
    await sessions.append("s", Event(kind="op", body={"text": "hé"}), state={"n": 1})
    await sessions.documents("s").put("c", "text", b"words")
    await sessions.documents("s").put("c", "bytes", b"\xff\x00")
    target = tmp_path / "s.jsonl"
    assert await store.export_session("default", "s", str(target)) == 4
    session, event, *documents = map(json.loads, target.read_text().splitlines())
    assert session["session"]["user"] == "u"
    assert session["session"]["created_at"].endswith("Z")
    assert session["state"] == {"cart": ["tea"], "n": 1}
    assert (event["event"]["body"], event["event"]["changes"]) == ({"text": "hé"}, {"n": 1})
    assert [d["document"].get("text") for d in documents] == ["words", None]
    assert documents[1]["document"]["base64"] == "/wA="
    with pytest.raises(PathTaken):
        await store.export_session("default", "s", str(target))
    with pytest.raises(NotFound):
        await store.export_session("default", "nobody", str(tmp_path / "other"))
    assert sorted(os.listdir(tmp_path)) == ["s", "s.jsonl"]  # noqa: PTH208 - the names are enough
    await store.close()


# ------------------------------------------------------------------------------- what is damaged


async def test_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    """Whatever a crash left of the last write goes, and the next one takes its place."""
    path = tmp_path / "s"
    await filled(path)
    journal = files_of(path)["journal"]
    whole = journal.read_bytes()
    for torn in (b"0", b"\0" * 5000, whole[-200:], whole[60:300]):
        journal.write_bytes(whole + torn)
        sessions = await opened(path)
        assert len(await sessions.events("s")) == 5
        assert await sessions.store.check() == []  # type: ignore[attr-defined]  # this store's own
        await sessions.store.close()
        assert journal.read_bytes() == whole


@scaled
async def test_damage_in_the_middle_is_corrupt(tmp_path: Path) -> None:
    """A bit that flipped in any frame but an unfinished last one is told, never skipped."""
    path = tmp_path / "s"
    await filled(path)
    journal = files_of(path)["journal"]
    whole = journal.read_bytes()
    last = whole.rindex(b'{"do":"pause"}')
    told = 0
    for at in range(0, last - 45, STRIDE):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        journal.write_bytes(damaged)
        sessions = await opened(path)
        try:
            found = await sessions.events("s")
        except Corrupt as error:
            told += "journal" in error.key
        else:  # a letter of a hexadecimal number in the other case
            assert [event.body for event in found] == [f"event {n}" for n in range(5)]
        await sessions.store.close()
    assert told > (last - 45) // STRIDE * 0.9
    journal.write_bytes(whole)


async def test_damage_does_not_reach_other_apps(tmp_path: Path) -> None:
    """An app whose files are damaged says so; another one goes on."""
    path = tmp_path / "s"
    await filled(path)
    store = FilesystemStore(path)
    await store.open()
    other = SessionManager(store, app="other")
    await other.create(id="o")
    await store.close()
    journal = files_of(path)["journal"]
    damaged = bytearray(journal.read_bytes())
    damaged[100] ^= 1
    journal.write_bytes(damaged)
    store = FilesystemStore(path)
    await store.open()
    assert await SessionManager(store, app="other").get("o") is not None
    for _ in range(2):
        with pytest.raises(Corrupt):
            await SessionManager(store).get("s")
        with pytest.raises(Corrupt):
            await SessionManager(store).create(id="new")
    found = await store.check()
    assert len(found) == 1
    assert "journal" in found[0]
    await store.close()


async def test_damage_while_the_store_is_open_is_met_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events and bodies are checked each time they are read from the disk."""
    monkeypatch.setattr(files, "RECENT_BYTES", 0)
    path = tmp_path / "s"
    await filled(path, 3)
    sessions = await opened(path)
    await sessions.documents("s").put("c", "k", b"body" * 50)
    assert len(await sessions.events("s")) == 3
    journal = files_of(path)["journal"]
    data = journal.read_bytes()
    for word in (b"event 1", b"bodybody"):
        with journal.open("r+b") as file:
            file.seek(data.index(word) + 3)
            file.write(b"\xff")
    with pytest.raises(Corrupt):
        await sessions.events("s")
    with pytest.raises(Corrupt):
        await sessions.documents("s").get("c", "k")
    assert [event.body for event in await sessions.events("s", last=1)] == ["event 2"]
    await sessions.store.close()


async def test_a_damaged_snapshot_is_corrupt(tmp_path: Path) -> None:
    """All of it was on the disk before it counted: any damage is told."""
    path = tmp_path / "s"
    await filled(path)
    sessions = await opened(path)
    await sessions.store.compact()  # type: ignore[attr-defined]  # this store's own
    await sessions.store.close()
    snapshot = files_of(path)["snapshot"]
    whole = snapshot.read_bytes()
    for damaged in (whole[:-30], whole[:200] + b"?" + whole[201:], b""):
        snapshot.write_bytes(damaged)
        sessions = await opened(path)
        with pytest.raises(Corrupt):
            await sessions.get("s")
        await sessions.store.close()


async def test_a_document_that_looks_like_a_frame_is_none(tmp_path: Path) -> None:
    """Frames copied into a document, behind which a write was torn, prove nothing."""
    path = tmp_path / "s"
    await filled(path)
    copied = files_of(path)["journal"].read_bytes()
    sessions = await opened(path)
    await sessions.documents("s").put("c", "k", b"\n" + copied)
    await sessions.store.close()
    journal = files_of(path)["journal"]
    whole = journal.read_bytes()
    start = whole.rindex(b'"op":', 0, whole.rindex(b"sojourn files")) - 60
    start = whole.rindex(b"\n", 0, start) + 1
    torn = bytearray(whole[: whole.rindex(b'{"do":"pause"}') - 45])
    torn[start + 50] ^= 1
    journal.write_bytes(torn)
    again = await opened(path)
    assert len(await again.events("s")) == 5
    assert await again.documents("s").get("c", "k") is None
    await again.store.close()


# ------------------------------------------------------------------------------- what is refused


async def refused(path: Path, error: type[Exception]) -> str:
    """Check that a folder is refused and stays as it was; return why."""
    before = everything(path)
    with pytest.raises(error) as caught:
        await FilesystemStore(path).open()
    assert everything(path) == before
    return str(caught.value)


async def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    """A folder with other things in it, a file, somebody else's mark: none is touched."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    assert "cat.jpg" in await refused(tmp_path / "photos", ForeignFile)
    (tmp_path / "file").write_bytes(b"")
    assert "it is a file" in await refused(tmp_path / "file", ForeignFile)
    (tmp_path / "marked").mkdir()
    for text in ('{"format": "other", "version": 1}', "{", "[]", '{"format": "sojourn files"}'):
        (tmp_path / "marked" / "sojourn.json").write_text(text)
        await refused(tmp_path / "marked", ForeignFile)
    (tmp_path / "half" / "apps" / "x").mkdir(parents=True)
    await refused(tmp_path / "half", ForeignFile)
    assert "does not exist" in await refused(tmp_path / "no" / "where", Unavailable)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A folder or a file of a later version is not touched."""
    await filled(tmp_path / "s")
    mark = tmp_path / "s" / "sojourn.json"
    mark.write_text('{"format": "sojourn files", "version": 2}')
    assert "upgrade Sojourn" in await refused(tmp_path / "s", NewerSchema)
    mark.write_text('{"format": "sojourn files", "version": 1}')
    snapshot = files_of(tmp_path / "s")["snapshot"]
    snapshot.write_bytes(snapshot.read_bytes().replace(b"files 1 ", b"files 2 ", 1))
    sessions = await opened(tmp_path / "s")
    with pytest.raises(NewerSchema, match="upgrade Sojourn"):
        await sessions.get("s")
    await sessions.store.close()


async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not hold across machines nothing is made."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 0:3 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(mounting, "_MOUNTS", mounts)
    with pytest.raises(UnsupportedFilesystem, match="nfs4"):
        await FilesystemStore(tmp_path / "s").open()
    assert not (tmp_path / "s").exists()


async def test_an_interrupted_beginning_is_finished(tmp_path: Path) -> None:
    """What a crash left of a folder, or of an app's files, that were being made is no obstacle."""
    path = tmp_path / "s"
    (path / "apps").mkdir(parents=True)
    (path / "sojourn.json.new").write_text("{")
    sessions = await opened(path)
    await sessions.store.close()
    unfinished = path / "apps" / f"new-{shard_name('default')}"
    unfinished.mkdir()
    (unfinished / "snapshot-00000001").write_text("half")
    sessions = await opened(path)
    await sessions.create(id="s")
    await sessions.store.close()
    assert os.listdir(path / "apps") == [shard_name("default")]  # noqa: PTH208 - the names are enough


# ------------------------------------------------------------------------------- what is removed


async def test_what_is_deleted_is_in_no_file_once_the_store_is_closed(tmp_path: Path) -> None:
    """Deleted, forgotten and reaped sessions, dropped documents, cut events: no byte of them."""
    path = tmp_path / "s"
    sessions = await opened(path)
    await sessions.create(id="kept", state={"here": "stays"})
    for word in ("deleted", "forgotten", "cut"):
        await sessions.create(id=f"zq-{word}", user=f"zq-user-{word}", state={"user:k": "zq-state"})
        await sessions.append(f"zq-{word}", Event(kind="op", body="zq-event"))
        await sessions.documents(f"zq-{word}").put("c", "k", b"zq-document")
    await sessions.create(id="kept-too")
    await sessions.append("kept-too", Event(kind="op", body="zq-cut-event"))
    await sessions.documents("kept-too").put("c", "k", b"zq-document")
    await sessions.delete("zq-deleted")
    await sessions.forget("zq-user-deleted")
    await sessions.forget("zq-user-forgotten")
    await sessions.delete("zq-cut")
    await sessions.forget("zq-user-cut")
    await sessions.truncate(await sessions.require("kept-too"), after=0)
    await sessions.documents("kept-too").drop("c", "k")
    assert b"zq-" in everything(path)
    await sessions.store.close()
    assert b"zq-" not in everything(path)
    again = await opened(path)
    assert (await again.require("kept")).state["here"] == "stays"
    assert await again.store.check() == []  # type: ignore[attr-defined]  # this store's own
    await again.store.close()


async def test_what_is_deleted_goes_from_an_open_store_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper compacts soon after something was removed, with nobody asking."""
    monkeypatch.setattr(keeper, "PURGE_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    path = tmp_path / "s"
    sessions = await opened(path)
    compacted = asyncio.Event()
    store: Any = sessions.store
    compact = store._keeper.compact

    async def compact_and_tell(shard: Any) -> None:
        await compact(shard)
        compacted.set()

    monkeypatch.setattr(store._keeper, "compact", compact_and_tell)
    await sessions.create(id="zq-session")
    await sessions.create(id="kept")
    await sessions.delete("zq-session")
    await compacted.wait()
    assert b"zq-session" not in everything(path)
    assert await sessions.get("kept") is not None
    await sessions.store.close()


async def test_a_long_journal_is_compacted_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that opening stays fast, however often the same keys are written."""
    monkeypatch.setattr(keeper, "JOURNAL_BYTES", 20_000)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    path = tmp_path / "s"
    sessions = await opened(path)
    session = await sessions.create(id="s")
    async with asyncio.timeout(30):
        number = 0
        while "journal" not in files_of(path) or files_of(path)["journal"].name.endswith("01"):
            number += 1
            session.state["n"] = [number, "x" * 500]
            await sessions.save(session)
    assert (await sessions.require("s")).state["n"][0] == number
    await sessions.store.close()


# ----------------------------------------------------------------------------- several processes


class Two:
    """Two stores on one folder, as two processes have them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __aenter__(self) -> tuple[SessionManager, SessionManager]:
        self.pair = (await opened(self.path), await opened(self.path))
        return self.pair

    async def __aexit__(self, *_: object) -> None:
        for sessions in self.pair:
            await sessions.store.close()


def unlinked_files(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open and that have no name any more."""
    found: list[str] = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            name = str(file.readlink())
        except OSError:
            continue
        if name.endswith("(deleted)") and name.startswith(str(folder)):
            found.append(name)
    return found


async def test_each_process_reads_what_the_other_has_written(tmp_path: Path) -> None:
    """At once, whatever was read before: states, logs, documents, lists, absence."""
    async with Two(tmp_path / "s") as (left, right):
        assert await right.get("s") is None
        await left.create(id="s", user="u", state={"n": 1})
        assert (await right.require("s")).state["n"] == 1
        for number in range(20):
            ours, theirs = (left, right) if number % 2 else (right, left)
            await ours.append("s", Event(kind="op", body=number), state={"app:n": number})
            assert (await theirs.events("s"))[-1].body == number
            assert (await theirs.require("s")).state["app:n"] == number
        await left.documents("s").put("c", "k", b"x" * 100_000)
        document = await right.documents("s").get("c", "k")
        assert document is not None
        assert document.body == b"x" * 100_000
        assert [session.id for session in (await right.list(user="u")).items] == ["s"]
        await right.delete("s")
        assert await left.get("s") is None


async def test_a_compaction_disturbs_no_other_process(tmp_path: Path) -> None:
    """Others read and write on, before they notice and after; old files are let go in the end."""
    async with Two(tmp_path / "s") as (left, right):
        await left.create(id="s")
        for round_ in range(4):
            for number in range(5):
                await left.append("s", Event(kind="op", body=[round_, number]))
            held = await right.events("s")
            store: Any = left.store
            await store.compact()
            assert await right.events("s") == held
            if round_ % 2:  # else it learns of two compactions at once
                await right.append("s", Event(kind="op", body=[round_, 5]))
                assert (await left.events("s"))[-1].body == [round_, 5]
        assert [event.seq for event in await right.events("s")] == list(range(1, 23))
        await asyncio.gather(left.store.compact(), right.store.compact())  # type: ignore[attr-defined]  # this store's own
        assert [event.seq for event in await left.events("s")] == list(range(1, 23))
        for sessions in (left, right):
            store = sessions.store
            await store._keeper._look_after(store._shard("default"))
        assert unlinked_files(tmp_path) == []
        assert sorted(files_of(tmp_path / "s")) == ["compacting", "head", "journal", "snapshot"]


async def test_writers_go_on_while_another_process_compacts(tmp_path: Path) -> None:
    """Nothing that is written beside a compaction is lost, doubled, or out of order."""
    async with Two(tmp_path / "s") as (left, right):
        await left.create(id="s")
        stop = asyncio.Event()

        async def write(sessions: SessionManager, name: str) -> int:
            number = 0
            while not stop.is_set():
                number += 1
                await sessions.append("s", Event(kind="op", author=name, body=number))
            return number

        writers = [
            asyncio.ensure_future(write(sessions, name))
            for sessions, name in ((left, "left"), (right, "right"))
        ]
        for _ in range(6):
            await left.store.compact()  # type: ignore[attr-defined]  # this store's own
            await right.store.compact()  # type: ignore[attr-defined]  # this store's own
        stop.set()
        written = dict(zip(("left", "right"), await asyncio.gather(*writers), strict=True))
        for sessions in (left, right):
            events = await sessions.events("s")
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            for name, count in written.items():
                mine = [event.body for event in events if event.author == name]
                assert mine == list(range(1, count + 1))
            assert await sessions.store.check() == []  # type: ignore[attr-defined]  # this store's own


async def test_a_watcher_hears_of_another_process(tmp_path: Path) -> None:
    """Over a compaction too."""
    async with Two(tmp_path / "s") as (left, right):
        await left.create(id="s")
        heard: list[int] = []
        done = asyncio.Event()

        async def listen() -> None:
            async for event in right.watch("s"):
                heard.append(event.seq or 0)
                if len(heard) == 6:
                    done.set()

        listener = asyncio.ensure_future(listen())
        for number in range(6):
            await left.append("s", Event(kind="op", body=number))
            if number == 3:
                await left.store.compact()  # type: ignore[attr-defined]  # this store's own
        async with asyncio.timeout(20):
            await done.wait()
        assert heard == [1, 2, 3, 4, 5, 6]
        listener.cancel()
        await asyncio.wait((listener,))


async def test_what_a_killed_process_left_unpublished_is_taken_over(tmp_path: Path) -> None:
    """A frame that is whole was written by somebody who died before telling: it counts."""
    path = tmp_path / "s"
    await filled(path, 2)
    sessions = await opened(path)
    store: Any = sessions.store
    assert len(await sessions.events("s")) == 2
    journal = files_of(path)["journal"]
    shutil.copytree(path, tmp_path / "copy")
    other = await opened(tmp_path / "copy")
    await other.append("s", Event(kind="op", body="by a ghost"))
    written = files_of(tmp_path / "copy")["journal"].read_bytes()
    with journal.open("r+b") as file:  # as if it had been killed before it published
        file.seek(0, os.SEEK_END)
        file.write(written[file.tell() :] + b"00000")
    await sessions.append("s", Event(kind="op", body="by us"))
    bodies = [event.body for event in await sessions.events("s")]
    assert bodies == ["event 0", "event 1", "by a ghost", "by us"]
    assert await store.check() == []
    await store.close()
    await other.store.close()


async def test_a_compaction_that_is_cancelled_goes_on_to_its_end(tmp_path: Path) -> None:
    """Cancelled at any await, and with the store closed at once: nothing is lost."""
    path = tmp_path / "s"
    await filled(path, 3)
    for turns in range(12):
        sessions = await opened(path)
        store: Any = sessions.store
        await sessions.append("s", Event(kind="op", body=turns))
        task = asyncio.ensure_future(store.compact())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        writes = [sessions.append("s", Event(kind="op", body=turns)) for _ in range(3)]
        await asyncio.gather(*writes)
        await store.close()
        again = await opened(path)
        assert len(await again.events("s")) == 3 + 4 * (turns + 1)
        await again.store.close()


# --------------------------------------------------------------------------------------- backups


async def test_a_backup_is_a_store_of_its_own(tmp_path: Path) -> None:
    """It opens with everything as of the moment it was made, and nothing it lacks is missed."""
    sessions = await opened(tmp_path / "s")
    store: Any = sessions.store
    await sessions.create(id="s", user="u", state={"n": 1, "user:k": 1})
    await sessions.append("s", Event(kind="op", body="one"))
    await store.compact()
    await sessions.documents("s").put("c", "k", b"body")
    await store.backup(str(tmp_path / "backup"))
    await sessions.append("s", Event(kind="op", body="two"))
    await sessions.delete("s")
    with pytest.raises(PathTaken):
        await store.backup(str(tmp_path / "backup"))
    await store.close()
    copy = await opened(tmp_path / "backup")
    session = await copy.require("s", events=5)
    assert dict(session.state) == {"n": 1, "user:k": 1}
    assert [event.body for event in session.events] == ["one"]
    document = await copy.documents("s").get("c", "k")
    assert document is not None
    assert document.body == b"body"
    assert await copy.store.check() == []  # type: ignore[attr-defined]  # this store's own
    await copy.store.close()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """Check that a test leaves none of the files open that it had open."""
    before = set(open_files())
    yield
    assert set(open_files()) <= before


def open_files() -> list[str]:
    """Return the data files that this process has open."""
    found = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(file.readlink()))
        except OSError:
            continue
    return [name for name in found if "/apps/" in name]
