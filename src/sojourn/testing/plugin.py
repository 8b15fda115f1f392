"""The pytest face of the laws: one test for each law, for a store that somebody wrote.

A whole test file of a third party:

    class TestMyStore(StoreLaws):
        def make_store(self, folder):
            return MyStore(folder / "data")

        def reopen_store(self, folder):  # only if what it keeps outlives it
            return MyStore(folder / "data")

Every pytest run of whoever installed Sojourn loads this module, so it imports nothing but pytest
until a law runs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from sojourn.store import Store
    from sojourn.testing.laws.law import Law

MARKER = "behaviour(number): the row of the list of behaviours that this test covers"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of the laws known, so that `--strict-markers` accepts it."""
    known = (line.partition("(")[0] for line in config.getini("markers"))
    if "behaviour" not in known:
        config.addinivalue_line("markers", MARKER)


class StoreLaws:
    """Every law as a test of its own. Override `make_store`; pytest needs no plugin for asyncio.

    Laws about abilities named in `without`, and laws about opening again for a store that does not
    override `reopen_store`, are not collected. `seconds` is the time for one law.
    """

    without: ClassVar[tuple[type[Any], ...]] = ()
    """The abilities that the store does not have: `Supports...` protocols."""
    seconds: ClassVar[float] = 60.0
    """Time for one law."""

    def make_store(self, folder: Path) -> Store | Awaitable[Store]:
        """Return a fresh store, not opened yet; `folder` is empty and this test's own."""
        raise NotImplementedError(f"{type(self).__name__} does not override make_store")

    def reopen_store(self, folder: Path) -> Store | Awaitable[Store]:
        """Return a new store over the data of the one that was made in this folder and closed."""
        raise NotImplementedError(f"{type(self).__name__} does not override reopen_store")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each law that is about what the store can do."""
        if "law" not in metafunc.fixturenames:
            return
        from sojourn.testing.laws import LAWS  # noqa: PLC0415 - nothing before it is needed

        chosen = [law for law in LAWS.values() if self._is_about_it(law)]
        metafunc.parametrize("law", [_parameter(law) for law in chosen])

    def _is_about_it(self, law: Law) -> bool:
        from sojourn.testing.laws.law import Reopen  # noqa: PLC0415 - nothing before it is needed

        return law.needs not in self.without and (law.needs is not Reopen or self._reopens())

    def _reopens(self) -> bool:
        return type(self).reopen_store is not StoreLaws.reopen_store

    def test_law(self, law: Law, tmp_path: Path) -> None:
        """Check one law on a fresh store."""
        from sojourn.testing.conformance import Trial  # noqa: PLC0415 - nothing before it is needed

        reopen = (lambda _closed: self.reopen_store(tmp_path)) if self._reopens() else None
        trial = Trial(law, lambda: self.make_store(tmp_path), reopen, self.seconds)
        outcome = asyncio.run(trial.run())
        hint = "; name it in `without` if that is meant" * (outcome.verdict == "not applicable")
        if outcome.verdict != "kept":
            pytest.fail(f"{law.text}\n\n{outcome.reason}{hint}", pytrace=False)

    def test_what_the_store_is_without_is_so(self, tmp_path: Path) -> None:
        """An ability that is named in `without` and there all the same would go unchecked."""
        from sojourn.testing.conformance import settled  # noqa: PLC0415 - nothing before is needed

        async def made() -> Store:
            return await settled(self.make_store(tmp_path))

        store = asyncio.run(made())
        there = [ability.__name__ for ability in self.without if isinstance(store, ability)]
        assert not there, f"{store.name} has {', '.join(there)}: strike it off `without`"


def _parameter(law: Law) -> Any:
    marks = [pytest.mark.behaviour(number) for number in law.behaviours]
    return pytest.param(law, id=law.name, marks=marks)
