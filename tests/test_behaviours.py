"""Every behaviour that the core owes has a test that carries its number."""

from __future__ import annotations

import ast
from pathlib import Path

from sojourn.testing.laws import LAWS

TESTS = Path(__file__).resolve().parent

CORE: dict[int, str] = {
    1: "generated ids are unique and random",
    2: "what is no id is refused",
    3: "a malformed id on a read never reaches the store",
    4: "deleting: malformed is an error, unknown is fine",
    7: "a generated id that is taken is replaced, a bounded number of times",
    8: "ids and clock are passed in",
    9: "a given id is used as it is",
    10: "what is missing is named",
    11: "a name with quotes means only itself",
    12: "creating twice keeps the first",
    14: "the same id in two apps is two sessions",
    15: "reading an unknown id creates nothing",
    16: "another user's session is not to be had",
    17: "another user's delete changes nothing",
    18: "deleting is idempotent",
    19: "deleting leaves nothing for the next one with the id",
    21: "an old handle does not bring a session back",
    23: "lists keep users and apps apart",
    24: "listed sessions have state and no events",
    27: "a corrupt record is an error and hides no other",
    28: "filters are ANDed",
    29: "get-or-create",
    31: "missing, not yours and trouble are different errors",
    32: "an untouched new session is not stored",
    33: "a clean session is not written",
    34: "what counts as modified",
    35: "saving a cleared session deletes it",
    36: "cleared, then set, then saved",
    38: "typed getter, and None is a value",
    39: "a mapping of everything is a copy",
    40: "nothing given or returned aliases the store",
    41: "the same for shared tiers and events",
    44: "values keep their types",
    45: "two writers of different keys",
    46: "a session without state works",
    47: "no time to live is for ever",
    49: "expired is missing before any sweep",
    50: "expired is never revived",
    51: "idle slides, absolute does not",
    52: "reading keeps a session alive without rewriting it",
    53: "a sweep takes only what expired",
    55: "a live scope is not swept",
    56: "a sweep's concurrency is bounded",
    57: "one failure does not stop a sweep",
    58: "a sweep runs the hooks of an end",
    59: "the reaper's interval, default and stop",
    60: "put and get a document",
    61: "putting again keeps when it was created",
    62: "collections are independent",
    64: "data survive a reopen",
    65: "a kill while saving leaves nothing half-written",
    66: "closed is closed, and borrowed is not closed",
    68: "readers see whole values",
    69: "a missing collaborator is refused at once",
    70: "app keys are seen by all sessions",
    71: "user keys are seen by that user's",
    72: "other keys are private",
    73: "temp keys are readable on the handle",
    74: "temp keys are in no fresh copy",
    77: "the caller's event is not changed",
    78: "a missing key is a KeyError, an unsaved one is not seen",
    79: "deleting a key, and None is not deleted",
    80: "user state without a session",
    83: "append, then get",
    84: "partial events",
    85: "append to a missing session",
    87: "no session or no event",
    89: "windows",
    92: "every field of an event comes back",
    93: "what is an instant",
    94: "indexes out of range",
    96: "a history: unknown, apart, cleared",
    97: "concurrent appends are all there",
    98: "messages with tool calls come back",
    99: "the last so many messages",
    100: "a token budget",
    101: "a rolling summary",
    103: "a model that fails leaves no half turn",
    104: "checkpoints: the latest, by id, in order, and saved anew",
    105: "what was compacted can still be read",
    106: "of two handles, the second is told",
    109: "sessions do not block each other",
    111: "the whole lifecycle table",
    112: "terminating twice, and the terminal phase",
    113: "a refused move changes nothing",
    116: "a failing cleaner",
    117: "ending the unknown, heartbeat of the unknown",
    118: "an exclusive role",
    119: "heartbeats never go back",
    120: "children fail and end on their own",
    122: "concurrent claims of a role",
    124: "a session that ends with its last scope",
    125: "scopes are counted",
    127: "a body that raises",
    128: "one session of a user or key",
    129: "what is no user or key",
    130: "a bound session is never rebound",
    131: "attaching by a key checks whose it is",
    132: "the ambient session",
    135: "background jobs: order, failures, a full queue",
    136: "an end persists once",
    138: "reuse of anonymous sessions",
    139: "a bounded parallel map, and child scopes",
    153: "older records load",
}
"""Rows of the list of behaviours that the core, the memory store and the SQLite store owe."""


def numbers_in(path: Path) -> set[int]:
    """Return the numbers that the tests of a file carry."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "behaviour":
            numbers = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            found |= {number for number in numbers if isinstance(number, int)}
    return found


def test_every_behaviour_of_the_core_has_a_test() -> None:
    covered = {number for law in LAWS.values() for number in law.behaviours}
    for path in TESTS.rglob("test_*.py"):
        covered |= numbers_in(path)
    missing = {number: text for number, text in CORE.items() if number not in covered}
    assert not missing, f"no test carries the number of {missing}"
