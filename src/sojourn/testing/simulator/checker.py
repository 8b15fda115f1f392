"""Was a promise broken? The checker knows what was acknowledged, what was read, and what is left.

It knows nothing of how sessions are kept, and it never asks whether what happened was likely: only
whether it could have happened to somebody who was told the truth.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from sojourn.testing.simulator.evidence import Evidence, Incarnation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sojourn.testing.simulator.evidence import Missed, Sighting
    from sojourn.testing.simulator.ledger import History, Operation, Seen

MAX_VIOLATIONS = 50
"""Violations of one run that are told: one bug breaks many promises, and the first ones tell it."""


class Violation(NamedTuple):
    """A promise that was broken, and how."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def check(history: History) -> list[Violation]:
    """Return what is wrong with a history: nothing, if every promise was kept."""
    evidence = Evidence(history)
    found: list[Violation] = []
    for rule in RULES:
        for what in rule(evidence):
            found.append(Violation(rule.__name__, what))
            if len(found) == MAX_VIOLATIONS:
                return found
    return found


# --- sessions come and go ------------------------------------------------------------------------


def made_by_somebody(evidence: Evidence) -> Iterator[str]:
    """A session was made by an operation that makes sessions, and by one alone."""
    makers: dict[Operation, Incarnation] = {}
    for incarnation in evidence:
        made = incarnation.made
        if made is None:
            if incarnation.sightings:  # else nothing in it says who it was
                yield f"{incarnation} was made by nobody"
        elif not made.possible:
            yield f"{incarnation} is there, although {made}"
        elif made in makers:
            yield f"{made} made {makers[made]} and {incarnation}"
        else:
            makers[made] = incarnation


def not_resurrected(evidence: Evidence) -> Iterator[str]:
    """What was there before it was removed is not there afterwards, and takes no writes."""
    for remover in evidence.operations:
        if not (remover.done and remover.removes):
            continue
        for incarnation in evidence:
            other = remover.epoch not in (None, incarnation.epoch)
            if other and incarnation.id == remover.id:
                continue
            if incarnation.there_by >= remover.began:
                continue
            above = None if incarnation.made is None else incarnation.made.parent
            if remover.id in (incarnation.id, above):
                yield from _after_removal(incarnation, remover)


def _after_removal(incarnation: Incarnation, remover: Operation) -> Iterator[str]:
    for sighting in incarnation.sightings:
        if sighting.began > remover.ended:
            yield f"{incarnation} was seen by {sighting.by} after {remover}"
    for operation in incarnation.touched:
        if operation.wrote and operation.began > remover.ended:
            yield f"{incarnation} took {operation} after {remover}"


def not_vanished(evidence: Evidence) -> Iterator[str]:
    """A session that was there is missing only if somebody removed it, or because it expired."""
    for incarnation in evidence:
        if incarnation.made is None or incarnation.there_by == inf:
            continue
        for missed in evidence.missed(incarnation):
            if not evidence.removers(incarnation, missed.ended) and not _may_have_expired(
                evidence, incarnation, missed
            ):
                yield f"{incarnation} is missing to {missed.by}, and nobody removed it"
                break


def hooks_run(evidence: Evidence) -> Iterator[str]:
    """The end hooks of a session run before it goes, unless it is deleted."""
    hooks = evidence.history.hooks
    if hooks is None:
        return
    for incarnation in evidence:
        gone = incarnation.final is None and incarnation.made is not None
        if gone and incarnation.there_by < inf and incarnation.epoch not in hooks:
            removers = {remover.verb for remover in evidence.removers(incarnation, inf)}
            if removers <= {"end"}:
                yield f"{incarnation} is gone, and its end hook never ran"


def _may_have_expired(evidence: Evidence, incarnation: Incarnation, missed: Missed) -> bool:
    """Return whether the session, or one above it, was past its deadline on anybody's clock."""
    line = [one for id in evidence.line(incarnation) for one in evidence.of(id)]
    deadlines = (_deadline(one, missed.began) for one in line)
    now = evidence.latest(missed.ended)
    return any(deadline is not None and deadline <= now for deadline in deadlines)


def _deadline(incarnation: Incarnation, before: float = inf) -> int | None:
    """Return the earliest instant at which a session can expire, by what was over `before`.

    `None` for never.
    """
    made = incarnation.made
    if made is None:
        return None
    deadlines = []
    if made.absolute is not None:
        deadlines.append(made.before + made.absolute)
    if made.idle is not None:
        touched = (op for op in incarnation.touched if op.done and op.commits)
        used = [op.before for op in touched if op.ended < before]
        deadlines.append(max([made.before, *used]) + made.idle)
    return min(deadlines, default=None)


def finished(evidence: Evidence) -> Iterator[str]:
    """Once all that is due was swept, no session is on its way out any more."""
    for seen in evidence.history.left:
        incarnation = next((one for one in evidence if one.epoch == seen.epoch), None)
        if incarnation is None:
            yield f"session {seen.id!r} ({seen.epoch}) came out of nowhere in the end"
        elif seen.phase != "OPEN":
            yield f"{incarnation} is still {seen.phase} in the end"
        elif _deadline(incarnation) is not None:
            yield f"{incarnation} expired and is still there in the end"


# --- the log -------------------------------------------------------------------------------------


def logs_are_whole(evidence: Evidence) -> Iterator[str]:
    """Every log that was read is a log that can be: numbered, nothing twice, nothing refused."""
    for incarnation in evidence:
        for sighting in incarnation.sightings:
            if sighting.seen.log is not None:
                for what in _faults_of(evidence, incarnation, sighting):
                    yield f"{incarnation} as seen by {sighting.by}: {what}"


def _faults_of(evidence: Evidence, incarnation: Incarnation, sighting: Sighting) -> Iterator[str]:
    log = sighting.seen.log or ()
    markers = [entry.marker for entry in log]
    if [entry.seq for entry in log] != list(range(1, len(log) + 1)):
        yield f"its events are numbered {[entry.seq for entry in log]}"
    if len(set(markers)) < len(markers):
        yield f"an event is there twice: {markers}"
    if tuple(incarnation.log[: len(log)]) != log:
        yield f"it was {markers}, and it was {[entry.marker for entry in incarnation.log]}"
    tokens = [entry.token for entry in log if entry.token and _is_own(evidence, incarnation, entry)]
    if tokens != sorted(tokens):
        yield f"an older lease wrote after a newer one: {tokens}"
    for marker in markers:
        writer = evidence.by_marker.get(marker)
        if writer is None or not writer.possible or writer.began > sighting.ended:
            yield f"event {marker} is there, although {writer}"
        elif writer.id == incarnation.id:
            at = markers.index(writer.markers[0]) if writer.markers[0] in markers else len(markers)
            if tuple(markers[at : at + len(writer.markers)]) != writer.markers:
                yield f"{writer} is there in part: {markers}"
    yield from _wrong_turn(evidence, sighting.seen)


def _is_own(evidence: Evidence, incarnation: Incarnation, entry: object) -> bool:
    """Return whether an event was appended here, not copied by a fork."""
    writer = evidence.by_marker.get(getattr(entry, "marker", ""))
    return writer is not None and writer.id == incarnation.id


def _wrong_turn(evidence: Evidence, seen: Seen) -> Iterator[str]:
    """Each append notes in the state, in the same commit, which event was its last."""
    last = None
    for entry in seen.log or ():
        writer = evidence.by_marker.get(entry.marker)
        if writer is not None and writer.markers[-1] == entry.marker:
            last = entry.marker
    if seen.state.get("turn") != last:
        yield f"its state is of event {seen.state.get('turn')}, its log ends with {last}"


def appends_are_kept(evidence: Evidence) -> Iterator[str]:
    """What was acknowledged is in every later log, under the number that was told."""
    for incarnation in evidence:
        for append in incarnation.touched:
            if not append.done or not append.seqs:
                continue
            told = tuple(zip(append.seqs, append.markers, strict=True))
            for sighting in incarnation.sightings:
                if sighting.seen.log is None or sighting.began <= append.ended:
                    continue
                there = {entry.seq: entry.marker for entry in sighting.seen.log}
                if any(there.get(seq) != marker for seq, marker in told):
                    yield f"{append} at {append.seqs} is not what {sighting.by} saw: {there}"
    yield from _lost_by_id(evidence)


def _lost_by_id(evidence: Evidence) -> Iterator[str]:
    """An append by id that is in no log has to have gone with a session that is gone."""
    for append in evidence.operations:
        if append.verb != "append by id" or not append.done:
            continue
        candidates = evidence.of(append.id)
        if any(append in incarnation.touched for incarnation in candidates):
            continue
        unseen = [
            op
            for op in evidence.operations
            if op.makes and op.id == append.id and op.outcome == "unknown"
        ]
        if not unseen and candidates and all(one.final is not None for one in candidates):
            yield f"{append} at {append.seqs} is nowhere"


def appends_keep_their_order(evidence: Evidence) -> Iterator[str]:
    """Of two appends, the one that was over before the other began has the lower numbers."""
    for incarnation in evidence:
        appends = [op for op in incarnation.touched if op.done and op.seqs]
        for first in appends:
            for second in appends:
                if first.ended < second.began and first.seqs[-1] >= second.seqs[0]:
                    yield f"{first} got {first.seqs}, and {second} later {second.seqs}"
                elif first.number < second.number and set(first.seqs) & set(second.seqs):
                    yield f"{first} and {second} both got {first.seqs} and {second.seqs}"


def watchers_miss_nothing(evidence: Evidence) -> Iterator[str]:
    """A watcher sees the events from the first on, each once, in order."""
    for watch in evidence.operations:
        seqs = [seq for seq, _ in watch.watched]
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"{watch} saw events {seqs}"
        for _, marker in watch.watched:
            writer = evidence.by_marker.get(marker)
            if writer is None or not writer.possible:
                yield f"{watch} saw event {marker}, although {writer}"


# --- revisions and state -------------------------------------------------------------------------


def revisions_tell_contents_apart(evidence: Evidence) -> Iterator[str]:
    """A revision has one content, and it never goes back."""
    for incarnation in evidence:
        contents: dict[int, dict[str, object]] = {}
        for sighting in incarnation.sightings:
            seen = sighting.seen
            own = {key: value for key, value in seen.state.items() if ":" not in key}
            known = contents.setdefault(seen.revision, own)
            if known != own:
                yield f"{incarnation} revision {seen.revision} is {known} and {own}"
        for first in incarnation.sightings:
            for second in incarnation.sightings:
                back = first.seen.revision > second.seen.revision
                if first.ended < second.began and back:
                    yield f"{incarnation} went back to revision {second.seen.revision}"


def commits_count_once(evidence: Evidence) -> Iterator[str]:
    """The revision of a session in use is one more than its commits."""
    for incarnation in evidence:
        seen = incarnation.final
        if seen is None or seen.phase != "OPEN":
            continue
        markers = {entry.marker for entry in seen.log or ()}
        commits = [op for op in incarnation.touched if op.commits and op.possible]
        certain = [op for op in commits if op.done or markers.intersection(op.markers)]
        doubtful = [op for op in commits if op not in certain and not op.markers]
        low, high = 1 + len(certain), 1 + len(certain) + len(doubtful)
        if not low <= seen.revision <= high:
            yield f"{incarnation} has revision {seen.revision}, by its commits {low} to {high}"


def strict_saves_exclude_each_other(evidence: Evidence) -> Iterator[str]:
    """Of strict saves that began from the same value, one was acknowledged; none was lost."""
    for incarnation in evidence:
        strict = [op for op in incarnation.touched if op.strict]
        won: dict[int, Operation] = {}
        for operation in strict:
            if operation.done:
                other = won.setdefault(operation.writes["count"], operation)
                if other is not operation:
                    yield f"{other} and {operation} both counted to {operation.writes['count']}"
        start = _counted_from(incarnation)
        if incarnation.final is None or start is None:
            continue
        count = incarnation.final.state.get("count")
        low = start + len(won)
        high = low + sum(operation.outcome == "unknown" for operation in strict)
        if not isinstance(count, int) or not low <= count <= high:
            yield f"{incarnation} counted to {count}, by its strict saves {low} to {high}"


def _counted_from(incarnation: Incarnation) -> int | None:
    """Return where the count of a session began, `None` if nobody was told."""
    made = incarnation.made
    if made is None or made.verb != "fork":
        return 0
    counts = [seen.state.get("count") for _, _, seen in made.seen if made.done]
    return counts[0] if counts else None


def values_are_the_last_ones(evidence: Evidence) -> Iterator[str]:
    """A key has what was written last: not an older value, nor one that was refused."""
    for incarnation in evidence:
        for key in ("k0", "k1"):
            made = [] if incarnation.made is None else [incarnation.made]
            writers = made + incarnation.touched
            yield from _stale(evidence, str(incarnation), key, writers, incarnation)
    shared: dict[str, list[Operation]] = {
        "app:a": evidence.operations,
        "user:u": [op for op in evidence.operations if op.user is not None],
    }
    for key, writers in shared.items():
        for incarnation in evidence:
            yield from _stale(evidence, f"{key} in {incarnation}", key, writers, incarnation)


def _stale(
    evidence: Evidence, what: str, key: str, writers: list[Operation], incarnation: Incarnation
) -> Iterator[str]:
    writes = [op for op in writers if key in op.writes and op.possible]
    for sighting in incarnation.sightings:
        if key == "user:u" and sighting.seen.user is None:
            continue
        value = sighting.seen.state.get(key)
        if value is not None and not any(
            op.possible and op.writes.get(key) == value for op in evidence.operations
        ):
            yield f"{what}: {key} is {value}, although {evidence.numbered(value)}"
            continue
        sources = [op for op in writes if op.writes[key] == value]
        if sources and all(source.began > sighting.ended for source in sources):
            yield f"{what}: {key} is {value} before it was written"
        settled = [op for op in writes if op.done and op.ended < sighting.began]
        since = max((source.ended for source in sources), default=-1)
        newer = [
            op for op in settled if op.writes[key] != value and _tried(evidence, op, key) > since
        ]
        if newer:
            yield f"{what}: {sighting.by} saw {value}, after {newer[-1]}"


def _tried(evidence: Evidence, operation: Operation, key: str) -> int:
    """Return when the value that an operation wrote was first tried.

    A save sends again what came of an earlier one that nobody knows, unless it finds that it had
    been written: it may have been written any time since then.
    """
    first = evidence.numbered(operation.writes[key])
    return operation.began if first is None else min(operation.began, first.began)


def leases_are_numbered(evidence: Evidence) -> Iterator[str]:
    """Each holder of a lease has a higher number than any before."""
    for incarnation in evidence:
        leases = [op for op in incarnation.touched if op.verb == "lease" and op.granted]
        by_token = sorted(leases, key=lambda op: op.token)
        for first, second in pairwise(by_token):
            if first.token == second.token:
                yield f"{first} and {second} both have number {first.token}"
        for first in leases:
            for second in leases:
                if first.granted < second.began and first.token > second.token:
                    yield f"{first} had number {first.token}, and {second} later {second.token}"


RULES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    made_by_somebody,
    not_resurrected,
    not_vanished,
    hooks_run,
    finished,
    logs_are_whole,
    appends_are_kept,
    appends_keep_their_order,
    watchers_miss_nothing,
    revisions_tell_contents_apart,
    commits_count_once,
    strict_saves_exclude_each_other,
    values_are_the_last_ones,
    leases_are_numbered,
)
"""Every promise that is checked; the name of the function is the name of the rule."""
