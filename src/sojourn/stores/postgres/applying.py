"""Units to the arguments of the server's function, column by column."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sojourn.store import Put
from sojourn.stores.planning import counted
from sojourn.stores.postgres import rows
from sojourn.stores.postgres.writing import ABSENT, AS_TEXT, PARAMETERS, SEPARATOR, is_joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sojourn.model import Header
    from sojourn.stores.planning import Loaded, Unit


def _laid_out(name: str, kind: str) -> Callable[[Sequence[Any]], Any]:
    """Return what makes a list of values what is given for it."""
    if kind in AS_TEXT:
        return _array
    return _joined if is_joined(name, kind) else list


def _array(column: Sequence[int | None]) -> str | None:
    """Return a list of numbers, or of truths, as the server writes one; nothing for only `None`."""
    if column[0] is None and column.count(None) == len(column):
        return None
    return f"{{{str([*column])[1:-1]}}}".replace("None", "NULL")


def _joined(column: Sequence[str | None]) -> str:
    """Return a list of texts as one. Raises `ValueError` for one with what stands before them."""
    absent = column.count(None)
    one = SEPARATOR.join(["", *[ABSENT if text is None else text for text in column]])
    if one.count(SEPARATOR) > len(column) or one.count(ABSENT) > absent:
        message = "names and JSON hold no control characters"
        raise ValueError(message)
    return one


_COLUMNS = {
    prefix: [_laid_out(*each) for each in PARAMETERS if each[0].startswith(f"{prefix}_")]
    for prefix in ("u", "e", "c", "t", "d")
}
"""What lays out the columns of each list of rows."""


class Arguments:
    """What one call of the function takes: rows of values by list, transposed at the end."""

    def __init__(self, units: Sequence[Unit]) -> None:
        """Lay out units that are numbered by their place."""
        self._lists: dict[str, list[tuple[Any, ...]]] = {prefix: [] for prefix in _COLUMNS}
        self._rare: dict[str, list[dict[str, Any]]] = {}
        self._tiers: list[tuple[int, tuple[Any, ...]]] = []
        self.created: list[Unit] = []
        for number, unit in enumerate(units):
            self._add(number, unit)

    def values(self, writer: bytes, batch: int, slot: int, *, relaxed: bool) -> list[Any]:
        """Return the arguments in order. Raises `ValueError` for what no text is like."""
        values: list[Any] = [writer, batch, slot, relaxed]
        self._lists["t"] = [row for _, row in sorted(self._tiers, key=itemgetter(0))]
        for prefix, columns in _COLUMNS.items():
            listed = zip(*self._lists[prefix], strict=True)
            found = [lay_out(each) for lay_out, each in zip(columns, listed, strict=False)]
            values += found or [None] * len(columns)
        values.append(rows.to_json(self._rare) if self._rare else None)
        return values

    def _add(self, number: int, unit: Unit) -> None:
        row, new = None, None
        if unit.old is not None and unit.header is not None:
            row = unit.old.row
            self._update(number, unit, unit.old, unit.header)
        elif unit.header is not None:
            self.created.append(unit)
            new = len(self.created)
            self._create(number, unit, unit.header, new)
        for entry, peak in zip(unit.entries, unit.peaks, strict=True):
            self._lists["e"].append((number, row, new, *rows.from_entry(entry, peak)))
        if unit.tiers:
            self._share(number, unit)
        if unit.documents:
            self._document(number, unit, row, new)
        if unit.guards:
            self._guard(number, unit)

    def _update(self, number: int, unit: Unit, old: Loaded, header: Header) -> None:
        """Lay out a session that exists."""
        self._lists["u"].append(
            (
                number,
                old.row,
                old.version,
                unit.version,
                header.revision,
                header.seq,
                header.active_at,
                header.expires_at,
                header.due_at,
                unit.now,
                header.live,
                bool(header.labels),
                header.remembered,
                unit.peak,
                None if unit.state is None else unit.state.decode(),
            )
        )
        if unit.truncate_after is not None:
            self._more("cuts", unit=number, row=old.row, after=unit.truncate_after)
        if unit.rest_changed:
            self._restate(number, unit, old, header)

    def _restate(self, number: int, unit: Unit, old: Loaded, header: Header) -> None:
        """Lay out the rarer parts of a header."""
        relabelled = old.header.labels != header.labels
        self._more(
            "rests",
            unit=number,
            row=old.row,
            header=rows.from_header(header),
            freed=unit.claim_freed is not None,
            relabelled=relabelled,
        )
        if relabelled:
            self._label(number, header, row=old.row)
        self._count(number, header.app, counted(old.header, header))

    def _create(self, number: int, unit: Unit, header: Header, new: int) -> None:
        """Lay out a session that is new."""
        parent = next((g for g in unit.guards if g.key[1] == header.parent), None)
        columns = {
            **rows.from_header(header),
            "version": unit.version,
            "peak": unit.peak,
            "parent_row": None if parent is None else parent.row,
        }
        state = (unit.state or b"{}").decode()
        self._lists["c"].append((number, rows.to_json(columns), state))
        if unit.claim_taken is not None:
            claim = rows.claim_text(unit.claim_taken)
            digest = rows.digest(header.app, claim).hex()
            self._more("claims", unit=number, new=new, digest=digest, claim=claim)
        if unit.copy is not None:
            source = next(g for g in unit.guards if g.key == unit.copy.source)
            self._more("copies", unit=number, new=new, source=source.row, upto=unit.copy.upto)
        self._label(number, header, new=new)
        self._count(number, header.app, counted(None, header))

    def _label(self, number: int, header: Header, **place: int) -> None:
        for digest, name, value in rows.labels_of(header):
            self._more("labels", unit=number, digest=digest.hex(), name=name, value=value, **place)

    def _count(self, number: int, app: str, changes: dict[tuple[str, str], int]) -> None:
        for (facet, phase), by in changes.items():
            digest = rows.digest(app, facet).hex()
            self._more(
                "counts", unit=number, digest=digest, phase=phase, app=app, facet=facet, by=by
            )

    def _share(self, number: int, unit: Unit) -> None:
        """Lay out the keys of shared tiers."""
        for tier in unit.tiers:
            app, owner, order = tier.app, rows.owner_of(tier.user), tier.order
            for name, value in tier.set.items():
                digest, plain = rows.key_of(name)
                text = bytes(value).decode()
                self._tiers.append((order, (number, app, owner, digest, plain, text)))
            for name in tier.drop:
                digest, plain = rows.key_of(name)
                self._tiers.append((order, (number, app, owner, digest, plain, None)))

    def _document(self, number: int, unit: Unit, row: int | None, new: int | None) -> None:
        """Lay out documents that are put and dropped."""
        app = unit.app if unit.key is None else None
        for part, seq, now in unit.documents:
            facts: tuple[Any, ...] = (None, seq, now, None, None)
            if isinstance(part, Put):
                facts = (part.content_type, seq, now, part.expires_at, part.body)
            self._lists["d"].append((number, row, new, app, part.collection, part.key, *facts))

    def _guard(self, number: int, unit: Unit) -> None:
        """Lay out the sessions that have to be as they were."""
        for guard in unit.guards:
            self._more(
                "guards",
                unit=number,
                row=guard.row,
                version=guard.version,
                phase=None if guard.phase is None else guard.phase.value,
            )

    def _more(self, kind: str, **facts: Any) -> None:
        self._rare.setdefault(kind, []).append(facts)
