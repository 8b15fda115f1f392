"""What the Redis store does where the laws do not look."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr
from tests.servers.ending import end_amid_a_write
from tests.servers.redis import Cluster, Servers, eventually, free_port, values_in

from sojourn import (
    Closed,
    Corrupt,
    Event,
    Expiry,
    Phase,
    SessionManager,
    Trigger,
    Unavailable,
    open_store,
)
from sojourn.cli import findings
from sojourn.errors import InvalidQuery
from sojourn.limits import MAX_DOCUMENT
from sojourn.model import Header
from sojourn.store import Change, Delete, Due, Get, SupportsWatch
from sojourn.stores.redis import RedisStore, routes, rows, scripts
from sojourn.stores.redis.inspection import faults_of
from sojourn.stores.redis.options import parse
from sojourn.stores.redis.plain import is_plain as really_plain
from sojourn.stores.redis.routes import ROUTES, TAGS, slot_of
from sojourn.stores.redis.wire import LostError, Wire
from sojourn.testing import FakeClock, SequenceIds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.servers.redis import Server

    from sojourn import Session

pytestmark = pytest.mark.xdist_group("redis")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "redis.md"

PATIENCE = 20.0
"""Seconds after which a message counts as lost."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    servers = Servers()
    try:
        yield servers.add()
    finally:
        servers.stop()


@pytest.fixture(scope="module", params=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where one server is, and where a cluster is."""
    servers = Servers() if request.param == "server" else Cluster(replicas=0)
    try:
        yield servers.add().url if request.param == "server" else servers.url  # type: ignore[attr-defined]  # a cluster has one
    finally:
        servers.stop()


def test_the_tags_are_spread_evenly_and_never_change() -> None:
    """Other tags, or another order, and nobody would find what is kept."""
    assert [slot_of(tag) for tag in TAGS] == [64 * n + 32 for n in range(ROUTES)]
    assert (TAGS[0], TAGS[7], TAGS[255]) == ("021", "z1", "qmh")


# ------------------------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://h/?durability=durable", "prefix, replicas, timeout"),
        ("redis://h/?tls=1", "unknown option"),
        ("redis://h/x", "number of a database"),
        ("redis+cluster://h/1", "no numbered databases"),
        ("redis://a,b/", "redis+cluster"),
        ("redis+cluster://a,,b/", "has no name"),
        ("redis+cluster://a,:7000/", "has no name"),
        ("redis://%2Ftmp%2Fredis.sock", "redis://localhost:port"),
        ("redis://me:pw@%2ftmp%2fredis.sock/0", "redis://localhost:port"),
        ("redis://h:0/", "from 1 to 65535"),
        ("redis://h:x/", "from 1 to 65535"),
        ("redis://h/?replicas=-1", "replicas"),
        ("redis://h/?replicas=x", "replicas"),
        ("redis://h/?timeout=0", "timeout"),
        ("redis://h/?timeout=nan", "timeout"),
        ("redis://h/?prefix={x}", "braces"),
        ("redis://h/?prefix=", "prefix"),
        ("redis+cluster://h/?tls=yes", "0 or 1"),
    ],
)
def test_a_url_that_says_nonsense_is_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        open_store(url)
    assert reason in str(caught.value)


def options_of(url: str) -> RedisStore:
    store = open_store(url)
    assert isinstance(store, RedisStore)
    return store


def test_what_a_url_says_is_what_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_of("redis://me:s%40cret@[::1]:7000/3?timeout=2&replicas=1&prefix=p")._options
    assert (options.servers, options.database) == ((("::1", 7000),), 3)
    assert (options.username, options.password) == ("me", "s@cret")
    assert (options.timeout, options.replicas, options.prefix) == (2.0, 1, "p")
    options = options_of("redis+cluster://a:1,b,[::2]/?tls=1")._options
    assert options.servers == (("a", 1), ("b", 6379), ("::2", 6379))
    assert (options.cluster, options.tls) == (True, True)
    assert options_of("rediss://h")._options.tls
    monkeypatch.setenv("SOJOURN_REDIS_PASSWORD", "from outside")
    assert options_of("redis://h")._options.password == "from outside"
    assert options_of("redis://:inside@h")._options.password == "inside"


def test_a_password_is_in_no_name_and_no_text() -> None:
    store = options_of("redis://me:hunter2@h:1/?timeout=1")
    options = store._options
    for text in (store.name, repr(store), repr(options), str(options), pretty_repr(options)):
        assert "hunter2" not in text


# ------------------------------------------------------------------------------------- servers


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    store = open_store("redis://:hunter2@127.0.0.1:1/?timeout=0.3")
    with pytest.raises(Unavailable) as caught:
        await store.open()
    assert "hunter2" not in str(caught.value)
    await store.close()


async def test_a_wrong_password_is_said_at_once(server: Server) -> None:
    """Without trying for as long as a server may be away, and without showing it."""
    server.ask("ACL", "SETUSER", "guest", "on", ">right", "~*", "&*", "+@all")
    for scheme in ("redis", "redis+cluster"):
        store = open_store(f"{scheme}://guest:hunter2@127.0.0.1:{server.port}/?timeout=3600")
        with pytest.raises(Unavailable, match="does not accept the user and password") as caught:
            await store.open()
        assert "hunter2" not in repr(caught.value) + repr(caught.value.__cause__)
        await store.close()
    async with SessionManager.open(f"redis://guest:right@127.0.0.1:{server.port}/?prefix=acl"):
        pass


@pytest.mark.parametrize("login", ["bob:hunter2@", ":hunter2@"])
async def test_a_server_without_auth_does_not_get_the_password_into_an_error(login: str) -> None:
    """It repeats what came with a command that it does not know."""
    servers = Servers()
    try:
        server = servers.add("--rename-command", "AUTH", "")
        store = open_store(f"redis://{login}127.0.0.1:{server.port}/?timeout=3600")
        with pytest.raises(Unavailable, match="has no AUTH: leave the user") as caught:
            await store.open()
        shown = "".join(traceback.format_exception(caught.value)) + causes_of(caught.value)
        assert "hunter2" not in shown
        assert "bob" not in shown
        await store.close()
    finally:
        servers.stop()


def causes_of(error: BaseException | None) -> str:
    """Return all that an error and what it came from hold, shown or not."""
    if error is None:
        return ""
    return repr(error) + causes_of(error.__cause__) + causes_of(error.__context__)


async def test_what_came_with_an_unknown_command_is_in_no_error(server: Server) -> None:
    """Not later either: it may be what somebody keeps."""
    wire = wire_to(server)
    try:
        (said,) = await wire.send([("FROBNICATE", "a secret")], PATIENCE)
        assert "FROBNICATE" in str(said)
        assert "secret" not in str(said)
    finally:
        await wire.close()


async def test_a_database_that_is_not_there_is_said_at_once(url: str) -> None:
    """As long as a server may be away would be too long."""
    host = url.partition("://")[2].partition(",")[0].rstrip("/")
    what = "is not allowed in cluster" if "cluster" in url else "no database of this number"
    store = open_store(f"redis://{host}/99?timeout=3600")
    with pytest.raises(Unavailable, match=what):
        await store.open()
    await store.close()


async def test_a_url_of_the_other_kind_is_refused(server: Server, url: str) -> None:
    """One server is no cluster, and a node of a cluster is not one server: it is said at once."""
    scheme, _, rest = url.partition("://")
    other = "redis" if scheme == "redis+cluster" else "redis+cluster"
    first = rest.partition(",")[0].rstrip("/")
    what = "is part of a cluster" if other == "redis" else "is not part of a cluster"
    for host in (first, f"{first},127.0.0.1:1") if other != "redis" else (first,):
        store = open_store(f"{other}://{host}/?timeout=3600")
        with pytest.raises(Unavailable, match=f"it {what}: write"):
            await store.open()
        await store.close()


async def test_who_may_not_ask_who_serves_what_is_told_so_at_once(server: Server) -> None:
    server.ask("ACL", "SETUSER", "guest", "reset", "on", ">pw", "~*", "&*", "+@all", "-cluster")
    place = f"redis+cluster://guest:pw@127.0.0.1:{server.port}"
    store = open_store(f"{place}/?timeout=3600")
    with pytest.raises(Unavailable, match="has not the rights that are needed") as caught:
        await store.open()
    assert caught.value.denied
    server.ask("ACL", "SETUSER", "guest", "+cluster")
    with pytest.raises(Unavailable, match="is not part of a cluster"):  # it is asked once more
        await store.open()
    await store.close()


async def test_every_call_says_that_a_server_is_silent() -> None:
    """Also those that do not get as far as a connection to it."""
    servers = Servers()
    try:
        server = servers.add()
        async with SessionManager.open(f"{server.url}?timeout=0.5") as sessions:
            server.freeze()
            for _ in range(2):
                with pytest.raises(Unavailable, match=r"no reply within 0\.\d+ s"):
                    await sessions.get("anything")
            server.thaw()
    finally:
        servers.stop()


RIGHTS = (
    "+evalsha +script|load +hello +client|setname +select +ping +info +config|get +wait "
    "+multi +exec +asking +cluster|slots +subscribe +unsubscribe +publish +get +set +unlink "
    "+copy +rename +exists +time +hget +hmget +hgetall +hset +hsetnx +hdel +hincrby +hkeys "
    "+hstrlen +lindex +llen +lrange +lpop +rpush +ltrim +sadd +smembers +zadd +zrem +zcard "
    "+zcount +zrange +zrevrange +zrangebyscore +zrangebylex +zrevrangebylex +append +getrange "
    "+pexpire +scan"
)
"""What a user of the server needs, as docs/redis.md says."""


async def test_the_rights_that_the_documentation_names_are_enough(server: Server) -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert RIGHTS in text
    server.ask(
        "ACL", "SETUSER", "least", "reset", "on", ">pw", "~least:*", "&least:*", *RIGHTS.split()
    )
    url = f"redis://least:pw@127.0.0.1:{server.port}/?prefix=least"
    from sojourn.store import SupportsBackup
    from sojourn.testing import check_store

    assert not issubclass(RedisStore, SupportsBackup)
    report = await check_store(lambda: open_store(url), laws=_SOME_LAWS)
    refused = list(server.raw("ACL", "LOG"))
    assert report.ok, f"{refused}\n{report}"


DONE_WITHOUT = {
    *(
        "evalsha",
        "script|load",
        "hello",
        "client|setname",
        "select",
        "ping",
        "info",
    ),  # said earlier
    *("multi", "exec", "config|get", "wait", "asking", "cluster|slots"),  # not needed by all
}
"""Rights that are not looked at when a store is opened."""


def test_every_right_that_a_script_needs_is_looked_at() -> None:
    text = scripts.RIGHTS.text.decode()
    looked_at = set(re.findall(r"'([a-z]+)(?: [^']*)?'", text))
    assert looked_at == {name.removeprefix("+") for name in RIGHTS.split()} - DONE_WITHOUT
    used = {
        name.lower()
        for script in scripts.ALL
        for name in re.findall(r"redis\.call\('([A-Z]+)'", script.text.decode())
    }
    assert used <= looked_at


@pytest.mark.parametrize("missing", ["zadd", "rpush", "publish", "script|load", "evalsha"])
async def test_a_right_that_is_missing_is_said_before_anything_is_written(
    server: Server, missing: str
) -> None:
    """A script that is refused a command half way would leave half, and remember it as done."""
    rights = ("reset", "on", ">pw", "~half:*", "&half:*", *RIGHTS.split(), f"-{missing}")
    server.ask("ACL", "SETUSER", "half", *rights)
    server.ask("SCRIPT", "FLUSH")
    store = open_store(f"redis://half:pw@127.0.0.1:{server.port}/?prefix=half&timeout=3600")
    named = "" if missing in ("script|load", "evalsha") else rf": give it \+{missing} on"
    with pytest.raises(Unavailable, match=f"has not the rights that are needed{named}"):
        await store.open()
    await store.close()
    assert not list(server.raw("KEYS", "half:*"))


@pytest.mark.parametrize("missing", ["zadd", "rpush"])
async def test_a_right_that_is_taken_away_is_no_success(server: Server, missing: str) -> None:
    """The session remembers the operation by the time at which the script is refused."""
    rights = ("on", ">pw", "~taken:*", "&taken:*", *RIGHTS.split())
    server.ask("ACL", "SETUSER", "taken", "reset", *rights)
    place = f"redis://taken:pw@127.0.0.1:{server.port}/?prefix=taken"
    async with SessionManager.open(place) as sessions:
        session = await sessions.create(id=missing)
        source = await sessions.create(id=f"{missing}-source")
        server.ask("ACL", "SETUSER", "taken", f"-{missing}")
        with pytest.raises(Unavailable, match="has not the rights") as caught:
            await sessions.append(session, Event(kind="note"))
        assert caught.value.denied
        with pytest.raises(Unavailable, match="has not the rights"):
            await sessions.create(id=f"{missing}-new", events=[Event(kind="note")])
        server.ask("ACL", "SETUSER", "taken", "-zadd")
        with pytest.raises(Unavailable, match="has not the rights"):
            await sessions.fork(source.id, new_id=f"{missing}-fork")


@pytest.mark.parametrize("places", [("~other:*", "&half:*"), ("~half:*", "&other:*")])
async def test_a_user_of_other_keys_is_told_so(server: Server, places: tuple[str, str]) -> None:
    server.ask("ACL", "SETUSER", "half", "reset", "on", ">pw", *places, *RIGHTS.split())
    store = open_store(f"redis://half:pw@127.0.0.1:{server.port}/?prefix=half&timeout=3600")
    with pytest.raises(Unavailable, match=r"keys and channels that begin with half:"):
        await store.open()
    await store.close()


@pytest.mark.parametrize("missing", ["multi", "exec"])
async def test_without_the_right_to_transactions_reads_go_on(server: Server, missing: str) -> None:
    """It is tried once; nothing that comes after it is taken for a part of the transaction."""
    rights = ("+@all", f"-{missing}")
    server.ask("ACL", "SETUSER", "guest", "reset", "on", ">pw", "~*", "&*", *rights)
    server.ask("CONFIG", "RESETSTAT")
    url = f"redis://guest:pw@127.0.0.1:{server.port}/?prefix=no-{missing}"
    async with SessionManager.open(url) as sessions:
        made = await sessions.create(state={"n": 1, "app:x": 2})
        for _ in range(3):
            found = await sessions.require(made.id, events=5)
            assert dict(found.state) == {"n": 1, "app:x": 2}
    assert server.info("commandstats")[f"cmdstat_{missing}"]["rejected_calls"] == 1


async def test_a_server_that_could_not_answer_is_asked_by_transactions_again(
    server: Server,
) -> None:
    """The end of a transaction does not tell why it was refused; what was in it does."""
    async with SessionManager.open(f"{server.url}?prefix=stale") as sessions:
        made = await sessions.create(state={"n": 1})
        await sessions.require(made.id)
        server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        server.ask("CONFIG", "RESETSTAT")
        server.ask("REPLICAOF", "127.0.0.1", free_port())
        try:
            read = asyncio.ensure_future(sessions.require(made.id))
            await asyncio.to_thread(eventually, "refusing", lambda: refused(server, "hmget"))
        finally:
            server.ask("REPLICAOF", "NO", "ONE")
            server.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
        assert dict((await read).state) == {"n": 1}
        server.ask("CONFIG", "RESETSTAT")
        assert dict((await sessions.require(made.id)).state) == {"n": 1}
    assert "cmdstat_evalsha" not in server.info("commandstats")


def refused(server: Server, command: str) -> bool:
    """Return whether a server has refused a command."""
    facts = server.info("commandstats").get(f"cmdstat_{command}", {})
    return bool(facts.get("rejected_calls", 0))


async def test_a_read_is_a_transaction_of_plain_commands(server: Server) -> None:
    """A server runs it in less time than it takes to begin a script."""
    async with SessionManager.open(f"{server.url}?prefix=plain") as sessions:
        made = await sessions.create(user="ada", state={"n": 1, "app:x": 2, "user:y": 3})
        await sessions.append(made, Event(kind="a"), Event(kind="b"))
        await sessions.get(made.id)
        server.ask("CONFIG", "RESETSTAT")
        found = await sessions.require(made.id, events=1)
        assert dict(found.state) == {"n": 1, "app:x": 2, "user:y": 3}
        assert [event.kind for event in found.events] == ["b"]
        assert (await sessions.require(made.id)).events == []
    assert "cmdstat_evalsha" not in server.info("commandstats")


_SOME_LAWS = (
    "readers_see_whole_commits",
    "reaping_removes_all_that_a_session_owned",
    "a_fork_keeps_the_places_of_documents",
    "an_older_revision_is_replaced_when_asked",
    "every_change_wakes_the_watchers",
    "what_sessions_share_is_dumped_and_restored",
    "pages_are_the_list_cut_up",
)


# ------------------------------------------------------------------------------------- watching


async def test_a_watcher_is_woken_by_another_process(url: str) -> None:
    """Without looking by itself: the wait is longer than the test may take."""
    place = f"{url}?prefix=watched"
    async with SessionManager.open(place) as one, SessionManager.open(place) as other:
        session = await one.create(user="u")
        assert isinstance(other.store, SupportsWatch)
        subscription = other.store.subscribe("default", session.id)
        async with asyncio.timeout(PATIENCE):
            await subscription.wait(3600)  # it was subscribed to: there may have been changes
        for number in range(5):
            await one.append(session, Event(kind="note", body=number))
            async with asyncio.timeout(PATIENCE):
                await subscription.wait(3600)
            assert [e.body for e in await other.events(session.id, last=1)] == [number]
        await one.delete(session.id)
        async with asyncio.timeout(PATIENCE):
            await subscription.wait(3600)
        subscription.close()


async def test_messages_are_heard_again_after_the_server_was_gone(server: Server) -> None:
    place = f"{server.url}?prefix=heard"
    async with SessionManager.open(place) as one, SessionManager.open(place) as other:
        session = await one.create()
        assert isinstance(other.store, SupportsWatch)
        subscription = other.store.subscribe("default", session.id)
        async with asyncio.timeout(PATIENCE):
            await subscription.wait(3600)
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await subscription.wait(3600)  # something may have been missed
            await subscription.wait(1.0)  # and is listened to anew meanwhile
            await one.append(session, Event(kind="note"))
            await subscription.wait(3600)
        subscription.close()


# ---------------------------------------------------------------------------------- what is kept


async def test_what_can_not_be_read_is_said_and_can_be_removed(url: str) -> None:
    """It hides nothing else, and nothing of it is left."""
    place = f"{url}?prefix=corrupt"
    store = options_of(place)
    async with SessionManager.open(place) as sessions:
        await sessions.create(id="good", user="u", labels={"a": "b"})
        await sessions.create(id="parent")
        await sessions.create(id="needle", user="u", labels={"a": "b"}, parent="parent")
        await sessions.append(await sessions.require("needle"), Event(kind="note"))
        await store.open()
        route = store._tools.gatherer.finder
        loaded = await route.load([("default", "needle")], store._client.deadline())
        row = loaded["default", "needle"].row  # type: ignore[union-attr]  # it is there
        key = store._tools.foreman.keys.session(row.route, "default", "needle")
        from sojourn.stores.redis.client import Call

        deadline = store._client.deadline()
        await store._client.run([Call(row.route, ("HSET", key, "head", "{nonsense"))], deadline)
        with pytest.raises(Corrupt):
            await store.get(Get(app="default", id="needle", now=1))
        page = await sessions.list(user="u")
        assert [one.id for one in page.items] == ["good"]
        assert len(page.corrupt) == 1
        await store.due(Due(app="default", now=1 << 52, limit=5))
        assert await store.delete(Delete(app="default", id="needle", now=1))
        assert await sessions.get("needle") is None
        assert (await sessions.list(user="u")).corrupt == ()
        assert await sessions.count(user="u") == 1
        assert await sessions.count() == 2
        await store.close()


async def test_a_person_can_read_what_is_kept(server: Server) -> None:
    """With redis-cli: keys say what they are, and values are JSON."""
    async with SessionManager.open(f"{server.url}?prefix=legible") as sessions:
        session = await sessions.create(id="a:b", user="u%", state={"cart": ["tea"]})
        await sessions.append(session, Event(kind="message", body={"text": "hé"}))
    kept = [text for text in values_in([server]) if text.startswith(b"legible:")]
    assert any(b"}:session:default:a%3Ab\n" in text and b'"user":"u%"' in text for text in kept)
    assert any(b'{"cart":["tea"]}' in text for text in kept)
    assert any('"body":{"text":"hé"}'.encode() in text for text in kept)


async def test_the_short_way_of_a_write_leaves_what_the_long_one_does(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same key by key, and nearly every write goes the short way."""
    kept: list[list[bytes]] = []
    monkeypatch.setattr("sojourn.stores.redis.spots.time", Stopped)
    for way, is_plain in (("short", really_plain), ("long", lambda *_: False)):
        went: list[bool] = []

        def asked(*about: Any, is_plain: Any = is_plain, went: list[bool] = went) -> bool:
            went.append(is_plain(*about))
            return went[-1]

        monkeypatch.setattr("sojourn.stores.redis.jobs.is_plain", asked)
        versions = itertools.count(1)
        monkeypatch.setattr(
            "sojourn.stores.planning.planner.drawn",
            lambda count, versions=versions: list(itertools.islice(versions, count)),
        )
        place = f"{server.url}?prefix={way}"
        async with SessionManager.open(place, clock=FakeClock(), ids=SequenceIds()) as sessions:
            mine = await sessions.create(user="u:%", labels={"a": "b"}, state={"n": 0})
            nobody = await sessions.create(expiry=Expiry(idle=60))
            for number in range(3):
                state = {"n": number, "user:a": number, "user:b": [number]}
                note = Event(kind=f"k{number}", body=number)
                await sessions.append(mine, note, Event(kind="k0", id="same"), state=state)
                await sessions.append(nobody, note, state={"n": number})
            mine.state["user:a"] = "ü\x00"
            await sessions.save(mine)
        assert went == [way == "short"] * 7
        head = f"{way}:".encode()
        texts = [text.replace(head, b"") for text in values_in([server]) if text.startswith(head)]
        kept.append(sorted(b"\n".join(sorted(text.split(b"\n"))) for text in texts))
    assert kept[0]
    assert kept[0] == kept[1]


async def test_what_is_remembered_of_a_header_goes_with_what_rarer_writes_change(url: str) -> None:
    """Plain writes before and after each of them: whoever reads it finds all as it was left."""
    async with SessionManager.open(f"{url}?prefix=fixed") as sessions:
        mine = await sessions.create(id="s", labels={"a": "b"}, expiry=Expiry(idle=900))

        async def rarer(number: int) -> None:
            if number == 0:
                await sessions.bind(mine, user="u")
            elif number == 1:
                await sessions.label(mine, {"a": None, "c": "d"})
            elif number == 2:
                mine.state["n"] = number
                await sessions.save(mine, expiry=Expiry(idle=60))
            else:
                await sessions.apply("s", Trigger.END, reason="enough")

        async with SessionManager.open(f"{url}?prefix=fixed") as others:
            for number in range(4):
                await sessions.append(mine, Event(kind="k"), state={"n": -number})
                await rarer(number)
                if number < 3:
                    await sessions.append(mine, Event(kind="k"))
                    assert (await others.require("s")).header == mine.header
            found = await others.require("s")
        assert (found.user, found.labels, found.header.idle) == ("u", {"c": "d"}, None)
        assert (found.phase, found.reason) == (Phase.ENDING, "enough")


headers = st.builds(
    Header,
    app=st.text(min_size=1),
    id=st.text(min_size=1),
    epoch=st.text(),
    user=st.none() | st.text(),
    lifecycle=st.sampled_from(["open", "agent"]),
    phase=st.sampled_from(Phase),
    reason=st.none() | st.text(),
    revision=st.integers(1, 2**62),
    seq=st.integers(0, 2**40),
    created_at=st.integers(-(2**55), 2**55),
    active_at=st.integers(-(2**55), 2**55),
    idle=st.none() | st.integers(1, 2**50),
    absolute_at=st.none() | st.integers(0, 2**55),
    expires_at=st.none() | st.integers(-(2**55), 2**55),
    due_at=st.none() | st.integers(-(2**55), 2**55),
    retain=st.none() | st.integers(0, 2**50),
    attempts=st.integers(0, 9),
    parent=st.none() | st.text(),
    forked_from=st.none() | st.text(),
    labels=st.dictionaries(st.text(), st.text(), max_size=2),
    exclusive=st.just(()) | st.tuples(st.text()),
    fence=st.integers(0, 9),
    holder=st.none() | st.text(),
    leased_until=st.integers(0, 2**55),
    remembered=st.binary(max_size=40),
)


async def test_a_session_that_was_made_anew_for_another_user_shows_that_ones_state(
    url: str,
) -> None:
    """Although this process remembers where it was, and whose."""
    place = f"{url}?prefix=anew"
    route = routes.of_user("default", "ann")
    beside = next(
        user for user in map(str, itertools.count()) if routes.of_user("default", user) == route
    )  # so that the session is at the same place again
    async with SessionManager.open(place) as one, SessionManager.open(place) as other:
        for user in ("ann", beside, "bob", None, "ann"):
            state = {"n": 1} if user is None else {"n": 1, "user:name": user}
            await other.create(id="s", user=user, state=state)
            found = await one.require("s")
            assert (found.user, found.state.get("user:name")) == (user, user)
            seen = await one.require("s")
            assert (seen.user, seen.state.get("user:name")) == (user, user)
            mark = {} if user is None else {"user:mark": user}
            await one.append(found, Event(kind="note"), state=mark)
            assert (await other.require("s")).state.get("user:mark") == user
            await other.delete("s")


@given(header=headers)
def test_a_header_reads_back_as_it_was_kept(header: Header) -> None:
    text = rows.head_text(header, rows.fixed_text(header))
    assert rows.to_header(text, header.remembered) == header


class Stopped:
    """A clock for places that stands still: each is one behind the last."""

    @staticmethod
    def time_ns() -> int:
        """Return the beginning."""
        return 0


async def test_the_largest_document_and_many_events_pass(server: Server) -> None:
    async with SessionManager.open(f"{server.url}?prefix=large&timeout=30") as sessions:
        session = await sessions.create(id="s")
        body = b"\x00\xff" * (MAX_DOCUMENT // 2)
        docs = sessions.documents("s")
        await docs.put("files", "big", body)
        found = await docs.get("files", "big")
        assert found is not None
        assert found.body == body
        events = [Event(kind=f"k{number % 300}", body=number) for number in range(9_000)]
        await sessions.append(session, *events)
        assert [e.body for e in await sessions.events("s", last=3)] == [8_997, 8_998, 8_999]
        several = await sessions.events("s", kind=["k7", "k299"])
        assert [e.body for e in several] == [n for n in range(9_000) if n % 300 in (7, 299)]
        await sessions.truncate(session, after=4_000)
        assert [e.seq for e in await sessions.events("s", after_seq=3_998)] == [3_999, 4_000]


def events(count: int) -> list[Event]:
    """Return events of several kinds: some of one id, some with names that JSON escapes."""
    odd = ("", 'a "quoted\\" one', "", "ü", "", "", "")
    return [
        Event(
            kind=odd[number % 7] or f"k{number % 3}",
            id="same" if number % 5 == 3 else odd[number % 6] + str(number),
            body={"n": number, "id": "nobody's"},
        )
        for number in range(count)
    ]


async def written(sessions: SessionManager, id: str, count: int) -> Session:
    """Return a session with so many events, some of them with a delta."""
    session = await sessions.create(id=id)
    for number, event in enumerate(events(count)):
        state = {"n": number} if number % 4 == 1 else None
        await sessions.append(session, event, state=state)
    return session


class Log(NamedTuple):
    """What a server keeps of a log."""

    lines: list[bytes]
    ids: dict[bytes, bytes]
    kinds: bytes


def log_of(servers: Iterable[Server], prefix: str, id: str) -> Log:
    """Return what is kept of a session's log, wherever it is."""
    log = Log([], {}, b"")
    for server in servers:
        with redis.Redis(port=server.port, protocol=2) as client:
            for key in client.scan_iter(match=f"{prefix}:{{*:default:{id}"):
                kind = key.split(b":")[2]
                if kind == b"log":
                    log = log._replace(lines=client.lrange(key, 0, -1))
                elif kind == b"ids":
                    found = client.hgetall(key)
                    log = log._replace(ids={name: n for name, n in found.items() if name})
                elif kind == b"kinds":
                    log = log._replace(kinds=client.get(key) or b"")
    return log


@pytest.mark.parametrize("kept", [0, 1, 9, 19, 20, 21, 35, 39, 40])
async def test_a_log_that_was_cut_is_as_one_that_was_never_longer(
    server: Server, kept: int
) -> None:
    """Whether what goes is taken out, or what stays is written anew; and so is a fork's."""
    prefix = f"cut{kept}"
    async with SessionManager.open(f"{server.url}?prefix={prefix}", clock=FakeClock()) as sessions:
        await written(sessions, "short", kept)
        long = await written(sessions, "long", 40)
        await sessions.fork("long", at=kept, new_id="fork")
        await sessions.truncate(long, after=kept)
        short, *others = (log_of([server], prefix, id) for id in ("short", "long", "fork"))
        assert len(short.lines) == len(short.kinds) == kept
        assert others == [short, short]
        for id in ("long", "fork"):
            await sessions.append(id, Event(kind="k1", body=1))
            assert len(await sessions.events(id, last=50)) == kept + 1


async def test_an_event_that_can_not_be_read_does_not_keep_a_log_from_being_cut(
    server: Server,
) -> None:
    """It stays what it is, and the others are found by their ids."""
    async with SessionManager.open(f"{server.url}?prefix=halfcut") as sessions:
        session = await written(sessions, "s", 20)
        before = log_of([server], "halfcut", "s")
        with redis.Redis(port=server.port, protocol=2) as client:
            (key,) = client.scan_iter(match="halfcut:*:log:default:s")
            client.lset(key, 1, before.lines[1][:40])
        await sessions.truncate(session, after=3)
        after = log_of([server], "halfcut", "s")
    assert after.lines == [before.lines[0], before.lines[1][:40], before.lines[2]]
    assert after.ids == {id: n for id, n in before.ids.items() if n in (b"1", b"2", b"3")}
    assert (len(after.ids), after.kinds) == (3, before.kinds[:3])


async def test_the_beginning_of_a_long_log_costs_what_it_has(server: Server) -> None:
    """A fork at its beginning, a cut behind it and one at its end: the rest is not gone through.

    Only a look for deltas walks through the log, hundreds of events at a time.
    """
    costs: list[list[int]] = []
    async with SessionManager.open(f"{server.url}?prefix=costs") as sessions:
        for count in (1_000, 9_000):
            session = await sessions.create(id=f"s{count}")
            await sessions.append(session, *[Event(kind="k", body=n) for n in range(count)])
            costs.append([])
            server.ask("CONFIG", "RESETSTAT")
            await sessions.fork(session.id, at=10, new_id=f"fork{count}")
            costs[-1].append(calls_of(server))
            assert server.info("commandstats")["cmdstat_copy"]["calls"] <= 4, "documents alone"
            for after in (count - 10, 10):
                server.ask("CONFIG", "RESETSTAT")
                session = await sessions.truncate(session, after=after)
                costs[-1].append(calls_of(server))
    small, large = costs
    assert max(small) < 200
    assert all(more - less < 50 for less, more in zip(small, large, strict=True)), costs


def calls_of(server: Server) -> int:
    """Return how many commands a server has run, those of scripts too."""
    return sum(facts["calls"] for facts in server.info("commandstats").values())


async def test_a_long_log_is_looked_through_a_part_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered in between; and a fork of all of it looks for no deltas."""
    monkeypatch.setattr("sojourn.stores.redis.gathering.LOOKED_THROUGH", 7)
    async with SessionManager.open(f"{server.url}?prefix=parts") as sessions:
        await written(sessions, "s", 40)
        await sessions.create(id="empty")
        for at in (0, 6, 7, 8, 29, 40):
            fork = await sessions.fork("s", at=at, new_id=f"fork{at}")
            assert fork.state.get("n") == max((n for n in range(1, at, 4)), default=None)
        assert dict((await sessions.fork("empty", at=0, new_id="nothing")).state) == {}
        server.ask("CONFIG", "RESETSTAT")
        assert (await sessions.fork("s", new_id="whole")).state["n"] == 37
        assert "cmdstat_lrange" not in server.info("commandstats")


async def test_a_client_of_another_program_changes_nothing_by_its_keys(server: Server) -> None:
    with redis.Redis(port=server.port, protocol=2) as client:
        client.set("sojourn-is-not-mine", "1")
        client.set("other:{021}:session:default:s", "1")
    async with SessionManager.open(f"{server.url}?prefix=mine") as sessions:
        await sessions.create(id="s", user="u")
        await sessions.forget("u")
        assert await sessions.count() == 0
    with redis.Redis(port=server.port, protocol=2) as client:
        assert client.get("other:{021}:session:default:s") == b"1"


async def test_a_fork_bears_that_its_source_is_written_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided anew on what is there, not again and again on what was."""
    place = f"{url}?prefix=forked&timeout=3600"
    async with SessionManager.open(place) as one, SessionManager.open(place) as other:
        source = await other.create(id="source", user="u", state={"n": 0})
        store = one.store
        assert isinstance(store, RedisStore)
        fetch = store._tools.gatherer.fetch

        async def late(*arguments: Any) -> None:
            await fetch(*arguments)
            monkeypatch.undo()
            await other.append(source, Event(kind="note"), state={"n": 1})

        monkeypatch.setattr(store._tools.gatherer, "fetch", late)
        fork = await one.fork("source", new_id="fork")
        assert (fork.state["n"], len(await one.events("fork"))) == (1, 1)


# --------------------------------------------------------------------------- what was confirmed


async def test_what_no_replica_confirms_is_not_acknowledged(server: Server) -> None:
    """It is there all the same, and done again it is not applied twice; relaxed is not kept."""
    place = f"{server.url}?prefix=confirmed&timeout=1"
    async with SessionManager.open(place) as sessions:
        await sessions.create(id="s")
    store = options_of(f"{place}&replicas=1")
    await store.open()
    change = Change(app="default", id="s", op=b"12345678", now=1, events=())
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await store.commit(change)
        assert "0 of 1 replicas" in str(caught.value)
    relaxed = msgspec.structs.replace(change, op=b"87654321", durability="relaxed")
    assert (await store.commit(relaxed)).durability == "relaxed"
    record = await store.get(Get(app="default", id="s", now=1))
    assert record is not None
    assert record.header.revision == 3
    await store.close()


async def test_facts_of_the_servers_are_told(url: str) -> None:
    store = options_of(f"{url}?prefix=facts")
    facts = await store.facts()
    await store.close()
    assert facts.release.startswith(("Redis", "Valkey"))
    assert facts.masters == (3 if "cluster" in url else 1)
    assert (facts.replicas, facts.wanted, facts.on_disk) == (0, 0, False)


async def test_a_doctor_says_what_is_wrong_with_the_servers(server: Server) -> None:
    """Memory that throws sessions away is wrong; memory alone, for durable writes, a warning."""
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        found = {one.check: one for one in await findings.redis(server.url)}
    finally:
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert found["memory"].verdict == "wrong"
    assert found["durability"].verdict == "warning"
    (gone,) = await findings.redis("redis://127.0.0.1:1/?timeout=0.3")
    assert gone.verdict == "wrong"


@pytest.mark.parametrize(
    ("release", "known"),
    [
        (("Redis", "6.2.20"), []),
        (("Redis", "6.2.19"), ["CVE-2025-49844"]),
        (("Redis", "7.0.15"), ["CVE-2025-49844", "CVE-2026-23631"]),
        (("Redis", "7.2.14"), []),
        (("Redis", "8.0.4"), ["CVE-2026-23631"]),
        (("Redis", "8.4.2"), ["CVE-2026-23631"]),
        (("Redis", "8.8.0"), []),
        (("Valkey", "7.2.10"), ["CVE-2025-49844", "CVE-2026-23631"]),
        (("Valkey", "8.1.7"), []),
        (("Valkey", "9.0.3"), ["CVE-2026-23631"]),
        (("Valkey", "9.1.0"), []),
    ],
)
def test_releases_with_known_faults_are_known(release: tuple[str, str], known: list[str]) -> None:
    """Those of a version that was given up have them for ever."""
    assert [fault.partition(" ")[0] for fault in faults_of(*release)] == known


async def test_an_index_that_does_not_agree_is_reported(server: Server) -> None:
    async with SessionManager.open(f"{server.url}?prefix=agree") as sessions:
        await sessions.create(id="s", user="u", labels={"a": "b"})
        store = sessions.store
        assert isinstance(store, RedisStore)
        assert await store.check() == []
        with redis.Redis(port=server.port, protocol=2) as client:
            (order,) = [
                key
                for key in client.scan_iter(match="agree:*")
                if key.endswith(b"list:default:label:a:b:OPEN:active")
            ]
            (member,) = client.zrange(order, 0, -1)
            client.zrem(order, member)
            client.zadd(order, {"00000000000000ghost": 1})
            client.rpush("agree:{021}:log:default:gone", "{}")
        problems = "\n".join(await store.check())
        assert "misses" in problems
        assert "ghost" in problems
        assert "log:default:gone is there without its session" in problems


async def test_keys_of_others_under_our_prefix_are_left_alone(server: Server) -> None:
    """They are neither wrong nor in the way, and stay when the store is dropped."""
    place = f"{server.url}?prefix=shared"
    rests = (b"other}:x", b"\xff\xfe}:x", b"021}:\xff", b"021", b"", b"}:session:a:b")
    foreign = {b"shared:{" + rest for rest in rests}
    with redis.Redis(port=server.port, protocol=2) as client:
        for name in foreign:
            client.set(name, "1")
        async with SessionManager.open(place) as sessions:
            await sessions.create(id="s", user="u")
            store = sessions.store
            assert isinstance(store, RedisStore)
            assert await store.check() == []
            assert "wrong" not in {one.verdict for one in await findings.redis(place)}
            await store.drop()
        assert set(client.scan_iter(match="shared:*")) == foreign


async def test_damaged_events_and_documents_are_corrupt(server: Server) -> None:
    """Each says so by itself; the session around it can be read."""
    async with SessionManager.open(f"{server.url}?prefix=damaged") as sessions:
        session = await sessions.create(id="s")
        await sessions.append(session, Event(kind="note", body=1))
        docs = sessions.documents("s")
        await docs.put("files", "k", b"x" * 100_000)
        with redis.Redis(port=server.port, protocol=2) as client:
            keys = {key.split(b":")[2]: key for key in client.scan_iter(match="damaged:*")}
            client.lset(keys[b"log"], 0, b'{"seq":1,"at":1,"peak":1,"kind":"no')
            client.hdel(keys[b"bodies"], "files:k\0")
        with pytest.raises(Corrupt):
            await sessions.events("s")
        with pytest.raises(Corrupt):
            await docs.get("files", "k")
        assert (await sessions.require("s")).id == "s"
        with redis.Redis(port=server.port, protocol=2) as client:
            client.hset(keys[b"docs"], "files:k", "{}")
        with pytest.raises(Corrupt):
            await docs.get("files", "k")


async def test_a_connection_of_a_process_is_not_its_childs(server: Server) -> None:
    store = options_of(f"{server.url}?prefix=fork")
    await store.open()
    store._lifetime._process, loop = 1, store._lifetime._loop
    store._lifetime._loop = None  # as none runs in a forked child
    with pytest.raises(Closed, match="forked"):
        await store.get(Get(app="default", id="s", now=1))
    store._lifetime._process, store._lifetime._loop = os.getpid(), loop
    await store.close()


async def test_a_connection_waits_for_each_as_long_as_it_was_given(server: Server) -> None:
    """One alarm serves all: it goes by who is first, and not by who was answered."""
    wire = wire_to(server)
    try:
        assert await wire.send([("PING",)], PATIENCE) == [b"PONG"]
        assert await wire.send([("PING",)], 0.5) == [b"PONG"]
        patient = wire.send([("BLPOP", "nothing", "0.8")], PATIENCE)
        assert await patient == [None]  # long after the last one was to be answered

        slow = wire.send([("BLPOP", "nothing", "0")], PATIENCE)
        hasty = wire.send([("PING",)], 0.05)
        for flight in (hasty, slow):
            with pytest.raises(LostError):
                await asyncio.wait_for(flight, PATIENCE / 2)
    finally:
        await wire.close()


async def test_commands_that_can_not_be_sent_cost_nobody_else(server: Server) -> None:
    wire = wire_to(server)
    try:
        fine = wire.send([("PING",)], PATIENCE)
        with pytest.raises(LostError, match="surrogates"):
            await wire.send([("ECHO", "\ud800")], PATIENCE)
        assert await fine == [b"PONG"]
        assert wire.broken is None
    finally:
        await wire.close()


async def test_a_broken_connection_keeps_nothing_and_says_why(server: Server) -> None:
    """What was under way is told the reason; what comes after is neither kept nor sent."""
    wire = wire_to(server)
    reason = ConnectionError("pulled")
    try:
        assert await wire.send([("PING",)], PATIENCE) == [b"PONG"]
        waiting = wire.send([("BLPOP", "nothing", "0")], PATIENCE)
        wire.drop(reason)
        with pytest.raises(LostError, match="pulled") as caught:
            await waiting
        assert caught.value.__cause__ is reason
        with pytest.raises(LostError, match="is broken"):
            await wire.send([("PING",)], PATIENCE)
        assert not wire.is_ready
        assert not wire._queue
        assert not wire._flights
    finally:
        await wire.close()


async def test_who_goes_on_first_may_break_the_connection(server: Server) -> None:
    """Replies that came together are all handed out, whatever the first one to go on does."""
    wire = wire_to(server)
    answers: list[Any] = []

    async def ask(*, then_break: bool) -> None:
        answers.append(await wire.send([("PING",)], PATIENCE))
        if then_break:
            wire.drop(LostError("enough"))

    try:
        assert await wire.send([("PING",)], PATIENCE) == [b"PONG"]
        async with asyncio.TaskGroup() as group:
            group.create_task(held(wire))
            for place in range(3):
                group.create_task(ask(then_break=place == 0))
        assert answers == [[b"PONG"]] * 3
    finally:
        await wire.close()


async def held(wire: Wire) -> None:
    """Have what is asked meanwhile leave together, so that its replies come together."""
    wire.pause_writing()
    await asyncio.sleep(0)
    wire.resume_writing()


def test_a_program_that_is_stopped_leaves_nobody_waiting(server: Server) -> None:
    """A loop that goes on after `SystemExit` has all the others served."""
    loop = asyncio.new_event_loop()
    wire = wire_to(server)

    async def ask(*, then_stop: bool) -> list[Any]:
        replies = await wire.send([("PING",)], PATIENCE)
        if then_stop:
            raise SystemExit(3)
        return replies

    async def begin() -> list[asyncio.Task[list[Any]]]:
        await wire.send([("PING",)], PATIENCE)
        wire.pause_writing()
        tasks = [asyncio.create_task(ask(then_stop=place == 0)) for place in range(3)]
        await asyncio.sleep(0)
        return tasks

    try:
        first, *others = loop.run_until_complete(begin())
        loop.call_soon(wire.resume_writing)
        with pytest.raises(SystemExit):
            loop.run_forever()
        for task in others:
            assert loop.run_until_complete(task) == [b"PONG"]
        with pytest.raises(SystemExit):
            first.result()
    finally:
        loop.run_until_complete(wire.close())
        loop.close()


def wire_to(server: Server) -> Wire:
    options = parse("redis", server.url.partition("://")[2].partition("/")[0], "/0", {})
    return Wire(options.servers[0], options, PATIENCE)


async def test_a_lone_write_is_on_its_way_in_the_turn_after_it_was_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn of the loop before it leaves is waited for by whoever writes."""
    async with SessionManager.open(server.url) as sessions:
        session = await sessions.create()
        sent: list[object] = []
        send = Wire.send

        def noted(wire: Wire, *given: Any) -> Any:
            sent.append(given)
            return send(wire, *given)

        monkeypatch.setattr(Wire, "send", noted)
        saving = asyncio.ensure_future(sessions.append(session, Event(kind="note")))
        await asyncio.sleep(0)  # it is asked for
        assert not sent
        await asyncio.sleep(0)  # who came in that turn leaves together
        assert len(sent) == 1
        await saving
        assert len(sent) == 1


async def test_what_waited_for_a_full_connection_leaves_in_a_turn_of_its_own(
    server: Server,
) -> None:
    """The transport says so amid a send of its own, and is not to be given the next one there."""
    wire = wire_to(server)
    try:
        assert await wire.send([("PING",)], PATIENCE) == [b"PONG"]
        wire.pause_writing()
        waiting = wire.send([("PING",)], PATIENCE)
        wire.resume_writing()
        assert len(wire._queue) == 1
        assert await waiting == [b"PONG"]
    finally:
        await wire.close()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_program_that_ends_amid_a_write_is_not_held_up(server: Server, turns: int) -> None:
    """Whoever writes waits for the batch, and the batch was stopped before."""
    end_amid_a_write(server.url, turns)


async def test_a_damaged_tier_is_no_matter_to_a_session_that_is_over(server: Server) -> None:
    clock = FakeClock()
    async with SessionManager.open(server.url, app="damaged", clock=clock) as sessions:
        session = await sessions.create(user="u", state={"user:a": 1}, expiry=Expiry(idle=60))
        with redis.Redis.from_url(server.url) as client:
            for key in client.scan_iter("*:tier:damaged:*"):
                client.hset(key, b"\xff", "1")
        with pytest.raises(Corrupt, match="tier of damaged"):
            await sessions.get(session.id)
        clock.advance(60)
        assert await sessions.get(session.id) is None
