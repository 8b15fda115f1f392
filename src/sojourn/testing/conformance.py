"""Run every law against a store and report, law by law, what it keeps and what it breaks."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Literal, NamedTuple

from sojourn.testing.laws import LAWS
from sojourn.testing.laws.expect import Broken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sojourn.store import Store
    from sojourn.testing.laws.law import Law

    Factory = Callable[[], Store | Awaitable[Store]]
    """Returns a fresh store that is not opened yet."""
    Again = Callable[[Store], Store | Awaitable[Store]]
    """Returns a new store over the data of one that was closed."""

Verdict = Literal["kept", "broken", "not applicable"]
"""What came of one law; one about an ability that the store does not have is not applicable."""

SECONDS = 60.0
"""Time for one law: the slowest takes a few seconds on a slow disk."""

LAST_SECONDS = 5.0
"""Time for a law that is stopped to wind up."""


class Outcome(NamedTuple):
    """What came of one law. `reason` says how it was broken, or which ability is missing."""

    law: str
    noun: str
    verdict: Verdict
    reason: str = ""


class Report:
    """What came of every law; `str(report)` is a table of it."""

    def __init__(self, store: str, outcomes: Iterable[Outcome]) -> None:
        """Gather the outcomes of the laws for the store of this name."""
        self.store = store
        """The name of the store."""
        self.outcomes = tuple(outcomes)
        """One for each law, in order."""

    @property
    def ok(self) -> bool:
        """Whether no law is broken and at least one is kept."""
        return bool(self.kept) and not self.broken

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the laws that the store keeps."""
        return tuple(outcome.law for outcome in self.outcomes if outcome.verdict == "kept")

    @property
    def broken(self) -> dict[str, str]:
        """The laws that the store breaks, and how."""
        return self._reasons("broken")

    @property
    def not_applicable(self) -> dict[str, str]:
        """The laws about abilities that the store does not have, and which ability that is."""
        return self._reasons("not applicable")

    def _reasons(self, verdict: Verdict) -> dict[str, str]:
        return {o.law: o.reason for o in self.outcomes if o.verdict == verdict}

    def __repr__(self) -> str:
        return f"<Report of {self._summary()}>"

    def __str__(self) -> str:
        """Return a table: the count, each law under what it is about, and how it was broken."""
        lines = [self._summary()]
        noun = ""
        for outcome in self.outcomes:
            if outcome.noun != noun:
                noun = outcome.noun
                lines += ["", noun]
            lines.append(f"  {outcome.verdict:<14}  {outcome.law}")
            lines += [f"  {'':<14}    {line}" for line in outcome.reason.splitlines()]
        return "\n".join(lines)

    def _summary(self) -> str:
        counts = (
            f"{len(self.kept)} kept",
            f"{len(self.broken)} broken",
            f"{len(self.not_applicable)} not applicable",
        )
        return f"{self.store}: {len(self.outcomes)} laws, {', '.join(counts)}"


async def check_store(
    factory: Factory,
    *,
    reopen: Again | None = None,
    laws: Iterable[str] | None = None,
    seconds: float = SECONDS,
) -> Report:
    """Check a store against every law and return the report; a broken law stops nothing.

    `factory` is called without arguments for each law and returns a fresh store, not yet opened.
    `reopen`, if what the store keeps outlives it, is called with a closed store and returns a new
    one over the same data. Both may be coroutine functions. `laws` chooses some by name (unknown:
    `KeyError`), `seconds` is the time for each.
    """
    chosen = LAWS.values() if laws is None else [LAWS[name] for name in laws]
    outcomes: list[Outcome] = []
    name = ""
    for law in chosen:
        trial = Trial(law, factory, reopen, seconds)
        outcomes.append(await trial.run())
        name = name or trial.store_name
    return Report(name or "no store", outcomes)


class Trial:
    """One law and one fresh store, from opening to closing."""

    def __init__(
        self, law: Law, factory: Factory, reopen: Again | None = None, seconds: float = SECONDS
    ) -> None:
        """See `check_store`."""
        self.store_name = ""
        self._law = law
        self._factory = factory
        self._again = reopen
        self._seconds = seconds
        self._store: Store | None = None

    async def run(self) -> Outcome:
        """Return what comes of the law; nothing is raised but what cancels the caller."""
        verdict, reason = await self._bounded(self._try())
        return Outcome(self._law.name, self._law.noun, verdict, reason)

    async def _try(self) -> tuple[Verdict, str]:
        store = self._store = await settled(self._factory())
        self.store_name = store.name
        again = self._reopen if self._again is not None else None
        missing = self._law.missing(store, again)
        if missing is not None:
            return "not applicable", f"the store has no {missing}"
        reason = ""
        try:
            await store.open()
            await self._law(store, again)
        except Exception as error:  # noqa: BLE001 - whatever a store raises is the finding
            reason = told(error)
        try:
            await self._store.close()
        except Exception as error:  # noqa: BLE001 - whatever a store raises is the finding
            reason = reason or f"closing it afterwards: {told(error)}"
        return ("broken" if reason else "kept"), reason

    async def _reopen(self) -> Store:
        assert self._store is not None, "laws run on an open store"
        assert self._again is not None, "only a store that can be reopened is"
        await self._store.close()
        self._store = await settled(self._again(self._store))
        await self._store.open()
        return self._store

    async def _bounded(self, work: Awaitable[tuple[Verdict, str]]) -> tuple[Verdict, str]:
        """Return what comes of `work`; it may also raise, hang or cancel itself."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait((task,), timeout=self._seconds)
            if not done:
                task.cancel()
                await asyncio.wait((task,), timeout=LAST_SECONDS)
                return "broken", f"it took longer than {self._seconds:g} s"
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.cancelled():
            return "broken", "it was cancelled from inside"
        error = task.exception()
        return task.result() if error is None else ("broken", told(error))


def told(error: BaseException) -> str:
    """Return an error in words: of a broken law just those, of others the type as well."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told(part) for part in error.exceptions)
    if isinstance(error, Broken):
        return str(error)
    return f"{type(error).__name__}: {error}"


async def settled(made: Store | Awaitable[Store]) -> Store:
    """Return what a factory made, awaited if it has to be."""
    if inspect.isawaitable(made):
        return await made
    return made
