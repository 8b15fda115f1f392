"""`check_store` and its report: every law gets an outcome, whatever the store does."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from sojourn.errors import Unavailable
from sojourn.store import Store as StoreProtocol
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SqliteStore
from sojourn.testing import LAWS, Report, check_store, law_names
from sojourn.testing.conformance import Outcome
from sojourn.testing.laws.expect import Broken, equal, exactly, refused, shown
from sojourn.testing.laws.law import law

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn.store import Create, Store

ONE_LAW = "a_commit_never_creates"
VERBS = [name for name in vars(StoreProtocol) if not name.startswith("_")]
"""What every store does."""


class Plain:
    """A store with the verbs that every store has and no ability beyond them."""

    name = "plain"

    def __init__(self) -> None:
        store = MemoryStore()
        for verb in VERBS:
            setattr(self, verb, getattr(store, verb))


def plain() -> Store:
    made: Any = Plain()
    store: Store = made
    return store


def run(factory: Any, **options: Any) -> Report:
    return asyncio.run(check_store(factory, laws=[ONE_LAW], **options))


# ----------------------------------------------------------------------------------- which laws run


def test_laws_about_abilities_a_store_lacks_are_not_applicable() -> None:
    report = asyncio.run(check_store(plain))
    assert report.ok
    assert report.broken == {}
    missing = {law.name: law.needs.__name__ for law in LAWS.values() if law.needs is not None}
    assert set(missing.values()) == {
        "Reopen",
        "SupportsBackup",
        "SupportsLease",
        "SupportsTransfer",
        "SupportsWatch",
    }
    assert report.not_applicable == {
        name: f"the store has no {ability}" for name, ability in missing.items()
    }
    assert len(report.kept) + len(missing) == len(LAWS)


def test_a_store_that_can_be_reopened_is_checked_for_it(tmp_path: Path) -> None:
    number = itertools.count()

    async def fresh() -> SqliteStore:
        return SqliteStore(tmp_path / f"{next(number)}.db")

    def again(closed: Store) -> SqliteStore:
        return SqliteStore(closed.name.removeprefix("sqlite:///"))

    durable = [name for name, law in LAWS.items() if law.noun in ("durability", "backup")]
    report = asyncio.run(check_store(fresh, reopen=again, laws=durable))
    assert report.kept == tuple(durable)


def test_laws_are_chosen_by_name() -> None:
    report = asyncio.run(check_store(MemoryStore, laws=["a_fork_is_a_copy", ONE_LAW]))
    assert report.kept == ("a_fork_is_a_copy", ONE_LAW)
    with pytest.raises(KeyError, match="no_such_law"):
        asyncio.run(check_store(MemoryStore, laws=["no_such_law"]))


def test_nothing_checked_is_not_ok() -> None:
    assert not asyncio.run(check_store(MemoryStore, laws=[])).ok
    only_lease = [name for name, law in LAWS.items() if law.noun == "lease"]
    assert not asyncio.run(check_store(plain, laws=only_lease)).ok


def test_laws_can_share_one_store() -> None:
    async def all_on_one() -> None:
        store = MemoryStore()
        await store.open()
        for each in LAWS.values():
            if each.noun != "closing" and each.missing(store, None) is None:
                await each(store)

    asyncio.run(all_on_one())


def test_every_law_says_what_it_is_about() -> None:
    assert law_names() == tuple(LAWS)
    for name, each in LAWS.items():
        assert each.name == name
        assert "_" in name, f"{name} is no sentence"
        assert each.text.endswith("."), f"the docstring of {name} is no sentence"


# ----------------------------------------------------------------------- what a store may do to it


class Unopenable(MemoryStore):
    """Can not be opened."""

    async def open(self) -> None:
        raise Unavailable(self.name, "no disk")


class Unclosable(MemoryStore):
    """Can not be closed."""

    async def close(self) -> None:
        raise Unavailable(self.name, "no way")


class Hanging(MemoryStore):
    """Never answers."""

    async def create(self, _create: Create, /) -> Any:
        await asyncio.Event().wait()


class Cancelling(MemoryStore):
    """Cancels whoever opens it."""

    async def open(self) -> None:
        raise asyncio.CancelledError


def unmakeable() -> MemoryStore:
    raise OSError("no folder")


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (Unopenable, "Unavailable: memory://: no disk"),
        (Unclosable, "closing it afterwards: Unavailable: memory://: no way"),
        (Cancelling, "it was cancelled from inside"),
        (unmakeable, "OSError: no folder"),
    ],
)
def test_whatever_a_store_raises_is_a_finding(factory: Any, reason: str) -> None:
    report = run(factory)
    assert report.broken == {ONE_LAW: reason}
    assert not report.ok


def test_a_law_has_a_time_limit() -> None:
    report = asyncio.run(check_store(Hanging, laws=["a_fork_is_a_copy"], seconds=0.05))
    assert report.broken == {"a_fork_is_a_copy": "it took longer than 0.05 s"}


def test_cancelling_the_check_cancels_the_law() -> None:
    async def cancelled() -> None:
        check = asyncio.ensure_future(check_store(Hanging, laws=["a_fork_is_a_copy"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancelled())


# --------------------------------------------------------------------------------------- the report


def test_the_report_is_a_readable_table() -> None:
    report = Report(
        "my://store",
        [
            Outcome("first_law", "create", "kept"),
            Outcome("second_law", "create", "broken", "expected 1, got 2\nand more"),
            Outcome("third_law", "lease", "not applicable", "the store has no SupportsLease"),
        ],
    )
    assert str(report) == (
        "my://store: 3 laws, 1 kept, 1 broken, 1 not applicable\n"
        "\n"
        "create\n"
        "  kept            first_law\n"
        "  broken          second_law\n"
        "                    expected 1, got 2\n"
        "                    and more\n"
        "\n"
        "lease\n"
        "  not applicable  third_law\n"
        "                    the store has no SupportsLease"
    )
    summary = "<Report of my://store: 3 laws, 1 kept, 1 broken, 1 not applicable>"
    assert repr(report) == summary
    assert report.kept == ("first_law",)
    assert report.broken == {"second_law": "expected 1, got 2\nand more"}
    assert not report.ok


def test_the_report_names_the_store() -> None:
    assert run(MemoryStore).store == "memory://"
    assert run(unmakeable).store == "no store"


# ---------------------------------------------------------------------------- what laws are made of


def test_assertions_say_what_was_expected_and_what_was_found() -> None:
    with pytest.raises(Broken, match=r"^the count: expected 1, got 2$"):
        equal(2, 1, "the count")
    with pytest.raises(Broken, match=r"^the value: expected exactly 1, got 1\.0$"):
        exactly(1.0, 1, "the value")


def test_long_values_are_cut_in_messages() -> None:
    assert len(shown("x" * 10_000)) < 400


@pytest.mark.parametrize("result", ["fine", OSError("other")])
def test_a_refusal_that_does_not_come_is_told(result: object) -> None:
    async def call() -> object:
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(Broken, match=r"^the call: expected KeyError, "):
        asyncio.run(refused(call(), KeyError, "the call"))


def test_a_law_needs_a_docstring_and_a_name_of_its_own() -> None:
    async def bare(_corner: Any) -> None: ...

    with pytest.raises(ValueError, match="no docstring"):
        law()(bare)
    bare.__doc__ = "Something."
    bare.__name__ = ONE_LAW
    with pytest.raises(ValueError, match="there is a law called"):
        law()(bare)
