"""The comparisons in files and in memory: who does what beside whom, and what has to be reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.places import Place

ADK = "google.adk"
OPENAI = "agents"
LANGGRAPH = "langgraph.checkpoint.sqlite"

FLAT = 1.2
"""What counts as flat: an append to a log a hundred times as long costs at most so many times as
much. The noise of two measurements, and the cache misses of a larger heap, need that room."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    appends: int = 1_500
    warm: int = 100
    callers: int = 100
    each: int = 40
    log: int = 10_000
    window: int = 20
    reads: int = 300
    logs: tuple[int, int, int] = (100, 1_000, 10_000)
    in_memory: int = 600
    chat_window: int = 50
    chats: int = 50
    turns: int = 1_000
    turns_each: int = 40
    checkpoints: int = 1_000
    visits: int = 24_000
    visitors: int = 20


QUICK = Sizes(
    rounds=1,
    appends=20,
    warm=4,
    callers=4,
    each=3,
    log=60,
    reads=5,
    logs=(10, 20, 40),
    in_memory=20,
    chats=3,
    turns=10,
    turns_each=4,
    checkpoints=10,
    visits=160,
    visitors=4,
)
"""So little that it shows only whether everything runs."""


@dataclass(frozen=True)
class Contestant:
    """Somebody who does the work: `label` in tables, `work` as the worker names it.

    `needs` is the module without which it can not run, `beside` the label of the one whose
    throughput is shown as a multiple of its own.
    """

    label: str
    work: str
    keywords: dict[str, Any]
    place: Place = "file"
    needs: str | None = None
    beside: str = "Sojourn"


@dataclass(frozen=True)
class Target:
    """Throughput that one contestant has to reach: so many times that of another."""

    ours: str
    peer: str
    at_least: float

    @property
    def what(self) -> str:
        """Say it in words."""
        return f"{self.ours} ≥ {self.at_least:.2g} x {self.peer}"


@dataclass(frozen=True)
class Comparison:
    """The same work, done by everybody."""

    name: str
    what: str
    settings: str
    contestants: Sequence[Contestant]
    targets: Sequence[Target]
    together: str | None = None
    """The work that has all of them measured in one process, in turns of some milliseconds, and is
    given what each would be given: the machine is faster in one second than in the next."""


SOJOURN = "Sojourn"
FLOOR = "raw floor"
AWAITED_FLOOR = "raw floor, awaited"
"""The floor for who may not hold up the event loop while a disk is synced."""
ADK_SQLITE = "ADK SqliteSessionService"
ADK_DATABASE = "ADK DatabaseSessionService"
ADK_MEMORY = "ADK InMemorySessionService"
SQLITE_SESSION = "openai-agents SQLiteSession"
SYNC_SAVER = "langgraph SqliteSaver"
ASYNC_SAVER = "langgraph AsyncSqliteSaver"
MEMORY_SAVER = "langgraph InMemorySaver"
SHIPPED = ", as shipped"
STARLETTE_COOKIES = "Starlette SessionMiddleware"
STARSESSIONS = "starsessions"
LITESTAR_SESSIONS = "Litestar server-side"
FLASK_SESSION = "Flask-Session"
DJANGO_DB = "Django db"
DJANGO_CACHED = "Django cached_db"

ALIKE = "All files in WAL mode with synchronous=FULL: a sync at every commit."

_OURS = f"{SOJOURN} on Starlette"
VISITS = (
    "Raw ASGI calls (WSGI for Flask) of the same three pages, the framework's routing included. Of "
    "20 requests of a visitor 17 read, 2 carry no cookie, 1 writes. Sessions are kept "
)


def _counted(visits: int) -> dict[str, Any]:
    """Return how many visits are timed, and how many go before: a site runs for long."""
    return {"count": visits, "warm": visits // 10}


def visits(sizes: Sizes) -> Comparison:
    """A small site with its sessions in the memory of the process."""
    keywords = _counted(sizes.visits)
    sites = (
        (_OURS, "sojourn", None),
        (STARLETTE_COOKIES, "cookies", "itsdangerous"),
        (STARSESSIONS, "starsessions", "starsessions"),
        ("bare Starlette", "bare", None),
        (LITESTAR_SESSIONS, "litestar", "litestar"),
        (FLASK_SESSION, "flask-session", "flask_session"),
    )
    contestants = [
        _site(label, {"kind": kind, **keywords}, "memory", needs) for label, kind, needs in sites
    ]
    return Comparison(
        "visits",
        "requests of a visitor who is logged in, mostly reading, sessions in memory",
        f"{VISITS}in the memory of the process; in the cookie itself by Starlette's own. "
        "All are asked in one process, in turns of some hundred requests, so that each turn of one "
        "is compared with one of the other at nearly the same moment; the resident set is of all.",
        contestants,
        [
            Target(_OURS, peer, 1)
            for peer in (STARLETTE_COOKIES, STARSESSIONS, LITESTAR_SESSIONS, FLASK_SESSION)
        ],
        together="peers.visits.together",
    )


def visits_durable(sizes: Sizes) -> Comparison:
    """The same with sessions in a SQLite file."""
    keywords = _counted(sizes.visits // 16)
    return Comparison(
        "visits-sqlite",
        "requests of a visitor who is logged in, mostly reading, sessions in a SQLite file",
        f"{VISITS}in a SQLite file; Django's as it is shipped, with a rollback journal, cached_db "
        "reads from the memory of the process.",
        [
            _site(_OURS, {"kind": "sojourn", **keywords}, "file"),
            _site(DJANGO_DB, {"kind": "django-db", **keywords}, "file", "django"),
            _site(DJANGO_CACHED, {"kind": "django-cached", **keywords}, "file", "django"),
        ],
        [Target(_OURS, DJANGO_DB, 5), Target(_OURS, DJANGO_CACHED, 1)],
    )


def visits_redis(sizes: Sizes) -> Comparison:
    """The same on a Redis server, by many visitors at once: what a process can serve."""
    return _on_redis(
        sizes,
        "visits-redis",
        f"requests of {sizes.visitors} visitors at once, mostly reading, sessions on Redis",
        "",
        [Target(_OURS, STARSESSIONS, 2)],
        visitors=sizes.visitors,
    )


def visits_redis_alone(sizes: Sizes) -> Comparison:
    """The same by one visitor: how long a request takes, with the way to the server and back."""
    return _on_redis(
        sizes,
        "visits-redis-alone",
        "requests of one visitor, the next one when the last is answered, sessions on Redis",
        " No target: most of the time is the system's, which wakes the server and this process for "
        "each request.",
        [],
        visitors=1,
    )


def _on_redis(
    sizes: Sizes, name: str, what: str, more: str, targets: Sequence[Target], *, visitors: int
) -> Comparison:
    keywords = {**_counted(sizes.visits // 4), "visitors": visitors}
    return Comparison(
        name,
        what,
        f"{VISITS}on one Redis server, reached through TCP on the loopback, whose file of commands "
        f"is synced every second, for both.{more}",
        [
            _site(_OURS, {"kind": "sojourn", **keywords}, "redis"),
            _site(STARSESSIONS, {"kind": "starsessions", **keywords}, "redis", "starsessions"),
        ],
        targets,
    )


def _site(
    label: str, keywords: dict[str, Any], place: Place, needs: str | None = None
) -> Contestant:
    return Contestant(label, "peers.visits.visit", keywords, place, needs, beside=_OURS)


def append(sizes: Sizes) -> Comparison:
    """One caller, one session."""
    keywords = {"count": sizes.appends, "warm": sizes.warm}
    return Comparison(
        "append",
        "append of a 1 KB event with a change of session and user state, one caller, durable",
        f"{ALIKE} The ADK services do not set a journal mode: their file was put into WAL mode "
        "before, which they keep; as shipped they use a rollback journal.",
        [
            *_raw("append", keywords),
            _awaited("append", keywords),
            *_adk("append", keywords, shipped=True),
        ],
        [Target(SOJOURN, ADK_SQLITE, 10), Target(SOJOURN, ADK_DATABASE, 20)],
    )


def callers(sizes: Sizes) -> Comparison:
    """Many callers at once."""
    keywords = {
        "callers": sizes.callers,
        "each": sizes.each,
        "warm": max(1, sizes.warm * 4 // sizes.callers),
    }
    return Comparison(
        "callers",
        f"the same by {sizes.callers} callers at once, each on a session of its own",
        f"{ALIKE} The floor writes a round of the callers in one transaction. What a peer refused "
        '("database is locked" or no connection in time) is not counted as done.',
        [*_raw("callers", keywords), *_adk("callers", keywords)],
        [Target(SOJOURN, ADK_SQLITE, 25), Target(SOJOURN, ADK_DATABASE, 60)],
    )


def tail(sizes: Sizes) -> Comparison:
    """The end of a long log."""
    keywords = {
        "events": sizes.log,
        "window": sizes.window,
        "count": sizes.reads,
        "warm": sizes.warm,
    }
    return Comparison(
        "tail",
        f"load a session with the last {sizes.window} of its {sizes.log:,} events",
        f"{ALIKE} Sojourn by `require(id, events={sizes.window})`, which reads state and events "
        f"as the peers' `get_session` with `num_recent_events={sizes.window}` does; `events(id, "
        f"last={sizes.window})` reads the events alone. It keeps the ends of logs that were read "
        "last, and of a session that has not moved on it reads no event again. So the target is "
        "for a window that says where it ends, of which nothing is kept.",
        [
            *_raw("tail", keywords),
            Contestant(_ANEW, "peers.ours.tail_anew", keywords),
            Contestant(f"{SOJOURN}, events alone", "peers.ours.tail_events", keywords),
            *_adk("tail", {**keywords, "warm": max(1, sizes.warm // 10)}),
        ],
        [Target(_ANEW, ADK_SQLITE, 50)],
    )


def memory(sizes: Sizes) -> Comparison:
    """Appends in memory to logs of several lengths."""
    contestants: list[Contestant] = []
    for label, work, needs in (
        (SOJOURN, "peers.ours.memory", None),
        ("dicts and lists", "peers.floor.memory", None),
        (ADK_MEMORY, "peers.adk.memory", ADK),
    ):
        for events in sizes.logs:
            # A peer's cost grows with the log: few appends beyond the length that is meant.
            each = max(1, min(sizes.in_memory // 2, events // 10))
            keywords = {"events": events, "sessions": sizes.in_memory // each, "each": each}
            name, beside = at_length(label, events), at_length(SOJOURN, events)
            contestants.append(
                Contestant(name, work, keywords, place="memory", needs=needs, beside=beside)
            )
    short, middle, long = sizes.logs
    return Comparison(
        "memory",
        "append of the same event to a log in memory, by the length of the log",
        "Sojourn through `SessionManager` on `memory://`, which checks, encodes and keeps JSON "
        "text. ADK's `append_event` keeps a reference to the caller's event; before that it "
        "compares the event's id with that of every event in the log.",
        contestants,
        [
            Target(at_length(SOJOURN, short), at_length(ADK_MEMORY, short), 1),
            Target(at_length(SOJOURN, middle), at_length(ADK_MEMORY, middle), 5),
            Target(at_length(SOJOURN, long), at_length(SOJOURN, short), 1 / FLAT),
        ],
    )


def at_length(label: str, events: int) -> str:
    """Return the label of who appends to logs of this length."""
    return f"{label}, {events:,} events"


def chat(sizes: Sizes) -> Comparison:
    """One chat."""
    keywords = {"window": sizes.chat_window, "count": sizes.turns, "warm": sizes.warm}
    return Comparison(
        "chat",
        f"add two messages of 400 characters to a chat, then load its last {sizes.chat_window}",
        f"{ALIKE} {_FACES}",
        [
            *_raw("chat", keywords),
            _awaited("chat", keywords),
            Contestant(_PLAIN, "peers.ours.chat_events", keywords),
            Contestant(SQLITE_SESSION, "peers.openai_agents.chat", keywords, needs=OPENAI),
        ],
        [Target(SOJOURN, SQLITE_SESSION, 2)],
    )


_PLAIN = f"{SOJOURN}, append and events"
_ANEW = f"{SOJOURN}, nothing kept"
_FACES = (
    "Sojourn by `history(id)`, the counterpart of the peer: it checks messages and keeps tool "
    "calls and their results together. `append` and `events` are what it stands on. Messages are "
    "made anew on both sides, ids included."
)


def chats(sizes: Sizes) -> Comparison:
    """Many chats at once."""
    keywords = {
        "callers": sizes.chats,
        "window": sizes.chat_window,
        "each": sizes.turns_each,
        "warm": max(1, sizes.warm * 3 // 10),
    }
    return Comparison(
        "chats",
        f"the same in {sizes.chats} chats at once, on one file",
        f"{ALIKE} The peer has an object, a lock and threads of the default executor for each "
        "chat; the floor writes a round of the chats in one transaction.",
        [
            *_raw("chats", keywords),
            Contestant(_PLAIN, "peers.ours.chats_events", keywords),
            Contestant(SQLITE_SESSION, "peers.openai_agents.chats", keywords, needs=OPENAI),
        ],
        [Target(SOJOURN, SQLITE_SESSION, 5)],
    )


def checkpoints(sizes: Sizes) -> Comparison:
    """Checkpoints on disk."""
    keywords = {"count": sizes.checkpoints, "warm": sizes.warm}
    saver = "peers.langgraph_savers"
    return Comparison(
        "checkpoints",
        "save a checkpoint of 6 KB that comes from the last one, then load the latest",
        f"{ALIKE} Everybody encodes and decodes the same values as MessagePack within the clock. "
        "Sojourn by `checkpoints(id)`: it also sees to it that the parent is there, and hashes "
        "the body when it saves and when it loads.",
        [
            *_raw("checkpoints", keywords),
            _awaited("checkpoints", keywords),
            Contestant(SYNC_SAVER, f"{saver}.sync_sqlite", keywords, needs=LANGGRAPH),
            Contestant(ASYNC_SAVER, f"{saver}.async_sqlite", keywords, needs=LANGGRAPH),
        ],
        [Target(SOJOURN, SYNC_SAVER, 1), Target(SOJOURN, ASYNC_SAVER, 2)],
    )


def checkpoints_in_memory(sizes: Sizes) -> Comparison:
    """Checkpoints in memory."""
    keywords = {"count": sizes.checkpoints, "warm": sizes.warm}
    saver = "peers.langgraph_savers.memory"
    floor = "peers.floor.checkpoints_in_memory"
    return Comparison(
        "checkpoints-in-memory",
        "the same in memory",
        "Sojourn on `memory://`. No target: the savers are meant for tests.",
        [
            Contestant(SOJOURN, "peers.ours.checkpoints", {"path": "", **keywords}, place="memory"),
            Contestant("a list", floor, keywords, place="memory"),
            Contestant(MEMORY_SAVER, saver, keywords, place="memory", needs=LANGGRAPH),
        ],
        [],
    )


def _raw(work: str, keywords: dict[str, Any]) -> list[Contestant]:
    """Return the two who are always there."""
    return [
        Contestant(SOJOURN, f"peers.ours.{work}", keywords),
        Contestant(FLOOR, f"peers.floor.{work}", keywords),
    ]


def _awaited(work: str, keywords: dict[str, Any]) -> Contestant:
    """Return the floor in a thread that is awaited."""
    return Contestant(AWAITED_FLOOR, f"peers.awaited_floor.{work}", keywords)


def _adk(work: str, keywords: dict[str, Any], *, shipped: bool = False) -> list[Contestant]:
    """Return the services that keep a file: in WAL mode and, if asked for, as shipped."""
    found = []
    for journal in ("wal", "") if shipped else ("wal",):
        for label, kind in ((ADK_SQLITE, "sqlite"), (ADK_DATABASE, "database")):
            name = label if journal else label + SHIPPED
            more = {**keywords, "kind": kind, "journal": journal}
            found.append(Contestant(name, f"peers.adk.{work}", more, needs=ADK))
    return found
