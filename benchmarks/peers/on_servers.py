"""The comparisons on servers: PostgreSQL and Redis, each started for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.comparisons import (
    ADK,
    ADK_DATABASE,
    FLAT,
    FLOOR,
    SOJOURN,
    Comparison,
    Contestant,
    Target,
    at_length,
)

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Sizes

LANGGRAPH_POSTGRES = "langgraph.checkpoint.postgres"
ADK_COMMUNITY = "google.adk_community"

BARE = "raw floor, bare loop"
REPLAYED = "Sojourn's own calls, bare loop"
POSTGRES_SAVER = "langgraph PostgresSaver"
ASYNC_POSTGRES_SAVER = "langgraph AsyncPostgresSaver"
ADK_REDIS = "ADK RedisSessionService"
SCRIPT = "the same script, redis-py"

SERVED = (
    "One server for all, started for this run, through TCP on the loopback, an empty database for "
    "each contestant, synchronous_commit on."
)
IN_REDIS = (
    "One server for all, started for this run, through TCP on the loopback, emptied for each "
    "contestant; it keeps all in memory and syncs nothing, as it does unless it is told to."
)


AGAIN = (
    "Its own calls in a bare loop are those that it made for this work, made again with the same "
    "arguments and nothing around them: what its rows cost alone."
)


def postgres_append(sizes: Sizes) -> Comparison:
    """One caller, one session, on a server."""
    keywords = {"count": sizes.appends, "warm": sizes.warm}
    return Comparison(
        "postgres-append",
        "append of a 1 KB event with a change of session and user state, one caller, on PostgreSQL",
        f"{SERVED} The floor is one prepared statement for each append: the session's row compared "
        "and set, the user's row, the event. Sojourn also keeps the order of use for lists, and "
        f"what came of the call, for one that is made again. {AGAIN}",
        [*_on_postgres("append", keywords), _replayed("append", keywords)],
        [Target(SOJOURN, FLOOR, 1 / 1.5), Target(SOJOURN, ADK_DATABASE, 12)],
    )


def postgres_callers(sizes: Sizes) -> Comparison:
    """Many callers at once, on a server."""
    keywords = {
        "callers": sizes.callers,
        "each": sizes.each,
        "warm": max(1, sizes.warm * 4 // sizes.callers),
    }
    bare = Contestant(BARE, "peers.postgres_floor.bare", keywords, place="postgres")
    return Comparison(
        "postgres-callers",
        f"the same by {sizes.callers} callers at once, each on a session of its own",
        f"{SERVED} The floor has as many callers too: what came while one call was under way is "
        "the next one, of arrays. In a bare loop, a round of the callers is one such call. "
        f"{AGAIN}",
        [*_on_postgres("callers", keywords), bare, _replayed("callers", keywords)],
        [Target(SOJOURN, FLOOR, 1 / 1.6), Target(SOJOURN, ADK_DATABASE, 30)],
    )


def postgres_tail(sizes: Sizes) -> Comparison:
    """The end of a long log, on a server."""
    keywords = {
        "events": sizes.log,
        "window": sizes.window,
        "count": sizes.reads,
        "warm": sizes.warm,
    }
    return Comparison(
        "postgres-tail",
        f"load a session with the last {sizes.window} of its {sizes.log:,} events, on PostgreSQL",
        f"{SERVED} The floor reads the session's state, the user's and the events' bodies in one "
        "prepared statement, and decodes them.",
        _on_postgres("tail", keywords),
        [Target(SOJOURN, FLOOR, 1 / 1.6)],
    )


def postgres_checkpoints(sizes: Sizes) -> Comparison:
    """Checkpoints on a server."""
    keywords = {"count": sizes.checkpoints, "warm": sizes.warm}
    saver = "peers.langgraph_savers"
    needs = LANGGRAPH_POSTGRES
    return Comparison(
        "postgres-checkpoints",
        "save a checkpoint of 6 KB that comes from the last one, then load the latest, on "
        "PostgreSQL",
        f"{SERVED} Everybody encodes and decodes the same values as MessagePack within the clock; "
        "the savers keep each channel by its version, and this one changes all of them.",
        [
            Contestant(SOJOURN, "peers.ours.checkpoints", keywords, place="postgres"),
            Contestant(FLOOR, "peers.postgres_floor.checkpoints", keywords, place="postgres"),
            Contestant(
                POSTGRES_SAVER, f"{saver}.sync_postgres", keywords, place="postgres", needs=needs
            ),
            Contestant(
                ASYNC_POSTGRES_SAVER,
                f"{saver}.async_postgres",
                keywords,
                place="postgres",
                needs=needs,
            ),
        ],
        [Target(SOJOURN, POSTGRES_SAVER, 1), Target(SOJOURN, ASYNC_POSTGRES_SAVER, 1)],
    )


def _replayed(work: str, keywords: dict[str, Any]) -> Contestant:
    """Return the calls of Sojourn without Sojourn."""
    return Contestant(REPLAYED, f"peers.replayed.{work}", keywords, place="postgres")


def _on_postgres(work: str, keywords: dict[str, Any]) -> list[Contestant]:
    """Return who does something with sessions on a server: ours, the floor, ADK by asyncpg."""
    more = {**keywords, "kind": "database", "journal": ""}
    return [
        Contestant(SOJOURN, f"peers.ours.{work}", keywords, place="postgres"),
        Contestant(FLOOR, f"peers.postgres_floor.{work}", keywords, place="postgres"),
        Contestant(ADK_DATABASE, f"peers.adk.{work}", more, place="postgres", needs=ADK),
    ]


def redis_callers(sizes: Sizes) -> Comparison:
    """Many callers at once, on a Redis server."""
    keywords = {
        "callers": sizes.callers,
        "each": sizes.each,
        "warm": max(1, sizes.warm * 4 // sizes.callers),
    }
    script = Contestant(SCRIPT, "peers.redis_floor.script", keywords, place="redis")
    return Comparison(
        "redis-callers",
        "append of a 1 KB event with a change of session and user state, on Redis, by "
        f"{sizes.callers} callers at once, each on a session of its own",
        f"{IN_REDIS} The floor sends what came while it was sending as one pipeline of a script "
        "that compares a number and sets three keys. The same script is Sojourn's own, with all "
        "that it keeps for lists and for calls that are made again, by `evalsha` of redis-py, a "
        "connection for each caller. ADK's service writes the session anew with all its events.",
        [*_on_redis("callers", keywords), script],
        [Target(SOJOURN, SCRIPT, 3), Target(SOJOURN, ADK_REDIS, 6)],
    )


def redis_log(sizes: Sizes) -> Comparison:
    """Appends to logs of several lengths, on a Redis server."""
    contestants: list[Contestant] = []
    for label, work, needs in (
        (SOJOURN, "peers.ours.log", None),
        (ADK_REDIS, "peers.adk_redis.log", ADK_COMMUNITY),
    ):
        for events in sizes.logs:
            # A peer's cost grows with the log: few appends to a long one.
            count = sizes.in_memory if needs is None else max(3, 10 * sizes.in_memory // events)
            each = max(1, min(count // 2, events // 10))
            keywords = {"events": events, "sessions": count // each, "each": each}
            name, beside = at_length(label, events), at_length(SOJOURN, events)
            contestants.append(Contestant(name, work, keywords, "redis", needs, beside))
    short, _, long = sizes.logs
    return Comparison(
        "redis-log",
        "append of the same event on Redis, by the length of the log",
        f"{IN_REDIS} One caller.",
        contestants,
        [Target(at_length(SOJOURN, long), at_length(SOJOURN, short), 1 / FLAT)],
    )


def redis_tail(sizes: Sizes) -> Comparison:
    """The end of a long log, on a Redis server."""
    keywords = {
        "events": sizes.log,
        "window": sizes.window,
        "count": sizes.reads,
        "warm": sizes.warm,
    }
    return Comparison(
        "redis-tail",
        f"load a session with the last {sizes.window} of its {sizes.log:,} events, on Redis",
        f"{IN_REDIS} The floor asks for the session's state, the user's and the events in one "
        "pipeline, and decodes them. ADK's service reads all events and drops all but the last.",
        _on_redis("tail", keywords),
        [Target(SOJOURN, FLOOR, 1 / 1.6)],
    )


def _on_redis(work: str, keywords: dict[str, Any]) -> list[Contestant]:
    """Return who does something with sessions on a Redis server: ours, the floor, ADK's service."""
    peer, needs = f"peers.adk_redis.{work}", ADK_COMMUNITY
    return [
        Contestant(SOJOURN, f"peers.ours.{work}", keywords, place="redis"),
        Contestant(FLOOR, f"peers.redis_floor.{work}", keywords, place="redis"),
        Contestant(ADK_REDIS, peer, keywords, place="redis", needs=needs),
    ]
