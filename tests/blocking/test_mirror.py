"""The two faces have the same verbs: names, arguments, docstrings, and what they return."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import pytest
from tests.blocking import mirror
from tests.blocking.mirror import FACES, Face, in_sync_types, in_sync_words, made_from, path_of

import sojourn
from sojourn import background, blocking
from sojourn.blocking import background as blocking_background
from sojourn.checkpoints import Checkpoints
from sojourn.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS: dict[type, type] = {
    sojourn.SessionManager: blocking.SessionManager,
    sojourn.Documents: blocking.Documents,
    History: blocking.History,
    Checkpoints: blocking.Checkpoints,
    sojourn.Lease: blocking.Lease,
    sojourn.Reaper: blocking.Reaper,
    sojourn.Background: blocking.Background,
    background.Job: blocking_background.Job,
}

MADE_FOR_US = {
    blocking.Documents,
    blocking.History,
    blocking.Checkpoints,
    blocking.Lease,
    blocking_background.Job,
}
"""Classes whose constructor is not for users."""

NOT_MIRRORED = {
    "Lease.keep": "the manager's own: what renews a lease in the background",
    "Job.run": "the runner's own",
    "Job.settled": "the sync face's own: what its `result` waits for",
    "Job.outcome": "the sync face's own: what its `result` is",
    "Job.succeeded": "the runner's own",
    "Job.failed": "the runner's own",
}
"""Public methods of the async face that the sync one does without, and why."""

OWN_WORDS = {
    "SessionManager": "says what is different about threads and forks",
    "SessionManager.on_end": "the hook may be a plain function",
    "Background": "says what is different about threads, forks and exits",
    "Background.submit": "who waits is out of time instead of cancelled",
    "Background.stop": "threads cannot be cancelled",
    "Background.__exit__": "as for `stop`",
    "Job": "there is `result()` in place of `await`",
}
"""Whose docstring is not the same, and why."""

OWN_TYPES = {"SessionManager.store": "underneath.Store"}
"""What returns another thing by the same name."""

OWN_MEMBERS = {"Lease": {"id", "epoch", "token", "lost"}, "Job": {"result"}}
"""What is an attribute of the async one, or stands in place of `await`."""

ENTERED = {"__enter__": "__aenter__", "__exit__": "__aexit__"}

pairs = pytest.mark.parametrize(
    ("theirs", "ours"), PAIRS.items(), ids=[kind.__name__ for kind in PAIRS]
)


def members_of(kind: type) -> dict[str, Callable[..., object]]:
    """Return the public methods and properties of a class, and how it is entered and left."""
    found: dict[str, Callable[..., object]] = {}
    for name, value in inspect.getmembers_static(kind):
        if isinstance(value, property):
            value = value.fget  # noqa: PLW2901 - its signature is the getter's
        if isinstance(value, classmethod):
            value = value.__func__  # noqa: PLW2901 - as it was written
        if inspect.isfunction(value) and (not name.startswith("_") or name in ENTERED):
            found[name] = value
        if inspect.isfunction(value) and name in ENTERED.values():
            found[name] = value
    return found


def sync_parameters(original: inspect.Signature) -> list[inspect.Parameter]:
    """Return the parameters of an async verb as the sync one has them: its functions are plain."""
    return [
        parameter.replace(annotation=re.sub(r"Awaitable\[(.*?)\]", r"\1", parameter.annotation))
        if isinstance(parameter.annotation, str)
        else parameter
        for parameter in original.parameters.values()
    ]


@pairs
def test_every_verb_is_there_and_no_other(theirs: type, ours: type) -> None:
    wanted = {
        name for name in members_of(theirs) if f"{theirs.__name__}.{name}" not in NOT_MIRRORED
    }
    there = {ENTERED.get(name, name) for name in members_of(ours)}
    assert there - OWN_MEMBERS.get(ours.__name__, set()) == wanted


@pairs
def test_signatures_are_the_same(theirs: type, ours: type) -> None:
    known = members_of(theirs)
    for name, mine in members_of(ours).items():
        if (other := known.get(ENTERED.get(name, name))) is None:
            continue
        sync, original = inspect.signature(mine), inspect.signature(other)
        assert list(sync.parameters.values()) == sync_parameters(original), name
        returned = in_sync_types(str(original.return_annotation))
        assert sync.return_annotation == OWN_TYPES.get(f"{ours.__name__}.{name}", returned), name


@pairs
def test_docstrings_are_carried_over(theirs: type, ours: type) -> None:
    known = members_of(theirs)
    for name, mine in members_of(ours).items():
        other = known.get(ENTERED.get(name, name))
        if other is not None and f"{ours.__name__}.{name}" not in OWN_WORDS:
            assert inspect.getdoc(mine) == in_sync_words(inspect.getdoc(other) or ""), name
        assert inspect.getdoc(mine), name
    if ours.__name__ not in OWN_WORDS:
        assert inspect.getdoc(ours) == in_sync_words(inspect.getdoc(theirs) or "")


@pairs
def test_constructors_are_the_same(theirs: type, ours: type) -> None:
    if ours not in MADE_FOR_US:
        assert inspect.signature(ours) == inspect.signature(theirs)


@pairs
def test_nothing_has_to_be_awaited(theirs: type, ours: type) -> None:
    for name, mine in members_of(ours).items():
        assert not inspect.iscoroutinefunction(mine), name
        assert "Await" not in str(inspect.signature(mine).return_annotation), name


@pytest.mark.parametrize("face", FACES, ids=lambda face: str(face.target))
def test_what_is_made_of_the_async_face_is_up_to_date(face: Face) -> None:
    """`python -m tests.blocking.mirror` puts it right."""
    assert path_of(face.target).read_text() == made_from(face)


def test_a_verb_that_changed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: for a new argument, and for other words."""
    face = FACES[1]
    text = path_of(face.source).read_text()
    for old, new in [("key: str,", "key: str, more: int,"), ("Store a document", "Keep one")]:
        assert old in text
        changed = text.replace(old, new)
        monkeypatch.setattr(mirror, "_text_of", lambda _module, text=changed: text)
        assert made_from(face) != path_of(face.target).read_text()
        monkeypatch.undo()


def test_parallel_map_is_the_same() -> None:
    sync = inspect.signature(blocking.parallel_map)
    original = inspect.signature(sojourn.parallel_map)
    assert list(sync.parameters.values()) == sync_parameters(original)
    assert sync.return_annotation == original.return_annotation


def test_a_store_is_asked_what_only_some_can() -> None:
    """`SessionManager.store` has the verbs of `SupportsBackup`, as they are there."""
    for name in ("backup", "check"):
        mine = inspect.signature(getattr(blocking.Store, name))
        assert mine == inspect.signature(getattr(sojourn.store.SupportsBackup, name))
