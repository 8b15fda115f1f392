"""The figures: what is measured, against what, and the target of each."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.files import IDLE, START, Contents, cached
from benchmarks.rounds import Side, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from benchmarks.sample import Sample


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 7
    appends: int = 3_000
    warm: int = 200
    callers: int = 100
    long_log: int = 10_000
    short_log: int = 100
    reads: int = 3_000
    many: int = 1_000_000
    few: int = 10_000
    of_a_user: int = 50
    swept: int = 20_000
    in_memory: int = 100_000
    imports: int = 15


QUICK = Sizes(
    rounds=1,
    appends=40,
    warm=20,
    callers=20,
    long_log=60,
    short_log=20,
    reads=10,
    many=2_000,
    few=200,
    swept=100,
    in_memory=200,
    imports=1,
)
"""So little that it shows only whether everything runs."""


@dataclass
class Figure:
    """One figure: the number that counts, its target, and what it was made from."""

    name: str
    what: str
    unit: str
    target: float
    higher_is_better: bool = False
    value: float = 0.0
    note: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.higher_is_better else self.value <= self.target

    def facts(self) -> dict[str, Any]:
        """Return everything about it, for a file."""
        return {**asdict(self), "met": self.met}


class Bench:
    """Measures the figures, one after the other, in files of a folder."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        """`folder` is made; files that take long to build stay in it."""
        self._folder = folder
        self._sizes = sizes
        folder.mkdir(parents=True, exist_ok=True)

    def figures(self) -> dict[str, Callable[[], Figure]]:
        """Return how each figure is measured, by name."""
        return {
            "append": lambda: self._append("append", "session+user"),
            "append-user-app": lambda: self._append("append-user-app", "user+app"),
            "callers": lambda: self._callers("callers", "session+user"),
            "callers-user-app": lambda: self._callers("callers-user-app", "user+app"),
            "callers-bare": lambda: self._callers("callers-bare", "session+user", crowd=False),
            "tail": self._tail,
            "page": self._page,
            "sweep": lambda: self._sweep("sweep", 0),
            "sweep-events": lambda: self._sweep("sweep-events", 5),
            "import": self._import,
            "memory": self._memory,
        }

    # --- against the floor -------------------------------------------------------------------

    def _append(self, name: str, tiers: str) -> Figure:
        sizes = self._sizes
        figure = Figure(
            name,
            f"append of a 1 KB event with a delta over {tiers}, one caller, durable",
            "x the floor, one transaction each",
            2.5,
        )
        keywords = {"count": sizes.appends, "warm": sizes.warm, "tiers": tiers}
        return self._beside_the_floor(figure, "append_one", Contents(1, 1), keywords)

    def _callers(self, name: str, tiers: str, *, crowd: bool = True) -> Figure:
        """`crowd`: the floor has as many callers too, and one thread that commits in groups."""
        sizes = self._sizes
        floor = "as many callers, groups" if crowd else f"{sizes.callers} in a transaction"
        figure = Figure(
            name,
            f"the same from {sizes.callers} callers at once ({tiers})",
            f"x the floor, {floor}",
            1.6 if crowd else math.inf,
        )
        keywords = {
            "callers": sizes.callers,
            "count": sizes.appends * 4 // sizes.callers * sizes.callers,
            "warm": sizes.warm * 5 // sizes.callers * sizes.callers,
            "tiers": tiers,
        }
        contents = Contents(sizes.callers, sizes.callers)
        work = "append_crowd" if crowd else "append_many"
        return self._beside_the_floor(figure, "append_many", contents, keywords, floor=work)

    def _beside_the_floor(
        self,
        figure: Figure,
        work: str,
        contents: Contents,
        keywords: dict[str, Any],
        *,
        floor: str = "",
    ) -> Figure:
        def fresh() -> dict[str, Any]:
            return {"path": str(self._copy(contents)), **keywords}

        self._compare(figure, Side(f"ours.{work}", fresh), Side(f"floor.{floor or work}", fresh))
        mine, least = (
            median(1e6 * each[side] for each in figure.rounds) for side in ("ours", "floor")
        )
        cpu = median(each["cpu_ratio"] for each in figure.rounds)
        figure.note = f"{mine:.0f} µs against {least:.0f} µs; CPU {cpu:.2f}x"
        return figure

    def _compare(self, figure: Figure, left: Side, right: Side) -> None:
        for ours, floor in pairs(left, right, self._sizes.rounds):
            mine, least = _each(ours), _each(floor)
            figure.rounds.append(
                {
                    "ours": mine,
                    "floor": least,
                    "ratio": mine / least,
                    "cpu_ratio": _each(ours, "cpu") / max(_each(floor, "cpu"), 1e-9),
                }
            )
        figure.value = median(each["ratio"] for each in figure.rounds)

    def _copy(self, contents: Contents) -> Path:
        """Return a fresh copy of a file, in place of the last one."""
        target = self._folder / "work.db"
        for left in self._folder.glob("work.db*"):
            left.unlink()
        shutil.copyfile(cached(self._folder, contents), target)
        return target

    # --- that it does not grow ---------------------------------------------------------------

    def _tail(self) -> Figure:
        sizes = self._sizes
        figure = Figure(
            "tail",
            f"last 20 of {sizes.long_log:,} events against last 20 of {sizes.short_log:,}",
            "x the short log",
            1.2,
        )
        self._growth(
            figure,
            "ours.last_events",
            (Contents(1, 1, sizes.long_log), {"number": 1}),
            (Contents(1, 1, sizes.short_log), {"number": 1}),
        )
        return figure

    def _page(self) -> Figure:
        sizes = self._sizes
        figure = Figure(
            "page",
            f"first page of 20 of a user among {sizes.many:,} sessions against {sizes.few:,}",
            "x the small file",
            1.5,
        )
        many, few = (n // sizes.of_a_user for n in (sizes.many, sizes.few))
        self._growth(
            figure,
            "ours.first_page",
            (Contents(sizes.many, many), {"users": many}),
            (Contents(sizes.few, few), {"users": few}),
        )
        return figure

    def _growth(
        self,
        figure: Figure,
        work: str,
        large: tuple[Contents, dict[str, Any]],
        small: tuple[Contents, dict[str, Any]],
    ) -> None:
        sizes = self._sizes

        def side(contents: Contents, more: dict[str, Any]) -> Side:
            path = str(cached(self._folder, contents))
            keywords = {"path": path, "count": sizes.reads, "warm": sizes.warm, **more}
            return Side(work, lambda: keywords)

        for left, right in pairs(side(*large), side(*small), sizes.rounds):
            figure.rounds.append(
                {"large": left["p50"], "small": right["p50"], "ratio": left["p50"] / right["p50"]}
            )
        figure.value = median(each["ratio"] for each in figure.rounds)
        large_p50, small_p50 = (
            median(1e6 * each[key] for each in figure.rounds) for key in ("large", "small")
        )
        figure.note = f"p50 {large_p50:.0f} µs against {small_p50:.0f} µs"

    # --- in numbers of its own ---------------------------------------------------------------

    def _sweep(self, name: str, events: int) -> Figure:
        sizes = self._sizes
        held = f"with {events} events of 1 KB each" if events else "without events"
        figure = Figure(
            name,
            f"sweep of {sizes.swept:,} expired sessions of users, {held}, durable file",
            "sessions a second",
            # With events it is the disk that counts: the floor itself is slower than that.
            math.inf if events else 20_000,
            higher_is_better=True,
        )
        contents = Contents(sizes.swept, max(1, sizes.swept // 20), events)
        now = START + 10 * IDLE + 1_000 * sizes.swept

        def fresh() -> dict[str, Any]:
            return {"path": str(self._copy(contents)), "now": now}

        floor = Side("floor.sweep", lambda: {**fresh(), "batch": 64})
        self._compare(figure, Side("ours.sweep", fresh), floor)
        rates = [1 / each["ours"] for each in figure.rounds]
        ratio, figure.value = figure.value, median(rates)
        figure.note = f"{ratio:.2f}x the floor's time"
        return figure

    def _import(self) -> Figure:
        figure = Figure("import", "`import sojourn` after `import asyncio`", "ms", 60)
        side = Side("interpreter.start_up", dict)
        for _ in range(self._sizes.imports):
            measured = side.run()
            figure.rounds.append({"seconds": measured["seconds"], "cpu": measured["cpu"]})
        figure.value = median(1e3 * each["seconds"] for each in figure.rounds)
        figure.note = f"CPU {median(1e3 * each['cpu'] for each in figure.rounds):.0f} ms"
        return figure

    def _memory(self) -> Figure:
        figure = Figure(
            "memory",
            f"memory of a small session in the memory store, {self._sizes.in_memory:,} of them",
            "bytes",
            1_536,
        )
        side = Side("ours.memory", lambda: {"sessions": self._sizes.in_memory})
        figure.rounds = [{"bytes": side.run()["bytes"]} for _ in range(min(3, self._sizes.rounds))]
        figure.value = median(each["bytes"] for each in figure.rounds)
        figure.note = "a user of its own and two state keys each; growth of the resident set"
        return figure


def _each(measured: Sample, what: str = "seconds") -> float:
    return measured[what] / measured["operations"]


def measure(
    bench: Bench, names: Iterable[str] | None, tell: Callable[[Figure], None]
) -> list[Figure]:
    """Measure the named figures (all by default); `tell` is called with each when it is done."""
    done: list[Figure] = []
    chosen = set(names or bench.figures())
    for name, work in bench.figures().items():
        if name in chosen:
            figure = work()
            tell(figure)
            done.append(figure)
    return done
