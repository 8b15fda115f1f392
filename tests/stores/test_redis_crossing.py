"""What a write takes in other routes of a cluster, whoever dies in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.servers.redis import Cluster, values_in

from sojourn import RoleTaken, open_store
from sojourn.errors import AlreadyExists
from sojourn.store import Create, Get
from sojourn.stores.planning import Known, plan
from sojourn.stores.redis import RedisStore, routes
from sojourn.stores.redis.batch import write
from sojourn.stores.redis.client import Call
from sojourn.stores.weighing import Weighing
from sojourn.testing.laws.corner import Corner, decoded, draft, instant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sojourn.stores.redis.jobs import Job

pytestmark = pytest.mark.xdist_group("redis")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster(replicas=0)
    try:
        yield made
    finally:
        made.stop()


class Place:
    """Two processes' stores on one cluster, and the corner of laws that each is."""

    def __init__(self, url: str) -> None:
        self.ours, self.theirs = self._store(url), self._store(url)
        self.our, self.their = Corner(self.ours, "app"), Corner(self.theirs, "app")
        self.their._given = 1_000_000  # else both would give out the same operation ids

    @staticmethod
    def _store(url: str) -> RedisStore:
        store = open_store(url)
        assert isinstance(store, RedisStore)
        return store

    async def job(self, operation: Any) -> Job:
        """Return what our store would send for an operation, without sending it."""
        tools = self.ours._tools
        known = Known()
        decided = plan([operation], known, Weighing(), durability="memory")
        while decided.reads:
            await tools.gatherer.fetch(decided.reads, known, tools.client.deadline())
            decided = plan([operation], known, Weighing(), durability="memory")
        (job,) = tools.foreman.jobs(decided.units, known)
        return job

    async def send(self, job: Job) -> Any:
        """Send only what belongs to the session's own route; 0 is for written."""
        client = self.ours._tools.client
        (reply,) = await client.run([job.call], client.deadline(), lane="write")
        return reply

    async def forget_what_was_delivered(self, job: Job) -> None:
        """Leave an outbox as it is when who ran its errands died before saying so."""
        client = self.ours._tools.client
        for box in job.boxes:
            _, sent = self.ours._tools.foreman.keys.outbox(box)
            calls = [Call(box.route, ("HDEL", sent, "delivered"))]
            assert await client.run(calls, client.deadline(), lane="write") == [1]

    async def shared_by(self, app: str) -> list[tuple[Call, Any]]:
        """Return what the route of an app's tier holds, as its replica has it by now."""
        keys, route = self.ours._tools.foreman.keys, routes.of_app(app)
        calls = [
            Call(route, ("DUMP", key)) for key in (keys.tier(route, app, None), keys.marks(route))
        ]
        client = self.ours._tools.client
        return list(zip(calls, await client.ask(calls, client.deadline()), strict=True))

    async def go_back_to(self, held: list[tuple[Call, Any]]) -> None:
        """Have that route hold what it held then, as if its master had been lost."""
        client = self.ours._tools.client
        calls = [
            Call(call.route, ("RESTORE", call.command[1], 0, value, "REPLACE"))
            for call, value in held
        ]
        assert await client.run(calls, client.deadline(), lane="write") == [b"OK", b"OK"]

    async def lose_the_note_of(self, id: str) -> None:
        """Have its home not know where a session is, as if its master had been lost."""
        home, client = routes.of_id("app", id), self.ours._tools.client
        note = self.ours._tools.foreman.keys.note(home, "app", id)
        assert await client.run(
            [Call(home, ("UNLINK", note))], client.deadline(), lane="write"
        ) == [1]

    async def reserve(self, job: Job) -> bool:
        tools = self.ours._tools
        (had,) = await tools.crossing.reserve([job], tools.client.deadline())
        return had


async def opened(place: Place) -> AsyncIterator[Place]:
    await place.ours.open()
    await place.theirs.open()
    yield place
    await place.ours.close()
    await place.theirs.close()


def create(corner: Corner, id: str = "one", **header: Any) -> Create:
    return Create(header=corner.header(id, **header), op=corner.op())


@pytest.fixture
def url(cluster: Cluster, tmp_path: Path) -> str:
    return f"{cluster.url}?timeout=20&prefix={tmp_path.name}"


def users_away_from(id: str, count: int) -> list[str]:
    """Return users whose sessions are not at the home of an id, each in another route."""
    seen = {routes.of_id("app", id)}
    found: list[str] = []
    for number in range(10_000):
        route = routes.of_user("app", f"u{number}")
        if route not in seen:
            seen.add(route)
            found.append(f"u{number}")
        if len(found) == count:
            break
    return found


async def test_an_id_whose_creator_died_is_free_for_everybody(url: str) -> None:
    """Its note is taken over, whoever comes; and the dead one's create can not come late."""
    dead, heir = users_away_from("one", 2)
    for user in (heir, dead, None):
        async for place in opened(Place(f"{url}-{user}")):
            job = await place.job(create(place.our, user=dead))
            assert await place.reserve(job)
            assert await place.their.get("one") is None
            await place.their.create("one", user=user, state={"by": "them"})
            assert await place.send(job) != 0, "the session is there already"
            assert decoded((await place.their.read("one")).state) == {"by": "them"}
            assert await place.our.ids() == ["one"]
            assert await place.their.delete("one")
            assert await place.send(job) != 0, "the late create of a session that is gone"
            assert await place.our.get("one") is None
            assert await place.our.ids() == []


async def test_an_id_that_was_lost_to_somebody_who_is_gone_can_be_had(url: str) -> None:
    """A create that others made impossible goes on as another one once the id is free again."""
    (user,) = users_away_from("one", 1)
    async for place in opened(Place(url)):
        ours = create(place.our, user=user)
        job = await place.job(ours)
        assert await place.reserve(job)
        await place.their.create("one", user=user)
        assert await place.their.delete("one")
        made = await place.ours.create(ours)
        assert made.header.epoch != ours.header.epoch
        assert (await place.their.read("one")).header.epoch == made.header.epoch
        again = await place.ours.create(ours)
        assert (again.repeated, again.header.epoch) == (True, made.header.epoch)
        assert await place.send(job) != 0, "the late one is still impossible"


async def test_an_id_that_is_being_created_is_created_once(url: str) -> None:
    """Two users want the same id at once: one gets it, the other is told; no key is left over."""
    one, other = users_away_from("one", 2)
    async for place in opened(Place(url)):
        for round_ in range(20):
            id = f"one-{round_}"
            outcomes = await asyncio.gather(
                place.our.create(id, user=one),
                place.their.create(id, user=other),
                place.our.create(id),
                return_exceptions=True,
            )
            refused = [each for each in outcomes if isinstance(each, AlreadyExists)]
            assert len(refused) == 2, outcomes
            assert await place.our.delete(id)
            assert await place.their.ids() == []


async def test_a_role_whose_taker_died_is_free(url: str) -> None:
    async for place in opened(Place(url)):
        fields: dict[str, Any] = {"labels": {"role": "w"}, "exclusive": ("role",)}
        job = await place.job(create(place.our, "dead", **fields))
        assert await place.reserve(job)
        await place.their.create("heir", **fields)
        assert await place.send(job) != 0, "its claim was taken over"
        assert await place.our.ids() == ["heir"]
        with pytest.raises(RoleTaken) as caught:
            await place.our.create("rival", **fields)
        assert caught.value.holder == "heir"
        await place.their.delete("heir")
        await place.our.create("rival", **fields)


async def test_what_was_refused_leaves_nothing_behind(url: str, cluster: Cluster) -> None:
    """A create that gets its id and not its role gives the id back."""
    async for place in opened(Place(url)):
        fields: dict[str, Any] = {"labels": {"role": "w"}, "exclusive": ("role",)}
        await place.our.create("holder", **fields)
        (user,) = users_away_from("needle", 1)
        with pytest.raises(RoleTaken):
            await place.our.create("needle", user=user, **fields)
        assert not [text for text in values_in(cluster.servers) if b"needle" in text]


async def test_errands_of_the_dead_are_run_by_the_next_sweep_once(url: str) -> None:
    """Tiers, roles and notes elsewhere: as if the process had not died; others see it at once."""
    (user,) = users_away_from("one", 1)
    async for place in opened(Place(url)):
        await place.our.create("one", labels={"role": "w"}, exclusive=("role",))
        await place.our.commit("one", user=user)
        change = place.our.change("one", app_state={"n": 1}, user_state={"n": 2})
        job = await place.job(change)
        assert await place.send(job) == 0
        record = await place.their.read("one")
        assert decoded(record.app_state) == {"n": 1}, "from the outbox"
        assert decoded(record.user_state) == {"n": 2}, "from the outbox"
        await place.their.due(now=1)
        assert await place.our.app_state() == {"n": 1}
        assert await place.our.user_state(user) == {"n": 2}
        await place.our.commit(None, app_state={"n": 3})
        await place.forget_what_was_delivered(job)
        await place.their.due(now=1)
        assert await place.our.app_state() == {"n": 3}, "an errand is not done again"
        record = await place.their.read("one")
        assert decoded(record.app_state) == {"n": 3}


async def test_errands_are_done_once_however_many_run_them(url: str) -> None:
    """Several sweeps at once, with commits in between: every count is right in the end."""
    async for place in opened(Place(url)):
        users = [f"u{number}" for number in range(6)]
        for user in users:
            await place.our.create(user)
            await place.our.commit(user, user=user)

        async def work(corner: Corner, user: str) -> None:
            for number in range(20):
                await corner.commit(user, user_state={"n": number}, app_state={user: number})
                if number % 5 == 0:
                    await corner.due(now=1)

        await asyncio.gather(*(work(c, u) for u in users for c in (place.our, place.their)))
        await place.our.due(now=1)
        assert await place.our.app_state() == dict.fromkeys(users, 19)
        for user in users:
            assert await place.our.user_state(user) == {"n": 19}


async def test_errands_go_on_where_a_master_was_lost(url: str) -> None:
    """Its replica was behind: what it lacks is done again, and nobody waits for what is gone."""
    async for place in opened(Place(url)):
        await place.our.create("one")
        await place.our.commit("one", app_state={"k0": 0})
        behind = await place.shared_by("app")
        for number in (1, 2):
            await place.our.commit("one", app_state={f"k{number}": number})
        await place.go_back_to(behind)
        assert await place.our.app_state() == {"k0": 0}
        assert decoded((await place.their.read("one")).app_state) == {"k0": 0, "k1": 1, "k2": 2}
        await place.their.commit("one", app_state={"k3": 3})
        assert await place.our.app_state() == {"k0": 0, "k1": 1, "k2": 2, "k3": 3}
        await place.go_back_to(behind)
        await place.our.due(now=1)
        await place.our.commit("one", app_state={"k3": 4})
        assert await place.our.app_state() == {"k0": 0, "k1": 1, "k2": 2, "k3": 4}


async def test_a_note_that_a_lost_master_had_is_written_again(url: str) -> None:
    """A check tells of it; who wants to make the session finds that it is there."""
    (user,) = users_away_from("one", 1)
    async for place in opened(Place(url)):
        await place.our.create("one", user=user, state={"by": "us"})
        await place.lose_the_note_of("one")
        assert await place.their.get("one") is None
        problems = await place.theirs.check()
        assert len(problems) == 1
        assert "is not noted at its home" in problems[0]
        with pytest.raises(AlreadyExists):
            await place.their.create("one", user=user)
        assert decoded((await place.their.read("one")).state) == {"by": "us"}
        assert await place.theirs.check() == []


async def test_a_child_is_where_its_parent_is(url: str) -> None:
    """Whoever its user is; so that both are removed in one step, and both users see theirs."""
    async for place in opened(Place(url)):
        mine, yours = users_away_from("child", 2)
        await place.our.create("parent", user=mine)
        await place.our.create("child", parent="parent", user=yours, user_state={"n": 1})
        assert await place.their.ids(user=yours) == ["child"]
        assert decoded((await place.their.read("child")).user_state) == {"n": 1}
        assert await place.their.ids(parent="parent") == ["child"]
        assert await place.our.delete("parent")
        assert await place.their.get("child") is None
        assert await place.their.ids(user=yours) == []


async def test_a_session_that_came_to_live_elsewhere_is_found_there(url: str) -> None:
    """Who remembers where an id was looks again when it is not there."""
    one, other = users_away_from("one", 2)
    async for place in opened(Place(url)):
        await place.our.create("one", user=one)
        assert await place.their.get("one") is not None
        await place.our.delete("one")
        await place.our.create("one", user=other, events=(draft("e"),))
        record = await place.theirs.get(Get(app="app", id="one", now=instant(0)))
        assert record is not None
        assert record.header.user == other
        assert await place.their.seqs("one") == [1]
        await place.their.commit("one", state={"n": 1})
        assert decoded((await place.our.read("one")).state) == {"n": 1}


async def test_a_commit_that_was_sent_twice_is_applied_once(url: str) -> None:
    async for place in opened(Place(url)):
        await place.our.create("one")
        change = place.our.change("one", events=(draft("e"),), state={"n": 1})
        job = await place.job(change)
        assert await place.send(job) == 0
        assert await place.send(job) != 0
        again = await place.ours.commit(change)
        assert (again.repeated, again.seqs) == (True, (1,))
        (ok,) = await write(place.ours._tools, [job], place.ours._client.deadline(), 0)
        assert ok is False
